"""Error rates at a threshold that was fixed before any evaluation score was seen."""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Output
from privbench_plugins.metrics._common import (
    allowed,
    exceedance,
    identification,
    mated_scores,
    weighted_mean,
)
from privbench_plugins.metrics._verification import IMPOSTORS_PER_FAR


class OperatingPoint:
    """FNMR and the FMR really attained, at thresholds from attacker-validation.

    The threshold is the smallest T at which at most the target share of the V impostor scores of
    attacker-validation lies above T; a comparison is a match if its score is above T, so a tie
    with T never is. Intervals hold T fixed.
    """

    def __init__(self, fmrs: tuple[float, ...]) -> None:
        self.fmrs = fmrs

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """For each target the false non-match rate and the attained false match rate."""
        return tuple(
            Output(name, "higher", 0.0)
            for fmr in self.fmrs
            for name in (f"fnmr@fmr={fmr:g}", f"fmr@{fmr:g}")
        )

    def chance(self, evidence: Evidence) -> Floats:
        """1 - q and q; q the chance that a score like the impostors' is above the threshold."""
        count = len(identification(evidence).impostors)
        above = [exceedance(count, fmr) for fmr in self.fmrs]
        return np.array([rate for q in above for rate in (1 - q, q)])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 2 F): 1 where the true person is not matched, else 0; share of others matched.

        NaN where the impostors are too few for a target, and for others where there are none.
        """
        trial = identification(evidence)
        mated = mated_scores(trial)
        threshold = np.array([fixed_threshold(trial.impostors, fmr) for fmr in self.fmrs])
        missed = np.where(np.isnan(threshold), np.nan, mated <= threshold)
        matched = (trial.scores[:, :, None] > threshold).sum(axis=1) - (mated > threshold)
        with np.errstate(invalid="ignore"):  # 0 / 0 where one person is enrolled
            share = matched / np.float64(trial.scores.shape[1] - 1)
        share = np.where(np.isnan(threshold), np.nan, share)
        rows: Floats = np.stack([missed, share], axis=2).reshape(len(mated), -1)
        return rows

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means."""
        return weighted_mean(rows, weights)


def fixed_threshold(impostors: Floats, rate: float) -> float:
    """Smallest T with at most `rate` of the scores above it; NaN where they are too few to say."""
    count = len(impostors)
    if count * rate < IMPOSTORS_PER_FAR:
        return np.nan
    place = count - 1 - allowed(count, rate)
    return float(np.partition(impostors, place)[place])
