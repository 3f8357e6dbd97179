"""Anonymity sets."""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Output
from privbench_plugins.metrics._common import above_and_tied, identification, weighted_mean


class AnonymitySets:
    """The candidates that score at or above the true person, that person included.

    Ties belong to the set: the attacker cannot tell them apart.
    """

    def __init__(self, ks: tuple[int, ...]) -> None:
        self.ks = ks

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One share per k, then the median."""
        return (
            *(Output(f"set<{k}", "lower", 1.0) for k in self._ks(evidence)),
            Output("median-set", "higher", 1.0, unit="people"),
        )

    def chance(self, evidence: Evidence) -> Floats:
        """Under a rank that is uniform on 1 .. S: (k - 1) / S, and (S + 1) / 2."""
        people = identification(evidence).scores.shape[1]
        return np.array([*((k - 1) / people for k in self._ks(evidence)), (people + 1) / 2])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, K + 1): 1 where the set is smaller than k, else 0; the set's size."""
        above, tied = above_and_tied(identification(evidence))
        size = above + tied + 1
        small = size[:, None] < np.array(self._ks(evidence), dtype=np.int64)
        return np.column_stack([small, size]).astype(np.float64)

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means and a weighted median."""
        return np.column_stack(
            [weighted_mean(rows[:, :-1], weights), weighted_median(rows[:, -1], weights)]
        )

    def _ks(self, evidence: Evidence) -> list[int]:
        people = identification(evidence).scores.shape[1]
        return [k for k in self.ks if k <= people]


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """(R,) medians of values (N,) repeated as weights (R, N) say; NaN where all are 0.

    An even number of values gives the mean of the middle two.
    """
    order = np.argsort(values)
    reached = np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    lower = values[order][(reached >= half).argmax(axis=1)]
    upper = values[order][(reached > half).argmax(axis=1)]
    return np.where(half[:, 0] > 0, (lower + upper) / 2, np.nan)
