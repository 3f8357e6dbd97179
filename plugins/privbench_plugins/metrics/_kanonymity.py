"""Anonymity sets."""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Output
from privbench_plugins.metrics._common import (
    above_and_tied,
    expected_hits,
    identification,
    weighted_mean,
)

QUARTILES = {"lower-quartile-set": 0.25, "median-set": 0.5, "upper-quartile-set": 0.75}


class AnonymitySets:
    """The candidates that score at or above the true person, that person included.

    Ties belong to the set: the attacker cannot tell them apart.
    """

    def __init__(self, ks: tuple[int, ...]) -> None:
        self.ks = ks

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One share per k, the quartiles of the set's size, then the effective k."""
        return (
            *(Output(f"set<{k}", "lower", 1.0) for k in self._ks(evidence)),
            *(Output(name, "higher", 1.0, "people") for name in (*QUARTILES, "effective-k")),
        )

    def chance(self, evidence: Evidence) -> Floats:
        """Under a rank that is uniform on 1 .. S: (k - 1) / S, the quartiles of 1 .. S, and S."""
        people = identification(evidence).scores.shape[1]
        ranks = np.arange(1.0, people + 1)
        quartiles = weighted_quantiles(ranks, np.ones((1, people)), tuple(QUARTILES.values()))[0]
        return np.array([*((k - 1) / people for k in self._ks(evidence)), *quartiles, people])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, K + 2): 1 where the set is smaller than k, else 0; its size; rank-1 hit."""
        trial = identification(evidence)
        above, tied = above_and_tied(trial)
        size = above + tied + 1
        small = size[:, None] < np.array(self._ks(evidence), dtype=np.int64)
        return np.column_stack([small, size, expected_hits(trial, np.array([1]))])

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means, weighted quantiles, and 1 / rank-1: NaN where nobody is named."""
        small, size, hit = rows[:, :-2], rows[:, -2], rows[:, -1:]
        rank1 = weighted_mean(hit, weights)
        return np.column_stack(
            [
                weighted_mean(small, weights),
                weighted_quantiles(size, weights, tuple(QUARTILES.values())),
                1 / np.where(rank1 > 0, rank1, np.nan),
            ]
        )

    def _ks(self, evidence: Evidence) -> list[int]:
        people = identification(evidence).scores.shape[1]
        return [k for k in self.ks if k <= people]


def weighted_quantiles(values: Floats, weights: Floats, shares: tuple[float, ...]) -> Floats:
    """(R, Q) quantiles of values (N,) repeated as weights (R, N) say; NaN where all are 0.

    Where a share falls between two values it gives their mean, as the usual median does
    (definition 2 of Hyndman and Fan 1996).
    """
    order = np.argsort(values)
    reached = np.cumsum(weights[:, order], axis=1)
    total = reached[:, -1:]
    middle = [
        values[order][(reached >= total * share).argmax(axis=1)]
        + values[order][(reached > total * share).argmax(axis=1)]
        for share in shares
    ]
    return np.where(total > 0, np.stack(middle, axis=1) / 2, np.nan)
