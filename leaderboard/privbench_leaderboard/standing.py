"""What was said of records after they were made: the grades that `privbench verify` gave them,
and those that were withdrawn."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.records import Filing

GRADES_FILE = "grades.json"
WITHDRAWN_FILE = "withdrawn.json"
LONGEST_REASON = 1000
LARGEST = 16 * 2**20
"""Bytes that either file may have."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Rerun(_Model):
    images: NonNegativeInt
    of: PositiveInt


class _Graded(_Model):
    sha256: str
    grade: Literal["recomputed", "re-run"]
    privbench: str = ""
    rerun: _Rerun | None = None


class _Grades(_Model):
    schema_version: Literal[1]
    grades: dict[str, _Graded]


class _Withdrawal(_Model):
    record: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON)]


class _Withdrawals(_Model):
    schema_version: Literal[1]
    withdrawn: list[_Withdrawal]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A record that counts no more.

    Attributes:
        entry: the record.
        date: of the withdrawal, year-month-day.
        reason: why, in its owner's words.
    """

    entry: Filing
    date: str
    reason: str


def judge(
    entries: Sequence[Filing], folder: Path
) -> tuple[tuple[Filing, ...], tuple[Withdrawn, ...]]:
    """Records with their grades, and apart from them those that were withdrawn.

    A grade holds for the very bytes that were checked: a record that has changed since is
    `claimed` again, and a grade of a record that is not here says nothing. A missing file grades
    or withdraws nothing.

    Args:
        entries: of one folder of records.
        folder: holds `grades.json` and `withdrawn.json`.

    Raises:
        LeaderboardError: a file does not have its format, or withdraws a record that is not here.
    """
    grades, withdrawals = (
        _read(folder / GRADES_FILE, _Grades),
        _read(folder / WITHDRAWN_FILE, _Withdrawals),
    )
    graded = [_graded(entry, grades) for entry in entries]
    reasons = {w.record: w for w in withdrawals.withdrawn} if withdrawals else {}
    for name in reasons.keys() - {entry.stem for entry in entries}:
        near = difflib.get_close_matches(name, [entry.stem for entry in entries], 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise LeaderboardError(
            f"{folder / WITHDRAWN_FILE} withdraws {name!r}, which is no record here.{hint}"
        )
    kept = tuple(entry for entry in graded if entry.stem not in reasons)
    gone = tuple(
        Withdrawn(entry, reasons[entry.stem].date, reasons[entry.stem].reason)
        for entry in graded
        if entry.stem in reasons
    )
    return kept, gone


def _graded(entry: Filing, grades: _Grades | None) -> Filing:
    found = grades.grades.get(entry.stem) if grades else None
    if found is None or found.sha256 != entry.sha256:
        return entry
    checked = f"{found.rerun.images:,} of {found.rerun.of:,} images" if found.rerun else ""
    return entry.model_copy(update={"grade": found.grade, "checked": checked})


M = TypeVar("M", bound=_Model)


def _read(path: Path, kind: type[M]) -> M | None:
    if not path.exists():
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise LeaderboardError(f"{path} has more than {LARGEST:,} bytes.")
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise LeaderboardError(f"Cannot read {path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise LeaderboardError(
            f"{path} does not have its format: {place}: {first['msg']}. "
            "docs/leaderboard.md describes it."
        ) from None
    except (ValueError, RecursionError) as error:
        raise LeaderboardError(f"{path} is not JSON: {error}") from error
