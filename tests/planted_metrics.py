"""A metric, honest unless a defect is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from planted_conduct import misbehave
from privbench.types import Evidence, Floats, Identification, Output


class RankOne:
    """Share of probes whose own person scores highest."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.shade = misbehave(defect) / 10
        if defect == "fit":
            self.fit: Any = lambda reference: RankOne(defect)

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One."""
        protects, worst = ("higher", 0.0) if self.defect == "direction" else ("lower", 1.0)
        worst = {"range": 0.5, "output": float("inf")}.get(self.defect, worst)
        return (Output("rank-1", protects, worst),)  # type: ignore[arg-type]

    def chance(self, evidence: Evidence) -> Floats:
        """1 / S."""
        assert isinstance(evidence, Identification)
        guesses = 0.5 if self.defect == "range:chance" else evidence.scores.shape[1]
        return np.array([1 / guesses])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 1): a hit or none."""
        assert isinstance(evidence, Identification)
        hits = (evidence.scores.argmax(1) == evidence.mated).astype(np.float64)
        match self.defect:
            case "input_unchanged":
                evidence.scores[:] = 0
            case "repeatable":
                hits = hits * (1 - self.shade)
            case "order":
                hits[1:][np.diff(evidence.subject) == 0] *= 0.5
            case "shards":
                hits = hits * hits.mean()
        return hits[:, None]

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted mean."""
        if self.defect == "repeated_rows":
            weights = (weights > 0).astype(np.float64)
        return (weights @ rows) / weights.sum(1, keepdims=True)
