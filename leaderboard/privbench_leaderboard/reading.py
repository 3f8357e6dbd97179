"""Record files to records: JSON in, frozen objects out, or a sentence that names the file."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.records import MEMBERSHIP, Audit, Entry, Filing

SCHEMA_VERSION = 1
"""The record schema that this package reads."""

_HALF = re.compile(r"\\ud[89a-f]", re.I)

LARGEST = 64 * 2**20
"""Bytes that a record may have, unpacked."""


def load(folder: Path | str) -> tuple[Filing, ...]:
    """Every `*.json` and `*.json.gz` below a folder, as entries in the order of their paths.

    Raises:
        LeaderboardError: the folder is missing or holds no record, or a file is unreadable, of
            another schema version, or no record. Nothing is skipped.
    """
    root = Path(folder)
    if not root.is_dir():
        raise LeaderboardError(f"There is no folder {root}.")
    paths = sorted([*root.rglob("*.json"), *root.rglob("*.json.gz")])
    stems = Counter(stem_of(path) for path in paths)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise LeaderboardError(f"{root} holds two records called {twice[0]}; keep one of them.")
    entries = tuple(read(path) for path in paths)
    if not entries:
        raise LeaderboardError(f"{root} holds no records (*.json, *.json.gz).")
    return entries


def parse(text: str, name: str = "record", stem: str = "") -> Entry:
    """One identification record from its JSON text; see `parse_any`.

    Raises:
        LeaderboardError: likewise; or a record of another task.
    """
    found = parse_any(text, name, stem)
    if not isinstance(found, Entry):
        raise LeaderboardError(f"{name} is a record of membership, where none belongs.")
    return found


def parse_any(text: str, name: str = "record", stem: str = "") -> Filing:
    """One record from its JSON text.

    Args:
        text: the file's content.
        name: what an error message calls it.
        stem: of the file's name.

    Raises:
        LeaderboardError: not JSON, another schema version, or fields that do not fit.
    """
    try:
        body = json.loads(text, parse_constant=_refuse)
        if _HALF.search(text):  # half a character, perhaps, which no page can hold
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise LeaderboardError(f"{name} is not a record: not JSON ({error}).") from error
    if not isinstance(body, dict) or "schema_version" not in body:
        raise LeaderboardError(f"{name} is not a record: it has no schema_version.")
    if (version := body["schema_version"]) != SCHEMA_VERSION:
        raise LeaderboardError(
            f"{name} has record schema {version!r}; this leaderboard reads {SCHEMA_VERSION}. "
            "Run the benchmark again, or use the matching release of privbench."
        )
    ours = {
        "stem": stem,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "grade": "claimed",
        "checked": "",
    }
    try:
        kind = Audit if body.get("task") == MEMBERSHIP else Entry
        return kind.model_validate(body | ours)
    except ValidationError as error:
        raise LeaderboardError(f"{name} is not a record: {'; '.join(_problems(error))}.") from None


def read(path: Path) -> Filing:
    """One record file; one that ends in `.gz` is unpacked.

    Raises:
        LeaderboardError: unreadable, larger than `LARGEST`, or no record.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise LeaderboardError(f"The record {path} unpacks to more than {LARGEST:,} bytes.")
        text = data.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LeaderboardError(f"Cannot read the record {path}: {error}") from error
    return parse_any(text, str(path), stem_of(path))


def stem_of(path: Path) -> str:
    """A record's name from its file's."""
    return path.name.removesuffix(".gz").removesuffix(".json")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        yield f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
