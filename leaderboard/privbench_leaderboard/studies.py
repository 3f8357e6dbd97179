"""The result of a study (`study.json`) as the leaderboard reads it.

Written by `privbench.study`; as with records, nothing is imported from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    field_validator,
    model_validator,
)

from privbench_leaderboard.errors import LeaderboardError

SCHEMA_VERSION = 1
"""The schema of `study.json` that this package reads."""

Verdict = Literal["violates", "within", "undecided"]
Reversal = Literal["reversible", "not shown", "worse"]
Group = Literal["condition", "sweep", "baseline", "control", "diagnostic"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Shown(_Model):
    """One estimate with its 95 % interval."""

    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    chance: FiniteFloat | None = None
    protects: Literal["higher", "lower"] = "lower"
    unit: str = "share"


_TITLES = {
    "detection/detected": "faces found",
    "attributes/mean": "attributes kept",
    "downstream/mean": "downstream accuracy",
    "landmarks/landmark-error": "landmark error",
    "ssim/ssim": "SSIM to the source",
}
"""What the commonest utilities are called; the others by metric and output."""


class Trial(Shown):
    """Rank-1 on one trial, and what it says about k-anonymity."""

    verdict: Verdict


class Utility(Shown):
    """One output of a utility metric."""

    metric: str
    name: str

    @property
    def title(self) -> str:
        """What a reader calls it, with its unit."""
        name = self.name if self.metric in self.name else f"{self.metric} {self.name}"
        name = _TITLES.get(f"{self.metric}/{self.name}", name)
        return f"{name}, {self.unit}" if self.unit not in ("share", "index") else name


class Difference(Shown):
    """Rank-1 minus that of a reference, on the same probes."""

    p: FiniteFloat
    p_holm: FiniteFloat


def reversal(gain: Shown) -> Reversal:
    """Whether inverting gave something back, by the interval of its gain in rank-1.

    `reversible` only if even the lower bound is above 0, `worse` only if even the upper bound is
    below it.
    """
    if gain.low is not None and gain.low > 0:
        return "reversible"
    return "worse" if gain.high is not None and gain.high < 0 else "not shown"


class Judged(_Model):
    """What one recogniser, which the attack has never seen, makes of reconstructions.

    Attributes:
        released: rank-1 of the releases as they are.
        inverted: rank-1 of their reconstructions.
        gain: the second minus the first, paired by probe.
        matched: share of reconstructions that match their person at a false match rate of 1 %.
        similarity: of reconstruction and source.
        similarity_others: of reconstruction and other people.
        similarity_released: of release and source.
    """

    name: str
    released: Shown
    inverted: Shown
    gain: Shown
    matched: Shown | None = None
    similarity: Shown
    similarity_others: Shown
    similarity_released: Shown


class Inversion(_Model):
    """What an attack that reconstructs sources gave back.

    Attributes:
        judge: name of the judge that attacker-validation chose.
        psnr: of reconstruction and source; `psnr_released` of release and source. So the others.
    """

    judge: str
    judges: tuple[Judged, ...]
    psnr: Shown | None = None
    ssim: Shown | None = None
    lpips: Shown | None = None
    psnr_released: Shown | None = None
    ssim_released: Shown | None = None
    lpips_released: Shown | None = None

    @model_validator(mode="after")
    def _chosen_is_there(self) -> Self:
        if self.judge not in {judged.name for judged in self.judges}:
            raise ValueError(f"the chosen judge {self.judge!r} has no numbers")
        return self

    @property
    def chosen(self) -> Judged:
        """The numbers of the chosen judge."""
        return next(judged for judged in self.judges if judged.name == self.judge)

    @property
    def verdict(self) -> Reversal:
        """By the chosen judge."""
        return reversal(self.chosen.gain)


class Attacked(_Model):
    """A variant under one attack.

    Attributes:
        worst: verdict over all trials.
        dir: detection and identification rate at a false positive rate of 10 %.
        det: (false match rate, false non-match rate) on the primary trial.
    """

    attack: str
    control: str | None
    config: dict[str, Any]
    trials: dict[str, Trial]
    worst: Verdict
    auc: Shown | None
    dir: Shown | None = None
    d_sys: Shown | None = None
    threat_model: str = ""
    queries: int = 0
    det: tuple[tuple[FiniteFloat, FiniteFloat], ...] = ()
    inversion: Inversion | None = None
    utility: tuple[Utility, ...]
    ms_per_image: FiniteFloat | None
    device: dict[str, str]
    differences: dict[str, Difference]

    def useful(self, name: str) -> Utility | None:
        """A utility by `metric/output`, or by `metric` for its first output."""
        metric, _, output = name.partition("/")
        return next(
            (u for u in self.utility if u.metric == metric and output in ("", u.name)), None
        )


class Variant(_Model):
    """A row of the study.

    Attributes:
        worst_case: rank-1 of the strongest attack that is no control, primary trial.
    """

    label: str
    group: Group
    anonymizer: str
    error: str
    control: str | None
    attacks: tuple[Attacked, ...]
    worst_case: Shown | None = None

    def hardest(self, trial: str) -> Attacked | None:
        """The result of the attack, controls aside, with the highest rank-1 on a trial."""
        tried = [a for a in self.attacks if a.control is None and trial in a.trials]
        return max(tried, key=lambda a: a.trials[trial].value or 0.0, default=None)


class Point(_Model):
    """A variant at one value of a sweep."""

    value: FiniteFloat
    variant: str


class Sweep(_Model):
    """One setting of one variant, over several values."""

    variant: str
    setting: str
    points: tuple[Point, ...]


class Tried(_Model):
    """An inversion at one value of a setting.

    Attributes:
        value: of the setting, as a rule the query budget; 0: as much as the attacker has.
        queries: images that it asked the anonymizer about.
        judge: name of the judge that attacker-validation chose there.
        rank1: of the reconstructions.
        released: rank-1 of the releases as they are.
        gain: the first minus the second, paired by probe.
    """

    value: NonNegativeInt
    queries: NonNegativeInt
    judge: str
    rank1: Shown
    released: Shown
    gain: Shown

    @property
    def place(self) -> int:
        """Where it stands on the axis."""
        return self.value or self.queries


class Curve(_Model):
    """One inversion of one variant over several values of a setting, lowest first."""

    variant: str
    attack: str
    setting: str
    points: tuple[Tried, ...]

    @field_validator("points")
    @classmethod
    def _ascending(cls, points: tuple[Tried, ...]) -> tuple[Tried, ...]:
        return tuple(sorted(points, key=lambda point: point.place))

    @property
    def title(self) -> str:
        """The attack and what varies."""
        return f"{self.attack}, {self.setting.replace('_', ' ')}"


class Reported(_Model):
    """A number from elsewhere."""

    value: FiniteFloat
    what: str
    source: str
    caveats: tuple[str, ...]


class Definition(_Model):
    """What was asked."""

    title: str
    question: str
    references: tuple[str, ...]
    k: int
    utility: tuple[str, ...]
    frontier: tuple[str, ...]
    notes: tuple[str, ...]
    reported: tuple[Reported, ...]


class Preset(_Model):
    """The protocol."""

    name: str
    version: int
    resamples: int


class Tests(_Model):
    """The family of tests behind the adjusted p-values."""

    count: int
    flips: int


class Results(_Model):
    """What was found."""

    protocol: Preset
    primary_trial: str
    dataset: dict[str, str]
    people: int
    probes: int
    variants: tuple[Variant, ...]
    sweeps: tuple[Sweep, ...]
    curves: tuple[Curve, ...] = ()
    tests: Tests


class Study(_Model):
    """The whole of `study.json`."""

    name: str
    quick: bool
    absent_metrics: tuple[str, ...]
    definition: Definition
    results: Results

    @property
    def ladder(self) -> tuple[str, ...]:
        """The attacks, weakest first by their mean rank-1, controls last; empty if only one.

        The mean is over variants that met all attacks, if there are any.
        """
        trial = self.results.primary_trial
        rows = [[a for a in v.attacks if trial in a.trials] for v in self.results.variants]
        most = max((len(row) for row in rows), default=0)
        names = {a.attack for row in rows for a in row}
        whole = [row for row in rows if len(row) == most == len(names)]
        found: dict[tuple[bool, str], list[float]] = {}
        for attacked in (a for row in whole or rows for a in row):
            name = (attacked.control is not None, attacked.attack)
            found.setdefault(name, []).append(attacked.trials[trial].value or 0.0)
        ordered = sorted(found, key=lambda key: (key[0], sum(found[key]) / len(found[key])))
        return tuple(name for _, name in ordered) if len(ordered) > 1 else ()

    def judge(self, reference: str) -> str:
        """The attack under which variants are compared with a reference: the hardest on it."""
        found = (v.hardest(self.results.primary_trial) for v in self.results.variants
                 if v.label == reference)  # fmt: skip
        return next((a.attack for a in found if a is not None), "")

    def difference(self, variant: Variant, reference: str) -> Difference | None:
        """Variant minus reference, both under the attack `judge` names."""
        attack = self.judge(reference)
        return next(
            (a.differences.get(reference) for a in variant.attacks if a.attack == attack), None
        )

    def inversions(self, *groups: Group) -> list[tuple[Variant, Attacked, Inversion]]:
        """Variants of some groups with each attack, controls aside, that inverted them."""
        return [
            (v, a, a.inversion)
            for v in self.results.variants
            if v.group in groups
            for a in v.attacks
            if a.inversion is not None and a.control is None
        ]

    def rows(self, *groups: Group) -> list[tuple[Variant, Attacked, Trial]]:
        """Finished variants of some groups, with their hardest attack on the primary trial."""
        trial = self.results.primary_trial
        found = [(v, v.hardest(trial)) for v in self.results.variants if v.group in groups]
        return [(v, a, a.trials[trial]) for v, a in found if a is not None]


def load_study(path: Path | str) -> Study:
    """Read `study.json`.

    Raises:
        LeaderboardError: unreadable, of another schema version, or not a study's result.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
        version = body["schema_version"]
    except OSError as error:
        raise LeaderboardError(f"Cannot read the study {path}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LeaderboardError(f"{path} is not a study's result: {error!r}") from error
    if version != SCHEMA_VERSION:
        raise LeaderboardError(
            f"{path} has study schema {version!r}; this leaderboard reads {SCHEMA_VERSION}."
        )
    try:
        return Study.model_validate(body)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise LeaderboardError(f"{path} is not a study's result: {'; '.join(problems)}") from None
