"""Linkability of protected templates, from histograms of mated and non-mated scores.

M. Gomez-Barrero, J. Galbally, C. Rathgeb, C. Busch, *General framework to evaluate unlinkability in
biometric template protection systems*, IEEE TIFS 13(6), 2018.
"""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Identification, Ints, Output
from privbench_plugins.metrics._common import identification

MATED_PER_BIN = 10
"""Mated scores that a bin holds on average, at least: the rule of the authors' program."""


class Linkability:
    """The global measure D_sys: the mean over mated scores of the local measure D(s).

    Likelihoods are histograms over B equal bins from the least to the largest score of the trial,
    B = min(N / 10, `bins`). The edges belong to the rows: every resample has the same.
    """

    def __init__(self, omega: float, bins: int, permutations: int) -> None:
        self.omega, self.bins, self.permutations = omega, bins, permutations

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One share: 0 for scores that tell nothing, 1 for scores that tell everything."""
        return (Output("d-sys", "lower", 1.0),)

    def chance(self, evidence: Evidence) -> Floats:
        """Mean D_sys with the names dealt at random among the enrolled people.

        Not 0: a histogram of few scores is uneven, and D counts only what exceeds. As in
        `privbench.stats.permutation_null`, a person's probes share one wrong name.
        """
        trial = identification(evidence)
        place, bins = self._binned(trial)
        probes, people = place.shape
        rng = np.random.default_rng(0)
        names = np.broadcast_to(np.arange(people), (self.permutations, people))
        dealt = place[np.arange(probes), rng.permuted(names, axis=1)[:, trial.mated]]
        mated = _histograms(dealt, bins)
        pooled = np.bincount(place.ravel(), minlength=bins)
        return np.array([self._measure(mated, pooled - mated).mean()])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 2 B): bin of the mated score, one-hot; how many impostor scores are in each bin."""
        trial = identification(evidence)
        place, bins = self._binned(trial)
        mated = _histograms(np.take_along_axis(place, trial.mated[:, None], axis=1), bins)
        return np.column_stack([mated, _histograms(place, bins) - mated])

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, 1); NaN where all weights are 0, and without impostors."""
        mated, impostors = np.split(weights @ rows, 2, axis=1)
        return self._measure(mated, impostors)[:, None]

    def _binned(self, trial: Identification) -> tuple[Ints, int]:
        """(N, S) bin of each score, and the number of bins."""
        bins = int(np.clip(len(trial.scores) // MATED_PER_BIN, 2, self.bins))
        edges = np.linspace(trial.scores.min(), trial.scores.max(), bins + 1)
        place = np.asarray(np.searchsorted(edges[1:-1], trial.scores, side="right"))
        return place, bins

    def _measure(self, mated: Floats, impostors: Floats) -> Floats:
        """(R,) D_sys of histograms (R, B)."""
        with np.errstate(invalid="ignore"):  # 0 / 0
            p = mated / mated.sum(axis=1, keepdims=True)
            q = impostors / impostors.sum(axis=1, keepdims=True)
        total: Floats = (p * local_linkability(p, q, self.omega)).sum(axis=1)
        return np.where(np.isnan(q[:, 0]), np.nan, total)  # undefined without impostors


def local_linkability(mated: Floats, impostors: Floats, omega: float = 1.0) -> Floats:
    """The local measure D(s) = P(mated | s) - P(not | s), or 0 where that is negative.

    With the likelihood ratio LR(s) and prior odds omega it is 2 LR omega / (1 + LR omega) - 1
    where LR omega > 1.

    Args:
        mated: density or share of mated scores at s.
        impostors: of non-mated scores.
        omega: P(mated) / P(not).
    """
    odds, total = omega * mated, omega * mated + impostors
    ratio = np.divide(odds - impostors, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.maximum(ratio, 0))


def _histograms(place: Ints, bins: int) -> Floats:
    """(R, B) how often each bin occurs in each row of `place` (R, J)."""
    cell = place + bins * np.arange(len(place))[:, None]
    counts = np.bincount(cell.ravel(), minlength=bins * len(place)).reshape(len(place), bins)
    return counts.astype(np.float64)
