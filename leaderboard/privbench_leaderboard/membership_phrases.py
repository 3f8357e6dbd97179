"""Phrases of a membership study's page, by fixed rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from privbench_leaderboard.membership_study import CHANCE
from privbench_leaderboard.studies import Shown

Order = Literal["lower", "higher", "not apart"]


def against_chance(auc: Shown) -> str:
    """By the whole interval.

    >>> against_chance(Shown(value=0.6, low=0.49, high=0.7))
    'not told from chance'
    """
    if auc.low is not None and auc.low > CHANCE:
        return "above chance"
    if auc.high is not None and auc.high < CHANCE:
        return "below chance"
    return "not told from chance"


def compared(one: Shown, other: Shown) -> Order:
    """Whether the interval of one is wholly below or above that of the other."""
    if None not in (one.high, other.low) and (one.high or 0) < (other.low or 0):
        return "lower"
    if None not in (one.low, other.high) and (one.low or 0) > (other.high or 0):
        return "higher"
    return "not apart"


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def percent(share: float) -> str:
    """`5 %`."""
    return f"{100 * share:g} %"


def capital(said: Sequence[str]) -> str:
    """Phrases as one sentence, without its full stop."""
    return first_up("; ".join(said))


def first_up(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]
