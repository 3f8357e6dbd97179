"""The ROC curve and what is read from it, for many weightings at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from privbench.types import Evidence, Floats, Identification, Ints, Output
from privbench_plugins.metrics._common import identification, mated_scores

IMPOSTORS_PER_FAR = 10
"""A rate below this many expected false accepts is not reported."""


class Verification:
    """ROC AUC, EER, and TAR at fixed FAR.

    A probe is compared with its own person (mated) and with every other enrolled person
    (impostors). Scores are taken as given: a curve below the diagonal stays below it.
    """

    def __init__(self, fars: tuple[float, ...]) -> None:
        self.fars = fars

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """AUC, EER, then one TAR per rate."""
        return (
            Output("auc", "lower", 1.0),
            Output("eer", "higher", 0.0),
            *(Output(f"tar@far={far:g}", "lower", 1.0) for far in self.fars),
        )

    def chance(self, evidence: Evidence) -> Floats:
        """1/2, 1/2, and the false accept rate itself."""
        return np.array([0.5, 0.5, *self.fars])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, S): see `comparisons`."""
        return comparisons(identification(evidence))

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Exact, not binned; NaN without impostors, and where they are too few for a FAR."""
        if rows.shape[1] < 2:
            return np.full((len(weights), 2 + len(self.fars)), np.nan)
        far, tar, impostors = roc(rows, weights)
        return np.column_stack(
            [area(far, tar), equal_error(far, tar), tars_at(far, tar, impostors, self.fars)]
        )


class ErrorTradeoff:
    """FNMR at fixed FMR, for a whole grid: the DET curve (ISO/IEC 19795-1)."""

    def __init__(self, fmrs: tuple[float, ...]) -> None:
        self.fmrs = fmrs

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One false non-match rate per false match rate."""
        return tuple(Output(f"det-{fmr:g}", "higher", 0.0) for fmr in self.fmrs)

    def chance(self, evidence: Evidence) -> Floats:
        """1 - FMR."""
        return 1 - np.array(self.fmrs)

    def rows(self, evidence: Evidence) -> Floats:
        """(N, S): see `comparisons`."""
        return comparisons(identification(evidence))

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, F); NaN without impostors, and where they are too few for an FMR."""
        if rows.shape[1] < 2:
            return np.full((len(weights), len(self.fmrs)), np.nan)
        return 1 - tars_at(*roc(rows, weights), self.fmrs)


def comparisons(trial: Identification) -> Floats:
    """(N, S): the mated score, then the S - 1 impostor scores in the order of enrolment."""
    probes, people = trial.scores.shape
    others = np.ones((probes, people), dtype=bool)
    others[np.arange(probes), trial.mated] = False
    return np.column_stack([mated_scores(trial), trial.scores[others].reshape(probes, people - 1)])


def roc(rows: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Corners of R ROC curves from one sort.

    True accepts change at mated scores only, so the impostors are counted in the cells between
    and at the distinct mated scores; that loses nothing, and a curve has at most 2 N + 2 points.
    Where mated and impostor scores tie, the segment is slanted: the expected curve under random
    tie-breaking.

    Args:
        rows: (N, S) mated score, then impostors.
        weights: (R, N).

    Returns:
        False accept rates (P, R) and true accept rates (P, R), both ascending from 0 to 1 along
        axis 0, and the weighted number of impostor scores (R,). NaN where all weights are 0.
    """
    levels = np.unique(rows[:, 0])
    # Cell 2 u + 1 holds scores equal to level u, cell 2 u those just below it; highest first.
    place = np.searchsorted(levels, rows)
    equal = levels[np.minimum(place, len(levels) - 1)] == rows
    cell = 2 * (len(levels) - place) - equal
    cells = 2 * len(levels) + 1
    tar = cumulative(cell[:, :1], cells, weights)
    far = cumulative(cell[:, 1:], cells, weights)
    impostors = far[-1].copy()
    with np.errstate(invalid="ignore"):  # 0 / 0 where all weights are 0
        return far / impostors, tar / tar[-1], impostors


def area(far: Floats, tar: Floats) -> Floats:
    """(R,) area under curves (P, R)."""
    total: Floats = (np.diff(far, axis=0) * (tar[1:] + tar[:-1])).sum(axis=0) / 2
    return total


def equal_error(far: Floats, tar: Floats) -> Floats:
    """(R,) rate where false accepts and false rejects are equal, linear between corners."""
    after, before = _around(far + tar >= 1)
    x0, x1 = _pick(far, before), _pick(far, after)
    y0, y1 = _pick(tar, before), _pick(tar, after)
    return x0 + (x1 - x0) * (1 - x0 - y0) / (x1 - x0 + y1 - y0)


def tar_at(far: Floats, tar: Floats, target: float) -> Floats:
    """(R,) largest true accept rate whose false accept rate is at most `target`.

    Between corners only tied scores allow a rate in between (accept a tie at random); without
    ties the segment is level, so nothing above a corner within the target is ever credited.
    """
    after, before = _around(far > target)
    x0, x1 = _pick(far, before), _pick(far, after)
    y0, y1 = _pick(tar, before), _pick(tar, after)
    return y0 + (y1 - y0) * (target - x0) / (x1 - x0)


def tars_at(far: Floats, tar: Floats, impostors: Floats, targets: Sequence[float]) -> Floats:
    """(R, F) `tar_at` each target; NaN where `impostors` (R,) are too few for it."""
    return np.stack(
        [
            np.where(impostors * target >= IMPOSTORS_PER_FAR, tar_at(far, tar, target), np.nan)
            for target in targets
        ],
        axis=1,
    )


def cumulative(cell: Ints, cells: int, weights: Floats) -> Floats:
    """(cells + 1, R): weight of the entries of `cell` (N, J) below 0, 1, .. cells."""
    n, per_row = cell.shape
    ones = np.ones(cell.size)
    where = (cell.ravel(), np.repeat(np.arange(n), per_row))
    counts: Any = sparse.csr_array((ones, where), shape=(cells, n))
    total = np.zeros((cells + 1, len(weights)))
    np.cumsum(counts @ weights.T, axis=0, out=total[1:])
    return total


def _around(reached: Any) -> tuple[Ints, Ints]:
    """First index along axis 0 where `reached` (P, R) holds, and the one before it."""
    after = np.maximum(reached.argmax(axis=0), 1)
    return after, after - 1


def _pick(values: Floats, index: Ints) -> Floats:
    return values[index, np.arange(values.shape[1])]
