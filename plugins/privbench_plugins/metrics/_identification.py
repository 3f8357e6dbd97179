"""Rank-k, mean average precision and the match curve."""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Identification, Ints, Output
from privbench_plugins.metrics._common import (
    above_and_tied,
    expected_hits,
    identification,
    weighted_mean,
)


class IdentificationRates:
    """Rank-k for k up to the number of enrolled people S, and mAP. Means of rows in [0, 1]."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.ranks = ranks

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One share per rank, then mAP."""
        names = [f"rank-{k}" for k in self._ranks(evidence)]
        return tuple(Output(name, protects="lower", worst=1.0) for name in [*names, "mAP"])

    def chance(self, evidence: Evidence) -> Floats:
        """k / S; for mAP the mean of 1 / rank under a uniform rank, H_S / S."""
        ranks = self._ranks(evidence)
        people = identification(evidence).scores.shape[1]
        return np.array([*(k / people for k in ranks), harmonic(people)[-1] / people])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, K + 1): expected hits at each rank, expected reciprocal rank."""
        trial = identification(evidence)
        hits = expected_hits(trial, np.array(self._ranks(evidence), dtype=np.int64))
        return np.column_stack([hits, reciprocal_ranks(trial)])

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means."""
        return weighted_mean(rows, weights)

    def _ranks(self, evidence: Evidence) -> list[int]:
        people = identification(evidence).scores.shape[1]
        return [k for k in self.ranks if k <= people]


class MatchCurve:
    """Rank-k for every k from 1 to min(max_rank, S)."""

    def __init__(self, max_rank: int) -> None:
        self.max_rank = max_rank

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One share per rank."""
        return tuple(Output(f"cmc-{k}", "lower", 1.0) for k in self._ranks(evidence))

    def chance(self, evidence: Evidence) -> Floats:
        """k / S."""
        people = identification(evidence).scores.shape[1]
        curve: Floats = self._ranks(evidence) / people
        return curve

    def rows(self, evidence: Evidence) -> Floats:
        """(N, K) expected hits at each rank."""
        return expected_hits(identification(evidence), self._ranks(evidence))

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means."""
        return weighted_mean(rows, weights)

    def _ranks(self, evidence: Evidence) -> Ints:
        people = identification(evidence).scores.shape[1]
        return np.arange(1, min(self.max_rank, people) + 1)


def harmonic(n: int) -> Floats:
    """(n + 1,) harmonic numbers H_0 .. H_n."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def reciprocal_ranks(evidence: Identification) -> Floats:
    """(N,) expected 1 / rank, ties broken at random.

    One enrolled person is relevant, so this is the average precision of the probe.
    """
    above, tied = above_and_tied(evidence)
    h = harmonic(evidence.scores.shape[1])
    expected: Floats = (h[above + tied + 1] - h[above]) / (tied + 1)
    return expected
