"""The cumulative match characteristic."""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Ints, Output
from privbench_plugins.metrics._common import expected_hits, identification, weighted_mean


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
