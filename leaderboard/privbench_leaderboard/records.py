"""Records as the leaderboard reads them: JSON in, frozen objects out.

The schema is `privbench.record`; this package imports nothing from there, so that a board can
be recomputed without the benchmark. Only the fields that a table needs are named here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
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
"""Bytes that a record may have, unpacked."""

MOST_PROBES = 100_000
MOST_POINTS = 10_000
MOST_NUMBERS = 1_000
"""Probes, points of a curve, numbers of a metric that a record may hold: no honest one has as
many, and a board has to be made of all of them together."""

Grade = Literal["claimed", "recomputed", "re-run"]
"""What somebody else has checked of a record: nothing; that its numbers follow from the scores
stored with it; that a sample of its images comes out the same again."""

GRADES: tuple[Grade, ...] = ("claimed", "recomputed", "re-run")
"""From worst to best."""

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
    summary: str = ""
    licence: str = ""
    control: Control | None = None


class Protocol(_Model):
    """The preset that was run. All its numbers are kept, to see that they agree."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    version: int
    resamples: int


class Data(_Model):
    """The data set, and what it says of its licence and of the consent of the people in it."""

    id: str
    digest: str
    version: str = ""
    licence: str = ""
    consent: str = ""


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

    subject: tuple[int, ...] = Field(max_length=MOST_PROBES)
    rank1: tuple[FiniteFloat, ...] = Field(max_length=MOST_PROBES)

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.subject) != len(self.rank1):
            raise ValueError("hits need one subject each")
        return self


Points = Annotated[tuple[FiniteFloat, ...], Field(max_length=MOST_POINTS)]


class Curve(_Model):
    """A curve with its pointwise 95 % band.

    Attributes:
        x: ranks, or false match rates.
        value: at each x, in [0, 1].
        low: lower end of the band.
        high: upper end.
    """

    x: Points
    value: Points
    low: Points
    high: Points

    @model_validator(mode="after")
    def _matched(self) -> Self:
        if len({len(self.x), len(self.value), len(self.low), len(self.high)}) > 1:
            raise ValueError("a curve needs as many values and bounds as places")
        return self


class Curves(_Model):
    """The two curves of a trial."""

    cmc: Curve | None = None
    roc: Curve | None = None


class Picture(_Model):
    """A file of what was released, in the folder of galleries beside the records."""

    file: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_-]{0,99}\.(jpg|jpeg|png|webp)$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    alt: str = Field(min_length=1, max_length=2000)


class Summary(_Model):
    """A stage's timing after warm-up."""

    median_ms_per_image: FiniteFloat | None = None
    p95_ms_per_image: FiniteFloat | None = None


class Stage(_Model):
    """One timed stage."""

    stage: str
    peak_bytes: NonNegativeInt
    batch_size: int | None = None
    device: dict[str, str]
    summary: Summary


Numbers = Annotated[list[Number], Field(max_length=MOST_NUMBERS)]


class Entry(_Model):
    """One anonymizer under one attack with one seed: one record file.

    Curves of the primary trial are kept, and no numbers along curves: no other is shown.

    Attributes:
        stem: the file's name without `.json` or `.json.gz`.
        sha256: of the unpacked file.
        grade: what was checked of it.
        checked: how many images were made again, in words; "" where none.

    These four are no part of the file, whatever it says.
    """

    stem: str = ""
    sha256: str = ""
    grade: Grade = "claimed"
    checked: str = ""
    anonymizer: Plugin
    attack: Plugin
    threat_model: ThreatModel
    dataset: Data
    protocol: Protocol
    primary_trial: str
    parts: dict[str, Part]
    seed: int
    dtype: str
    estimates: dict[str, dict[str, Numbers]]
    utility: dict[str, Numbers]
    timing: list[Stage] = Field(max_length=MOST_NUMBERS)
    release: Release = Release()
    hits: Hits | None = None
    created: str = ""
    privbench: str = ""
    oracle_queries: NonNegativeInt = 0
    packages: dict[str, str] = {}
    keys: dict[str, str] = {}
    command: str = ""
    curves: dict[str, Curves] = {}
    gallery: Annotated[Picture | None, BeforeValidator(lambda found: found or None)] = None

    @model_validator(mode="before")
    @classmethod
    def _shown(cls, body: Any) -> Any:
        """What no page shows is most of a record, and most of the time to read it."""
        if not isinstance(body, dict):
            return body
        curves, estimates, trial = (body.get(k) for k in ("curves", "estimates", "primary_trial"))
        kept = {}
        if isinstance(curves, dict):
            kept["curves"] = {t: c for t, c in curves.items() if t == trial}
        if isinstance(estimates, dict):
            kept["estimates"] = {t: _without_curves(m) for t, m in estimates.items()}
        return body | kept

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
    entries = tuple(read(path) for path in paths)
    if not entries:
        raise LeaderboardError(f"{root} holds no records (*.json, *.json.gz).")
    return entries


def parse(text: str, name: str = "record", stem: str = "") -> Entry:
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
        return Entry.model_validate(body | ours)
    except ValidationError as error:
        raise LeaderboardError(f"{name} is not a record: {'; '.join(_problems(error))}.") from None


def read(path: Path) -> Entry:
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
    return parse(text, str(path), path.name.removesuffix(".gz").removesuffix(".json"))


def _without_curves(metrics: Any) -> Any:
    if not isinstance(metrics, dict):
        return metrics
    return {name: numbers for name, numbers in metrics.items() if name not in ("cmc", "det")}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        yield f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _named(numbers: list[Number], name: str) -> Number | None:
    return next((n for n in numbers if n.name == name), None)
