"""What a record holds, as the leaderboard reads it.

The schema is `privbench.record`; this package imports nothing from there, so that a board can
be recomputed without the benchmark. Only the fields that a table needs are named here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

MEMBERSHIP = "membership"
"""Task of records about membership, and the metric that they hold."""

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


class Rate(_Model):
    """TPR at the largest FPR up to `rate`, with an exact interval; none where it was refused."""

    rate: FiniteFloat
    value: FiniteFloat | None = Field(default=None, validation_alias="tpr")
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


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


class Filed(_Model):
    """What the record files of either task have in common.

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


class Entry(Filed):
    """One anonymizer under one attack with one seed: one record file.

    Curves of the primary trial are kept, and no numbers along curves: no other is shown.
    """

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


class Audit(Filed):
    """One target under one attack on membership: one record file.

    Attributes:
        seen: whether the target has seen the suspects: trained on them, by its owner's word
            (`claimed`), or `never`.
        fold: which draw of people it was trained on.
        exact: trial -> TPRs at fixed FPRs with exact intervals.
    """

    threat_model: Literal["none", "black-box", "gray-box", "adaptive"]
    dataset: Data
    protocol: Protocol
    primary_trial: str
    fold: int
    seed: int
    seen: Literal["trained", "claimed", "never"]
    estimates: dict[str, dict[str, Numbers]]
    exact: dict[str, Annotated[list[Rate], Field(max_length=MOST_NUMBERS)]]

    def auc(self, trial: str) -> Number | None:
        """The trial's AUC, or None where the record has none."""
        return _named(self.estimates.get(trial, {}).get(MEMBERSHIP, []), "auc")

    def tpr(self, trial: str, fpr: float) -> Rate | None:
        """TPR at a fixed FPR on a trial, likewise."""
        return next((r for r in self.exact.get(trial, []) if r.rate == fpr), None)


Filing = Entry | Audit


def _without_curves(metrics: Any) -> Any:
    if not isinstance(metrics, dict):
        return metrics
    return {name: numbers for name, numbers in metrics.items() if name not in ("cmc", "det")}


def _named(numbers: list[Number], name: str) -> Number | None:
    return next((n for n in numbers if n.name == name), None)
