"""What maintainers know about published records: grades, and withdrawals with their reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privbench.errors import RecordError, did_you_mean
from privbench.record import PACKED

Level = Literal["claimed", "recomputed", "re-run"]
"""How far a record has been checked: not at all; all its numbers follow from its evidence; and some
of its images were anonymized again and came out the same."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rerun(_Model):
    """How much was anonymized again.

    Attributes:
        images: probes that were.
        of: probes of the record.
        identical: of `images`, those that came out the same in every bit.
    """

    images: int
    of: int
    identical: int


class Grade(_Model):
    """A grade of one record file.

    Attributes:
        sha256: of the unpacked record; a record that was edited later has no grade.
        privbench: release that checked it.
    """

    sha256: str
    grade: Level
    privbench: str
    rerun: Rerun | None = None


class Grades(_Model):
    """`grades.json`: record name -> grade."""

    schema_version: Literal[1] = 1
    grades: dict[str, Grade] = {}


class Withdrawal(_Model):
    """A record that no longer counts, and why."""

    record: str
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    reason: str = Field(min_length=1)


class Withdrawals(_Model):
    """`withdrawn.json`."""

    schema_version: Literal[1] = 1
    withdrawn: list[Withdrawal] = []


M = TypeVar("M", bound=_Model)


def read(kind: type[M], path: Path) -> M:
    """Grades or withdrawals; empty where there is no file.

    Raises:
        RecordError: the file is not what it should be.
    """
    try:
        return kind.model_validate_json(path.read_bytes()) if path.exists() else kind()
    except (OSError, ValidationError) as error:
        raise RecordError(f"Cannot read {path}: {error}") from error


def write(found: _Model, path: Path) -> None:
    """Write grades or withdrawals, for readable diffs.

    Raises:
        RecordError: the file cannot be written.
    """
    body = found.model_dump(mode="json", exclude_none=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise RecordError(f"Cannot write {path}: {error}") from error


def merged(found: Grades, fresh: Mapping[str, Grade | None]) -> Grades:
    """Grades with fresh ones in their place; None, and a mere claim, takes a grade away.

    A re-run outlives a later recomputation of the same record.
    """
    grades = dict(found.grades)
    for name, grade in fresh.items():
        old = grades.pop(name, None)
        if grade is None or grade.grade == "claimed":
            continue
        keep = old and old.sha256 == grade.sha256 and old.grade == "re-run" != grade.grade
        grades[name] = old if keep and old else grade
    return Grades(grades=grades)


def withdraw(record: Path, reason: str, path: Path) -> Withdrawal:
    """Withdraw a published record: it stays, and counts no longer.

    Args:
        record: its file.
        reason: what readers of the board are told.
        path: `withdrawn.json`.

    Raises:
        RecordError: there is no such record, it is withdrawn already, or no reason is given.
    """
    if not record.is_file():
        near = [p.name for p in record.parent.glob(f"*{PACKED}")] if record.parent.is_dir() else []
        hint = did_you_mean(record.name, near) if near else ""
        raise RecordError(f"There is no record {record}. {hint}")
    if not reason.strip():
        raise RecordError("Say why: --reason TEXT. The board prints it.")
    found, name = read(Withdrawals, path), stem(record)
    if any(w.record == name for w in found.withdrawn):
        raise RecordError(f"{name} is withdrawn already, see {path}.")
    made = Withdrawal(record=name, date=date.today().isoformat(), reason=reason.strip())
    write(Withdrawals(withdrawn=[*found.withdrawn, made]), path)
    return made


def stem(path: Path) -> str:
    """A record's name from its file's."""
    return path.name.removesuffix(".gz").removesuffix(".json")
