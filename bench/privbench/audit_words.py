"""What a membership record says, in sentences, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from privbench.audit_record import MembershipRecord, Seen
from privbench.keys import canonical_json
from privbench.ladder import with_interval
from privbench.paired import holm
from privbench.settest import ALPHA
from privbench.types import Estimate

SUSPECTS: Final[Mapping[Seen, str]] = {
    "trained": "members",
    "claimed": "members (as you say)",
    "never": "people whom the target never saw",
}
PAIRS: Final = 2

CAVEAT = (
    "This is what these attacks find. That they find nothing does not show that nothing is to be "
    "found, and that a set is detected does not show which of its images were used."
)


def verdict(record: MembershipRecord) -> Iterator[str]:
    """Sentences on single images, on the whole set, and on what is no membership."""
    number = record.number("auc")
    suspects = SUSPECTS[record.seen]
    if number is not None and number.value is not None:
        yield f"single images: {_single(number, suspects)}"
    if record.sets:
        yield f"the whole set: {_set(record)}"
    others = [n for n in record.estimates if n != record.primary_trial]
    shifted = {n: record.number("auc", n) for n in others}
    if found := {n: e for n, e in shifted.items() if e and e.low is not None and e.low > 0.5}:
        names = ", ".join(f"{n} {with_interval(e)}" for n, e in found.items())
        yield (
            f"against other populations ({names}) the score also measures what the populations "
            "look like: no evidence of membership by itself"
        )


def _single(number: Estimate, suspects: str) -> str:
    told = f"AUC {with_interval(number)} for {suspects} against others of their population"
    if number.low is None or number.high is None:
        return told
    if number.low > 0.5:
        return f"told apart better than by guessing, {told}"
    if number.high < 0.5:
        return f"the attack points the wrong way, {told}"
    return f"not shown to be told apart, {told}"


def _set(record: MembershipRecord) -> str:
    test = record.sets.suspect if record.sets else {}
    n, gap = int(test["n_suspect"]), "[{low:.3g}, {high:.3g}]".format(**test)
    told = (
        f"p = {test['p']:.2g} for {n:,} {SUSPECTS[record.seen]}, whose scores are higher by "
        f"{test['difference']:.3g} {gap} than those of {int(test['n_unpublished']):,} others"
    )
    power = power_at(record)
    less = f"; {power}" if power else ""
    if test["p"] >= ALPHA:
        return f"not detected, {told}{less}"
    false = " (a false alarm)" if record.seen == "never" else ""
    return f"detected{false}, {told}{less}"


def together(records: Sequence[MembershipRecord]) -> Iterator[str]:
    """What several attacks say of one set: each has a chance of its own to be wrong."""
    tested = [r for r in records if r.sets and not r.attack.control]
    for group in _by_target(tested):
        if len(group) > 1:
            adjusted = holm(np.array([r.sets.suspect["p"] for r in group if r.sets]))
            found = [r.attack.id for r, p in zip(group, adjusted, strict=True) if p < ALPHA]
            named = f"still detected by {', '.join(found)}" if found else "no longer detected"
            yield (
                f"{group[0].anonymizer.id}: {len(group)} attacks tested the set; adjusted for that "
                f"(Holm) it is {named}, smallest p = {adjusted.min():.2g}"
            )


def _by_target(records: Sequence[MembershipRecord]) -> Iterator[list[MembershipRecord]]:
    groups: dict[str, list[MembershipRecord]] = {}
    for record in records:
        name = canonical_json([record.anonymizer.config, record.fold, record.target["trained_on"]])
        groups.setdefault(name, []).append(record)
    yield from groups.values()


def power_at(record: MembershipRecord, share: float = 0.8) -> str:
    """The fewest people whose set is detected in `share` of the draws; "" where none are.

    Sizes of which fewer than `PAIRS` disjoint pairs of sets exist do not count: their draws are
    hardly more than one.
    """
    if not record.sets or record.seen == "never":
        return ""
    curve = record.sets.power[0]
    enough = [
        int(n)
        for n, point in curve["points"].items()
        if point["share"] >= share and curve["disjoint"][n] >= PAIRS
    ]
    return f"{min(enough):,} people are enough in {share:.0%} of draws" if enough else ""
