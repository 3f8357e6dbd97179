"""Is it better than chance? An exact test, whatever the scores depend on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from privbench.types import Floats, Ints

PERMUTATIONS = 9_999
"""Random relabellings beside the true one."""

ALPHA = 0.001
"""Better than chance: a smaller p value. At chance: no smaller one."""


def identified(scores: Floats, mated: Ints) -> float:
    """One-sided p value of the hypothesis that scores know nothing of who is who.

    The statistic is the mean share of other people that score lower than the true one (ties count
    half). Under the hypothesis every assignment of the people to the columns was as likely as the
    true one, however scores depend on one another; so the share of relabellings that do at least
    as well is an exact p value (a Monte Carlo permutation test).

    Args:
        scores: (N, S), probe i against person j.
        mated: (N,) column of the true person.
    """
    count = scores.shape[1]
    lower = (scores[:, :, None] > scores[:, None, :]).sum(2)
    tied = (scores[:, :, None] == scores[:, None, :]).sum(2) - 1
    placed = (lower + tied / 2) / (count - 1)
    rows, relabelled = np.arange(len(scores)), _orders(count)[:, mated]
    return _tail(placed[rows, mated].mean(), placed[rows, relabelled].mean(1))


def separated(scores: Floats, positive: np.ndarray) -> float:
    """The same for two groups of scores: do the positive ones rank higher?

    Args:
        scores: (N,).
        positive: (N,) bool.
    """
    ranks = (scores[:, None] > scores).sum(1) + (scores[:, None] == scores).sum(1) / 2
    shuffled = positive[_orders(len(scores))]
    return _tail(ranks[positive].mean(), shuffled @ ranks / positive.sum())


@lru_cache(maxsize=8)
def _orders(count: int) -> Ints:
    """(PERMUTATIONS, count) random orders."""
    rng = np.random.default_rng(0)
    orders: Ints = rng.permuted(np.tile(np.arange(count), (PERMUTATIONS, 1)), axis=1)
    return orders


def _tail(seen: float, others: Floats) -> float:
    as_good = int((others >= seen - 1e-12).sum())  # sums in another order differ in the last bit
    return (1 + as_good) / (1 + len(others))
