"""The attacks on one release from weak to strong, their maximum, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from privbench.keys import canonical_json
from privbench.ranking import max_over_attacks
from privbench.record import Record
from privbench.types import Estimate

KS = (2, 5, 10, 20)
"""The k of k-anonymity that verdicts are given for."""

Reversal = Literal["reversible", "not shown", "worse"]
"""What reconstructions do for a recogniser: name more people than the releases, or fewer."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """All attacks that were tried on one release.

    Attributes:
        records: one per attack, weakest first, controls last.
        worst: rank-1 of the strongest attack that is no control, primary trial; None without hits.
        people: enrolled.
    """

    records: tuple[Record, ...]
    worst: Estimate | None
    people: int


def ladders(records: Sequence[Record]) -> list[Ladder]:
    """Records grouped by what was released, in the order of its first record."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_release(record), []).append(record)
    return [_ladder(group) for group in groups.values()]


def rank1(record: Record, trial: str | None = None) -> Estimate | None:
    """Rank-1 on one trial, by default the primary one; None where it was not measured."""
    try:
        return record.estimate("identification", "rank-1", trial)
    except KeyError:
        return None


def verdict(low: float | None, high: float | None, people: int, k: int) -> str:
    """Whether rank-1 is compatible with k-anonymity, by its interval.

    `violates` only if even the lower bound exceeds 1 / k; `within` only if even the upper bound
    is below it; else `undecided`. Fewer than k people decide nothing.

    >>> verdict(0.21, 0.4, 100, 5), verdict(0.0, 0.03, 100, 5), verdict(0.1, 0.3, 100, 5)
    ('violates', 'within', 'undecided')
    """
    if people < k or low is None or high is None:
        return "undecided"
    return "violates" if low > 1 / k else "within" if high < 1 / k else "undecided"


def in_words(number: Estimate, people: int) -> str:
    """What a rank-1 with its interval says about k-anonymity for each k.

    >>> in_words(Estimate("rank-1", 0.3, 0.21, 0.4, 200, 100), 100)
    'k-anonymity: violated for k = 5, 10, 20; compatible with k = 2'
    """
    found = {k: verdict(number.low, number.high, people, k) for k in KS if k <= people}
    words = {
        "violated for": "violates",
        "compatible with": "within",
        "undecided for": "undecided",
    }
    parts = [
        f"{text} k = {', '.join(str(k) for k, v in found.items() if v == kind)}"
        for text, kind in words.items()
        if kind in found.values()
    ]
    return f"k-anonymity: {'; '.join(parts)}"


def released_as(record: Record, also: Sequence[str] = ()) -> str:
    """The anonymizer, and what is unusual about its release, after what else there is to say."""
    draws = record.release.get("draws", 1)
    unusual = [*also, *([f"{draws} draws"] if draws > 1 else [])]
    unusual += ["one seed for all images"] if record.release.get("fixed_seed") else []
    return record.anonymizer.id + (f" ({', '.join(unusual)})" if unusual else "")


def with_interval(number: Estimate | None, sign: str = "") -> str:
    """`value [low, high]`, `value` without an interval, "" for what is missing."""
    if number is None or number.value is None:
        return ""
    text = f"{number.value:{sign}.3f}"
    if number.low is None or number.high is None:
        return text
    return f"{text} [{number.low:{sign}.3f}, {number.high:{sign}.3f}]"


def judged(record: Record) -> dict[str, dict[str, Estimate]]:
    """What each judge says of an inversion: judge -> output -> number, the chosen judge first.

    Empty where the attack inverts nothing, or the metric `inversion` was not measured.
    """
    found: dict[str, dict[str, Estimate]] = {}
    for number in record.inversion.get("inversion", []):
        judge, _, output = number.name.rpartition("/")
        found.setdefault(judge, {})[output] = number
    chosen = record.attack_report.get("judge")
    return dict(sorted(found.items(), key=lambda entry: entry[0] != chosen))


def reversal(record: Record) -> Reversal | None:
    """Whether reconstructions give people away that the releases do not, by the paired interval.

    It is the judge that attacker-validation chose who decides: the best of several gains would be
    biased upward. None where nothing was measured.
    """
    numbers = judged(record).get(record.attack_report.get("judge", ""))
    return None if numbers is None else reversal_of(numbers["gain"])


def reversal_of(gain: Estimate) -> Reversal:
    """`reversible` only if even the lower bound is above 0, `worse` if even the upper is below.

    >>> reversal_of(Estimate("gain", 0.1, 0.02, 0.2, 200, 100))
    'reversible'
    >>> reversal_of(Estimate("gain", 0.1, -0.02, 0.2, 200, 100))
    'not shown'
    """
    if gain.low is None or gain.high is None:
        return "not shown"
    return "reversible" if gain.low > 0 else "worse" if gain.high < 0 else "not shown"


def reversal_in_words(judge: str, gain: Estimate) -> str:
    """What the gain of the judge that validation chose says.

    >>> reversal_in_words("dlib", Estimate("gain", 0.1, 0.02, 0.2, 200, 100))
    'reversible: dlib identifies reconstructions +.10 more often than releases'
    """
    words = {
        "reversible": "reversible: {0} identifies reconstructions +{1} more often than releases",
        "not shown": "not shown to be reversible: {0} does not identify reconstructions reliably "
        "more often than releases",
        "worse": "not shown to be reversible: {0} identifies reconstructions {1} less often than "
        "releases",
    }
    size = "" if gain.value is None else f"{abs(gain.value):.2f}".removeprefix("0")
    return words[reversal_of(gain)].format(judge, size)


def _release(record: Record) -> str:
    plugin = record.anonymizer
    return canonical_json(
        [plugin.id, plugin.config, plugin.code, record.release, record.dataset, record.protocol,
         record.seed]
    )  # fmt: skip


def _ladder(records: Sequence[Record]) -> Ladder:
    def place(record: Record) -> tuple[bool, float]:
        number = rank1(record)
        return record.attack.control is not None, number.value or 0.0 if number else 0.0

    ordered = tuple(sorted(records, key=place))
    hits = [r.hits for r in ordered if r.attack.control is None and r.hits is not None]
    worst = None
    if hits:
        worst = max_over_attacks(
            np.stack([h.rank1 for h in hits], axis=1),
            np.array(hits[0].subject),
            resamples=ordered[0].protocol["resamples"],
        )
    return Ladder(ordered, worst, ordered[0].parts["gallery"].identities)
