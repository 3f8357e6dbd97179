"""From entries to frozen tables: grouping, worst case over attacks, ranks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.records import (
    GRADES,
    Control,
    Data,
    Entry,
    Grade,
    Hits,
    Number,
    Stage,
    ThreatModel,
)
from privbench_leaderboard.subjects import canonical, labels_of, names_of, ref, subject_of

RANKED_BY = ("identification", "rank-1")
"""Metric and output whose worst case over attacks ranks the rows; lower protects better."""

SMALL_SET = ("k-anonymity", "set<10")
OPEN_SET = ("open-set", "dir@fpir=0.1")
LINKABILITY = ("linkability", "d-sys")

_POWER: Mapping[ThreatModel, int] = {"none": 0, "black-box": 1, "adaptive": 2}

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Row:
    """One anonymizer under one threat model.

    All numbers come from one record: that of the attack, and of the seed, which did worst.

    Attributes:
        anonymizer: id, followed by what distinguishes it from other rows of the same id.
        control: `positive` or `negative` for a control, `diagnostic`; none of them is ranked.
        threat_model: what the attacker may know.
        rank: best and worst rank that the data allow, None for a control or a missing value.
        ties: letters of its tie groups; rows that share none differ significantly. Empty where
            the rows cannot be compared probe by probe.
        rank1: rank-1 on the primary trial.
        same_photo: rank-1 with the probe's own source photo in the gallery.
        auc: ROC AUC on the primary trial.
        small_set: share of probes whose anonymity set is smaller than 10.
        open_set: detection and identification rate at a false positive rate of 10 %.
        linkability: D_sys.
        undetected: share of probes in whose source no face was found, None where nobody looked.
        people: enrolled identities S.
        attack: the attack that did it.
        attacks: how many attacks were tried.
        seeds: how many seeds that attack was run with.
        utility: `metric/output` -> number; `metric` alone is its first output.
        stage: timing of anonymizing the probes.
        dtype: it computed with.
        probes: N.
        hits: rank-1 of each probe.
        worst: the record of that attack and seed.
        tried: all records that the worst case was taken over.
        grade: the worst of theirs.
    """

    anonymizer: str
    control: Control | None
    threat_model: ThreatModel
    rank: tuple[int, int] | None
    rank1: Number | None
    same_photo: Number | None
    auc: Number | None
    small_set: Number | None
    open_set: Number | None
    linkability: Number | None
    undetected: float | None
    people: int | None
    attack: str
    attacks: int
    seeds: int
    utility: Mapping[str, Number]
    stage: Stage | None
    dtype: str
    probes: int | None
    hits: Hits | None
    worst: Entry
    tried: tuple[Entry, ...]
    grade: Grade
    ties: tuple[str, ...] = ()


class Ranked(Protocol):
    """The place of one row among its rivals."""

    @property
    def low(self) -> int:
        """Best rank that the data allow, 1 for the best protection."""
        ...

    @property
    def high(self) -> int:
        """Worst rank."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """Letters of its tie groups."""
        ...


Ranker = Callable[[Sequence[Sequence[float]], Sequence[int]], Sequence[Ranked]]
"""Rank-1 of K rows on the same N probes, row by row, and the N identities, to K places."""


@dataclass(frozen=True, slots=True)
class SummaryTable:
    """All rows of one protocol version on one data set.

    Attributes:
        protocol: preset name.
        version: of the preset.
        data: id of the data set.
        digest: SHA-256 of the data set.
        resamples: of the bootstrap.
        trial: name of the primary trial.
        rows: strongest threat model first; there, ranked rows by rank-1, then controls.
        warnings: what a reader must know before believing the table.
        control_attacks: rank-1 of attacks that are controls, which no row counts.
        entries: all records of the table, those under control attacks too.
        attacks: reference of an attack, see `ref` -> its label.
        datasets: what they say of the data set; one, unless they disagree.
        ranked_by: name of the column that ranks.
    """

    protocol: str
    version: int
    data: str
    digest: str
    resamples: int
    trial: str
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    control_attacks: tuple[tuple[str, Number | None], ...]
    entries: tuple[Entry, ...]
    attacks: Mapping[str, str]
    datasets: tuple[Data, ...]
    ranked_by: str = RANKED_BY[1]


def build(entries: Iterable[Entry], ranker: Ranker | None = None) -> tuple[SummaryTable, ...]:
    """Tables from entries, in whatever order they come.

    With a ranker, rows that hold hits on the same probes are ranked by paired comparisons;
    otherwise by whether their intervals overlap, which says less.

    One table per protocol name, protocol version and data set digest. Within a table a row
    shows its worst case: of all attacks that its threat model allows (an attacker who may do
    more may also do less) and of all seeds, the record with the highest rank-1.

    Raises:
        LeaderboardError: records of one protocol version disagree on its numbers, or on which
            trial is the primary one.
    """
    groups = group(entries, lambda e: (e.protocol.name, e.protocol.version, e.dataset.digest))
    return tuple(_table(groups[key], ranker) for key in sorted(groups))


def _table(entries: Sequence[Entry], ranker: Ranker | None) -> SummaryTable:
    protocol = entries[0].protocol
    name = f"{protocol.name} v{protocol.version}"
    if len({canonical(e.protocol.model_dump()) for e in entries}) > 1:
        raise LeaderboardError(
            f"Records of protocol {name} disagree on its numbers: one of them was made with a "
            "changed preset that kept its version."
        )
    if len({e.primary_trial for e in entries}) > 1:
        raise LeaderboardError(f"Records of protocol {name} disagree on the primary trial.")
    allowed = [e for e in entries if e.attack.control is None]
    released = names_of(allowed)
    attacks = labels_of(e.attack for e in allowed)
    rows = []
    for subject in group(allowed, subject_of).values():
        for model in {e.threat_model for e in subject}:
            tried = [e for e in subject if _POWER[e.threat_model] <= _POWER[model]]
            rows.append(_row(model, tried, released, attacks))
    ranked = _ranked(rows, ranker)
    return SummaryTable(
        protocol=protocol.name,
        version=protocol.version,
        data=commonest(e.dataset.id for e in entries),
        digest=entries[0].dataset.digest,
        resamples=protocol.resamples,
        trial=entries[0].primary_trial,
        rows=ranked,
        warnings=tuple(_warnings(ranked)),
        control_attacks=tuple(
            (f"{e.attack.id} on {e.anonymizer.id}", _rank1(e))
            for e in sorted(entries, key=lambda e: (e.attack.id, e.anonymizer.id, _harm(e)))
            if e.attack.control is not None
        ),
        entries=tuple(sorted(entries, key=lambda e: (e.stem, e.sha256))),
        attacks=labels_of(e.attack for e in entries),
        datasets=tuple(
            sorted({e.dataset for e in entries}, key=lambda d: canonical(d.model_dump()))
        ),
    )


def _row(
    model: ThreatModel,
    tried: Sequence[Entry],
    labels: Mapping[str, str],
    attacks: Mapping[str, str],
) -> Row:
    worst = max(tried, key=_harm)
    trial = worst.primary_trial
    rank1 = _rank1(worst)
    gallery = worst.parts.get("gallery")
    by = ref(worst.attack)
    return Row(
        anonymizer=labels[subject_of(worst)],
        control=worst.anonymizer.control,
        threat_model=model,
        rank=None,
        rank1=rank1,
        same_photo=worst.number(f"{trial}+source", *RANKED_BY),
        auc=worst.number(trial, "verification", "auc"),
        small_set=worst.number(trial, *SMALL_SET),
        open_set=worst.number(trial, *OPEN_SET),
        linkability=worst.number(trial, *LINKABILITY),
        undetected=_missed(worst),
        people=gallery.identities if gallery else None,
        attack=attacks[by],
        attacks=len({ref(e.attack) for e in tried}),
        seeds=len({e.seed for e in tried if ref(e.attack) == by}),
        utility=_utility(worst),
        stage=worst.anonymize_stage(),
        dtype=worst.dtype,
        probes=rank1.n if rank1 else None,
        hits=worst.hits,
        worst=worst,
        tried=tuple(sorted(tried, key=_harm, reverse=True)),
        grade=min((e.grade for e in tried), key=GRADES.index),
    )


def _missed(entry: Entry) -> float | None:
    part = entry.parts.get("probes")
    return None if part is None or part.undetected is None else part.undetected / part.images


def _utility(entry: Entry) -> dict[str, Number]:
    named = {f"{m}/{n.name}": n for m, numbers in entry.utility.items() for n in numbers}
    return named | {m: numbers[0] for m, numbers in entry.utility.items() if numbers}


def _ranked(rows: Iterable[Row], ranker: Ranker | None) -> tuple[Row, ...]:
    """Rows in the order of the table, with the range of ranks that the data allow."""
    ordered = sorted(rows, key=_place)
    placed: dict[int, Row] = {}
    for rivals in group((r for r in ordered if _contends(r)), lambda r: r.threat_model).values():
        placed |= zip(map(id, rivals), _places(rivals, ranker), strict=True)
    return tuple(placed.get(id(row), row) for row in ordered)


def _contends(row: Row) -> bool:
    return row.control is None and _value(row.rank1) is not None


def _places(rivals: Sequence[Row], ranker: Ranker | None) -> list[Row]:
    """Rivals with their ranks: from paired comparisons where that is possible."""
    hits = [row.hits for row in rivals if row.hits is not None]
    paired = len(hits) == len(rivals) and len({h.subject for h in hits}) == 1
    if ranker is None or not paired:
        return [_by_overlap(row, rivals) for row in rivals]
    places = ranker([h.rank1 for h in hits], hits[0].subject)
    return [
        replace(row, rank=(place.low, place.high), ties=tuple(place.groups))
        for row, place in zip(rivals, places, strict=True)
    ]


def _by_overlap(row: Row, rivals: Sequence[Row]) -> Row:
    low, high = _interval(row.rank1)
    better = sum(_interval(r.rank1)[1] < low for r in rivals)
    worse = sum(_interval(r.rank1)[0] > high for r in rivals)
    return replace(row, rank=(1 + better, len(rivals) - worse))


def _place(row: Row) -> tuple[Any, ...]:
    value = _value(row.rank1)
    return (
        -_POWER[row.threat_model],
        ("", "positive", "negative", "diagnostic").index(row.control or ""),
        value is None,
        value or 0.0,
        row.anonymizer,
    )


def _harm(entry: Entry) -> tuple[Any, ...]:
    """Highest rank-1 first; the rest only makes the choice independent of the files' order."""
    rank1 = _rank1(entry)
    value = _value(rank1)
    high = rank1.high if rank1 else None
    return (
        value is not None,
        value or 0.0,
        high is not None,
        high or 0.0,
        entry.attack.id,
        -entry.seed,
        entry.sha256,
    )


def _rank1(entry: Entry) -> Number | None:
    return entry.number(entry.primary_trial, *RANKED_BY)


def _value(number: Number | None) -> float | None:
    return number.value if number else None


def _interval(number: Number | None) -> tuple[float, float]:
    """Bounds for ranking; a missing bound excludes nothing."""
    low = number.low if number and number.low is not None else float("-inf")
    high = number.high if number and number.high is not None else float("inf")
    return low, high


def _warnings(rows: Sequence[Row]) -> Iterable[str]:
    positive = [r for r in rows if r.control == "positive"]
    negative = [r for r in rows if r.control == "negative"]
    for name, found in (("positive", positive), ("negative", negative)):
        if not found:
            yield (
                f"There is no {name} control in this table: "
                "nothing shows that the attacks work as they should."
            )
    for row in positive:
        chance = _chance(row)
        if chance is not None and _interval(row.rank1)[0] <= chance:
            yield (
                f"The positive control {row.anonymizer} ({row.threat_model}) is not above chance: "
                "the attack is too weak for its other numbers to mean anything."
            )
    for row in negative:
        chance = _chance(row)
        low, high = _interval(row.rank1)
        if chance is not None and not low <= chance <= high:
            yield (
                f"The interval of the negative control {row.anonymizer} ({row.threat_model}) does "
                "not contain chance: something other than the image gives people away."
            )


def _chance(row: Row) -> float | None:
    return row.rank1.chance if row.rank1 else None


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by their key, in the order they come."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def commonest(names: Iterable[str]) -> str:
    """What most records say; of several, the first by the alphabet."""
    counts = Counter(names)
    return min(counts, key=lambda name: (-counts[name], name))
