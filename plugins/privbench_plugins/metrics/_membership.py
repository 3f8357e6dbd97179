"""ROC curves of members against non-members, and error rates at a threshold fixed beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privbench.errors import DataError, PluginError
from privbench.types import Evidence, Floats, Membership, Output
from privbench_plugins.metrics._common import allowed, exceedance
from privbench_plugins.metrics._verification import area, cumulative, tar_at


class MembershipRates:
    """ROC AUC, TPR at fixed FPR, and both rates at a threshold from the attacker's own images.

    Scores are taken as given: a curve below the diagonal stays below it.
    """

    def __init__(self, fprs: tuple[float, ...], calibrated: float) -> None:
        self.fprs = fprs
        self.calibrated = calibrated

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """AUC, one TPR per rate, then TPR and the attained FPR at the fixed threshold."""
        return (
            Output("auc", "lower", 1.0),
            *(Output(f"tpr@fpr={fpr:g}", "lower", 1.0) for fpr in self.fprs),
            Output(f"tpr@calibrated={self.calibrated:g}", "lower", 1.0),
            Output(f"fpr@calibrated={self.calibrated:g}", "higher", 0.0),
        )

    def chance(self, evidence: Evidence) -> Floats:
        """1/2; per rate the chance that a score like the others passes; NaN at the fixed threshold.

        The attacker's own images are of another population, so that guessing passes its threshold
        at no known rate: there `tpr` is to be read beside `fpr`.
        """
        trial = membership(evidence)
        others = people_in(trial.subject[~trial.member])
        passes = [exceedance(others, fpr) if enough(others, fpr) else np.nan for fpr in self.fprs]
        return np.array([0.5, *passes, np.nan, np.nan])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 4): score; 1 for a member, else 0; 1 above the fixed threshold, else 0; the identity.

        The third is NaN where the calibration scores are too few for a threshold.
        """
        trial = membership(evidence)
        limit = threshold(trial.calibration, self.calibrated)
        above = np.where(np.isnan(limit), np.nan, trial.scores > limit)
        return np.column_stack([trial.scores, trial.member, above, trial.subject])

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Exact, not binned; NaN for a rate for which all rows hold too few non-members."""
        member = rows[:, 1] == 1
        ours, theirs = weights[:, member], weights[:, ~member]
        fpr, tpr = roc(rows[member, 0], rows[~member, 0], ours, theirs)
        others = people_in(rows[~member, 3])
        at = [
            tar_at(fpr, tpr, rate) if enough(others, rate) else np.full(len(weights), np.nan)
            for rate in self.fprs
        ]
        with np.errstate(invalid="ignore"):  # 0 / 0 where one side has no weight
            fixed = [
                side @ rows[rows[:, 1] == truth, 2] / side.sum(axis=1)
                for side, truth in ((ours, 1), (theirs, 0))
            ]
        return np.column_stack([area(fpr, tpr), *at, *fixed])


def membership(evidence: Evidence) -> Membership:
    """`evidence`, checked: members and others are there, and every score is a number."""
    if not isinstance(evidence, Membership):
        raise PluginError(f"Expected membership scores; got {type(evidence).__name__}.")
    if evidence.scores.shape != evidence.member.shape or evidence.scores.ndim != 1:
        raise DataError(
            f"Scores must be one per image; got {evidence.scores.shape} for "
            f"{evidence.member.shape} images."
        )
    if np.isnan(evidence.scores).any() or np.isnan(evidence.calibration).any():
        raise DataError("Membership scores must not be NaN.")
    if evidence.member.all() or not evidence.member.any():
        raise DataError("Membership needs members and non-members; one of them is missing.")
    return evidence


def people_in(subject: NDArray[Any]) -> int:
    """How many people: several photographs of one are no several trials."""
    return len(np.unique(subject))


def enough(others: int, rate: float) -> bool:
    """Whether so many people's scores can show a rate: it must allow one of them to pass."""
    return allowed(others, rate) >= 1


def threshold(scores: Floats, rate: float) -> float:
    """Smallest T with at most `rate` of the scores above it; NaN where they are too few to say."""
    count = len(scores)
    if not enough(count, rate):
        return np.nan
    place = count - 1 - allowed(count, rate)
    return float(np.partition(scores, place)[place])


def roc(members: Floats, others: Floats, ours: Floats, theirs: Floats) -> tuple[Floats, Floats]:
    """Corners of R ROC curves from one sort; `_verification.roc` for two separate sets of rows.

    Where members and others tie, the segment is slanted: the expected curve under random
    tie-breaking.

    Args:
        members: (A,) scores.
        others: (B,) scores.
        ours: (R, A) weights.
        theirs: (R, B) weights.

    Returns:
        False and true positive rates (P, R), both ascending from 0 to 1 along axis 0. NaN where
        all weights of a side are 0.
    """
    levels = np.unique(members)

    def counted(scores: Floats, weights: Floats) -> Floats:
        # Cell 2 u + 1 holds scores equal to level u, cell 2 u those just below it; highest first.
        place = np.searchsorted(levels, scores)
        equal = levels[np.minimum(place, len(levels) - 1)] == scores
        cell: NDArray[np.int64] = 2 * (len(levels) - place) - equal
        total = cumulative(cell[:, None], 2 * len(levels) + 1, weights)
        with np.errstate(invalid="ignore"):  # 0 / 0
            rates: Floats = total / total[-1]
        return rates

    return counted(others, theirs), counted(members, ours)
