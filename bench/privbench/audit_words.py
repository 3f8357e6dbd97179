"""What a membership record says, in sentences, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from privbench.audit_record import MembershipRecord
from privbench.ladder import with_interval
from privbench.settest import ALPHA
from privbench.types import Estimate

CAVEAT = (
    "This is what these attacks find. That they find nothing does not show that nothing is to be "
    "found, and that a set is detected does not show which of its images were used."
)


def verdict(record: MembershipRecord) -> Iterator[str]:
    """Sentences on single images, on the whole set, and on what is no membership."""
    number = record.number("auc")
    suspects = "members" if record.trained else "people whom the target never saw"
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
    p, n = test["p"], int(test["n_suspect"])
    power = power_at(record)
    less = f"; {power}" if power else ""
    if p < ALPHA:
        what = "the target was trained on it" if record.trained else "a false alarm: it was not"
        return f"detected, p = {p:.2g} with {n:,} people ({what}){less}"
    return f"not detected, p = {p:.2g} with {n:,} people{less}"


def power_at(record: MembershipRecord, share: float = 0.8) -> str:
    """The fewest people whose set is detected in `share` of the draws; "" where none are."""
    if not record.sets or not record.trained:
        return ""
    points = record.sets.power[0]["points"]
    enough = [int(n) for n, point in points.items() if point["share"] >= share]
    return f"{min(enough):,} people are enough in {share:.0%} of draws" if enough else ""


def false_positives(records: Sequence[MembershipRecord]) -> tuple[int, int]:
    """Set tests that rejected, and all, where the target never saw the suspects."""
    tests = [r.sets.suspect["p"] < ALPHA for r in records if r.sets and not r.trained]
    return sum(tests), len(tests)
