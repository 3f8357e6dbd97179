"""The result of a study about membership (`study.json`) as the leaderboard reads it.

Written by `privbench.audit_study`; as with records, nothing is imported from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, ValidationError

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.studies import SCHEMA_VERSION, Shown

TASK = "membership"
CHANCE = 0.5
"""AUC of guessing."""

Group = Literal["paper", "control", "peer", "epochs", "guidance"]
Seen = Literal["trained", "claimed", "never"]
"""Whether a target has seen the suspects: here, by its owner's word, or not at all."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Auc(Shown):
    """Mean over retrained targets, with an interval over people and, with two or more, targets."""

    targets: NonNegativeInt


class ExactRate(_Model):
    """TPR at the largest FPR up to `rate`, with an exact interval; `refused` says why not."""

    rate: FiniteFloat
    fpr: FiniteFloat | None = None
    tpr: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    refused: str = ""

    @property
    def shown(self) -> Shown:
        """As an estimate."""
        return Shown(value=self.tpr, low=self.low, high=self.high)


class Result(_Model):
    """One attack on one row.

    Attributes:
        n: images of both query sets together.
        seen: whether the target has seen the suspects; if never, nobody here is a member.
        numbers: of the first target.
        exact: of the first target.
        answers: images that the attacker had the target make.
        predictions: of noise that it asked for.
        records: file names, one per target.
    """

    auc: Auc | None
    n: NonNegativeInt | None
    seen: Seen
    epochs: NonNegativeInt
    numbers: dict[str, Shown | None]
    exact: tuple[ExactRate, ...]
    control: str | None
    threat_model: str
    answers: NonNegativeInt
    predictions: NonNegativeInt
    config: dict[str, Any]
    records: tuple[str, ...]


class Row(_Model):
    """One question, under each attack.

    Attributes:
        x: place on the axis of a sweep.
        reported: what the paper printed, by attack.
        error: why results are missing, or "".
    """

    id: str
    group: Group
    what: str
    trial: str
    targets: tuple[str, ...]
    settings: dict[str, Any]
    x: FiniteFloat | None
    reported: dict[str, str]
    error: str
    results: dict[str, Result]

    def auc(self, attack: str) -> Auc | None:
        """The AUC under an attack; None where there is none."""
        found = self.results.get(attack)
        return found.auc if found and found.auc and found.auc.value is not None else None

    @property
    def trained(self) -> bool:
        """Whether the targets have seen the suspects, or their owner says so."""
        return any(result.seen != "never" for result in self.results.values())


class Power(_Model):
    """Share of draws in which a set is detected, by people on each side.

    Attributes:
        disjoint: how many pairs of sets that share nobody there are.
        left_out: why a size has no number.
    """

    contamination: FiniteFloat
    points: dict[int, FiniteFloat]
    disjoint: dict[int, NonNegativeInt]
    left_out: dict[int, str]


class SetEntry(_Model):
    """One attack's test of the whole suspect set on one row; `p` by target."""

    row: str
    what: str
    attack: str
    threat_model: str
    seen: Seen
    epochs: NonNegativeInt
    learns: bool
    p: tuple[FiniteFloat, ...]
    people: NonNegativeInt
    unpublished: NonNegativeInt
    power: tuple[Power, ...]

    @property
    def trained(self) -> bool:
        """Whether the targets have seen the suspects, or their owner says so."""
        return self.seen != "never"

    def curve(self, contamination: float) -> Power | None:
        """Power at a contamination."""
        return next((c for c in self.power if c.contamination == contamination), None)


class Rejections(_Model):
    """How often tests rejected where nobody is a member; `nominal_within`: it holds the level."""

    rejected: NonNegativeInt
    trials: NonNegativeInt
    share: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    nominal_within: bool

    @property
    def shown(self) -> Shown:
        """As an estimate."""
        return Shown(value=self.share, low=self.low, high=self.high)


class NullEntry(Rejections):
    """One attack's tests where nobody is a member, no two of which share a person in a fold.

    Attributes:
        kind: people whom no target was trained on, or suspects whom this target never saw.
        folds: targets over which tests are added up.
        size: people on each side.
    """

    row: str
    what: str
    attack: str
    kind: Literal["non-members", "strangers"]
    folds: NonNegativeInt
    size: NonNegativeInt


class Part(_Model):
    """Who plays a part."""

    identities: NonNegativeInt
    images: NonNegativeInt


class Protocol(_Model):
    """Preset, and which population plays which part."""

    name: str
    version: int
    target: str
    auxiliary: str
    wild: str
    resamples: NonNegativeInt


class Device(_Model):
    """Median rate of a stage on a device."""

    device: str
    stage: str
    images_per_second: FiniteFloat


class Results(_Model):
    """All numbers of the study."""

    protocol: Protocol
    dataset: dict[str, str]
    parts: dict[str, Part]
    primary_trial: str
    rows: tuple[Row, ...]
    sets: tuple[SetEntry, ...]
    alpha: FiniteFloat
    null: tuple[NullEntry, ...]
    devices: tuple[Device, ...]


class Trial(_Model):
    """Two sets of photographs; `mark`: a watermark on the suspects, or on both."""

    name: str
    suspects: str
    others: str
    mark: str = ""
    mark_others: bool = False


class Chosen(_Model):
    """A plugin with settings."""

    id: str
    settings: dict[str, Any] = {}


class Asked(_Model):
    """A row of the definition, which may have no result."""

    id: str
    what: str
    attacks: tuple[Chosen, ...] = ()


class Definition(_Model):
    """The part of the study file that the page shows."""

    title: str
    question: str
    notes: tuple[str, ...]
    dataset: Chosen
    seed: NonNegativeInt
    settings: dict[str, Any]
    attackers: dict[str, Any]
    attacks: tuple[Chosen, ...]
    trials: tuple[Trial, ...]
    rows: tuple[Asked, ...]


class MembershipStudy(_Model):
    """`study.json` of a study about membership."""

    name: str
    quick: bool
    definition: Definition
    results: Results

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks of the paper's table; the first one makes the headline."""
        return tuple(dict.fromkeys(attack.id for attack in self.definition.attacks))

    def place(self, attack: str) -> int:
        """Where an attack stands in tables: as in the longest list of the study file."""
        lists = sorted((row.attacks for row in self.definition.rows), key=len, reverse=True)
        names = [found.id for chosen in (*lists, self.definition.attacks) for found in chosen]
        return names.index(attack) if attack in names else len(names)

    def ordered(self, row: Row) -> list[tuple[str, Result]]:
        """A row's results in the study's order of attacks."""
        return sorted(row.results.items(), key=lambda found: self.place(found[0]))

    def trial(self, row: Row) -> Trial | None:
        """What a row tells apart."""
        return next((t for t in self.definition.trials if t.name == row.trial), None)

    def row(self, name: str) -> Row | None:
        """A row by id."""
        return next((r for r in self.results.rows if r.id == name), None)

    def control(self, row: str, attack: str) -> bool:
        """Whether an attack on a row is a control."""
        found = self.row(row)
        return bool(found and attack in found.results and found.results[attack].control)

    def of(self, *groups: Group) -> Iterator[Row]:
        """Rows of some groups, in the study's order."""
        return (row for row in self.results.rows if row.group in groups)

    def table(self) -> list[Row]:
        """The paper's rows in its order, each control right below the row that its id extends."""
        paper = list(self.of("paper", "guidance"))
        below: dict[str, list[Row]] = {}
        for control in self.of("control"):
            if control.trial != self.results.primary_trial:
                below.setdefault(parent(control, paper), []).append(control)
        ordered = [row for head in paper for row in (head, *below.get(head.id, ()))]
        return [*ordered, *below.get("", ())]

    def alone(self) -> list[Row]:
        """Rows about membership and nothing else, beside the paper's own."""
        rows = self.of("epochs", "peer", "control")
        return [row for row in rows if row.trial == self.results.primary_trial]

    def guidance(self, attack: str) -> dict[str, list[tuple[float, Auc]]]:
        """AUC by guidance, ascending; by whom members are told from, in the study's order."""
        by_trial: dict[str, list[Row]] = {}
        for row in self.of("guidance"):
            trial = self.trial(row)
            by_trial.setdefault(trial.others if trial else row.trial, []).append(row)
        found = {others: _points(rows, attack) for others, rows in by_trial.items()}
        return {others: points for others, points in found.items() if len(points) > 1}

    def reported_guidance(self, attack: str) -> list[tuple[float, float]]:
        """What the paper printed by guidance, ascending."""
        found = [(row.x, figure(row.reported.get(attack, ""))) for row in self.of("guidance")]
        return sorted((x, value) for x, value in found if x is not None and value is not None)

    def epochs(self) -> dict[str, list[tuple[float, Auc]]]:
        """AUC of membership alone by epochs, of the attacks that met every number of epochs."""
        rows = [row for row in self.of("epochs", "peer") if row.x is not None and row.results]
        attacks = sorted({attack for row in rows for attack in row.results}, key=self.place)
        found = {attack: _points(rows, attack) for attack in attacks}
        return {a: points for a, points in found.items() if len(points) == len(rows) > 1}

    def tests(self) -> list[SetEntry]:
        """Set tests; those of a record that several rows share are told once, of the last row."""
        found = {}
        for entry in self.results.sets:
            row = self.row(entry.row)
            if row is not None and entry.attack in row.results:
                found[row.results[entry.attack].records] = entry
        rows = [row.id for row in self.results.rows]
        return sorted(found.values(), key=lambda e: (rows.index(e.row), self.place(e.attack)))

    @property
    def membership(self) -> Row | None:
        """The paper's row whose two sets differ in nothing but membership."""
        rows = self.of("paper")
        return next((row for row in rows if row.trial == self.results.primary_trial), None)

    @property
    def nobody(self) -> Row | None:
        """The paper's row without any member: its target never saw the suspects."""
        return next((row for row in self.of("paper") if row.results and not row.trained), None)

    @property
    def headline(self) -> Row | None:
        """The paper's plain row on the trial of `nobody`, where the suspects are members."""
        there = self.nobody.trial if self.nobody else ""
        rows = (row for row in self.of("paper") if row.trial == there and not row.settings)
        return next((row for row in rows if row.trained), None)


def _points(rows: Iterable[Row], attack: str) -> list[tuple[float, Auc]]:
    """AUC over the rows' places, ascending."""
    found = [(row.x, row.auc(attack)) for row in rows]
    shown = [(x, auc) for x, auc in found if x is not None and auc is not None]
    return sorted(shown, key=lambda point: point[0])


def parent(control: Row, rows: list[Row]) -> str:
    """Id of the row that a control's id extends; "" for none."""
    found = [r.id for r in rows if control.id.startswith(r.id)]
    return max(found, key=len, default="")


def figure(reported: str) -> float | None:
    """The value in what the paper printed; None where there is none.

    >>> figure(".86 ± .01")
    0.86
    """
    try:
        return float(reported.partition("±")[0])
    except ValueError:
        return None


def load_membership(path: Path | str) -> MembershipStudy:
    """Read `study.json` of a study about membership.

    Raises:
        LeaderboardError: unreadable, of another schema version or task, or not a study's result.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
        version, task = body["schema_version"], body.get("task")
    except OSError as error:
        raise LeaderboardError(f"Cannot read the study {path}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LeaderboardError(f"{path} is not a study's result: {error!r}") from error
    if version != SCHEMA_VERSION:
        raise LeaderboardError(
            f"{path} has study schema {version!r}; this leaderboard reads {SCHEMA_VERSION}."
        )
    if task != TASK:
        raise LeaderboardError(f"{path} is a study about {task!r}; expected {TASK!r}.")
    try:
        return MembershipStudy.model_validate(body)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise LeaderboardError(f"{path} is not a study's result: {'; '.join(problems)}") from None
