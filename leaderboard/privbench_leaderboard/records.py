"""Records as the leaderboard reads them: JSON in, frozen objects out.

The schema is `privbench.record`; this package imports nothing from there, so that a board can
be recomputed without the benchmark. Only the fields that a table needs are named here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from privbench_leaderboard.errors import LeaderboardError

SCHEMA_VERSION = 1
"""The record schema that this package reads."""

LARGEST = 64 * 2**20
"""Bytes that a packed record may unpack to."""

ThreatModel = Literal["none", "black-box", "adaptive"]
Control = Literal["positive", "negative", "diagnostic"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Number(_Model):
    """One estimate.

    Attributes:
        value: point estimate; None where undefined.
        low: lower end of the 95 % interval.
        high: upper end.
        n: rows it rests on.
        chance: value under guessing.
        protects: whether higher or lower is better for the people in the images.
    """

    name: str
    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n: NonNegativeInt
    chance: FiniteFloat | None = None
    protects: Literal["higher", "lower"]


class Plugin(_Model):
    """Which plugin ran, and how."""

    id: str
    version: int
    distribution: str
    config: dict[str, Any]
    code: str
    weights: dict[str, str]
    control: Control | None = None


class Protocol(_Model):
    """The preset that was run. All its numbers are kept, to see that they agree."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    version: int
    resamples: int


class Data(_Model):
    """The data set."""

    id: str
    digest: str


class Part(_Model):
    """How many people and images played a part, and in how many images no face was found."""

    identities: int
    images: int
    undetected: NonNegativeInt | None = None


class Release(_Model):
    """How the release was drawn."""

    draws: PositiveInt = 1
    fixed_seed: bool = False


class Hits(_Model):
    """Rank-1 of each probe on the primary trial, and whose it is."""

    subject: tuple[int, ...]
    rank1: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.subject) != len(self.rank1):
            raise ValueError("hits need one subject each")
        return self


class Summary(_Model):
    """A stage's timing after warm-up."""

    median_ms_per_image: FiniteFloat | None = None


class Stage(_Model):
    """One timed stage."""

    stage: str
    peak_bytes: NonNegativeInt
    device: dict[str, str]
    summary: Summary


class Entry(_Model):
    """One anonymizer under one attack with one seed: one record file."""

    anonymizer: Plugin
    attack: Plugin
    threat_model: ThreatModel
    dataset: Data
    protocol: Protocol
    primary_trial: str
    parts: dict[str, Part]
    seed: int
    dtype: str
    estimates: dict[str, dict[str, list[Number]]]
    utility: dict[str, list[Number]]
    timing: list[Stage]
    release: Release = Release()
    hits: Hits | None = None

    def number(self, trial: str, metric: str, name: str) -> Number | None:
        """An estimate from identification evidence, or None where the record has none."""
        return _named(self.estimates.get(trial, {}).get(metric, []), name)

    def anonymize_stage(self) -> Stage | None:
        """Timing of anonymizing the probes, or None where it was not timed."""
        name = f"{self.anonymizer.id}: probes"
        return next((s for s in self.timing if s.stage == name), None)


def load(folder: Path | str) -> tuple[Entry, ...]:
    """Every `*.json` and `*.json.gz` below a folder, as entries in the order of their paths.

    Raises:
        LeaderboardError: the folder is missing or holds no record, or a file is unreadable, of
            another schema version, or no record. Nothing is skipped.
    """
    root = Path(folder)
    if not root.is_dir():
        raise LeaderboardError(f"There is no folder {root}.")
    paths = sorted([*root.rglob("*.json"), *root.rglob("*.json.gz")])
    entries = tuple(_read(path) for path in paths)
    if not entries:
        raise LeaderboardError(f"{root} holds no records (*.json, *.json.gz).")
    return entries


def parse(text: str, name: str = "record") -> Entry:
    """One record from its JSON text.

    Args:
        text: the file's content.
        name: what an error message calls it.

    Raises:
        LeaderboardError: not JSON, another schema version, or fields that do not fit.
    """
    try:
        body = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise LeaderboardError(f"{name} is not a record: not JSON ({error}).") from error
    if not isinstance(body, dict) or "schema_version" not in body:
        raise LeaderboardError(f"{name} is not a record: it has no schema_version.")
    if (version := body["schema_version"]) != SCHEMA_VERSION:
        raise LeaderboardError(
            f"{name} has record schema {version!r}; this leaderboard reads {SCHEMA_VERSION}. "
            "Run the benchmark again, or use the matching release of privbench."
        )
    try:
        return Entry.model_validate(body)
    except ValidationError as error:
        raise LeaderboardError(f"{name} is not a record: {'; '.join(_problems(error))}.") from None


def _read(path: Path) -> Entry:
    try:
        text = _unpacked(path) if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LeaderboardError(f"Cannot read the record {path}: {error}") from error
    return parse(text, str(path))


def _unpacked(path: Path) -> str:
    with gzip.open(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise LeaderboardError(f"The record {path} unpacks to more than {LARGEST:,} bytes.")
    return data.decode()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        yield f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _named(numbers: list[Number], name: str) -> Number | None:
    return next((n for n in numbers if n.name == name), None)
