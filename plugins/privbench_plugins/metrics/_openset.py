"""Identification when some probes are of people who are in no gallery."""

from __future__ import annotations

import numpy as np

from privbench.types import NOT_ENROLLED, Evidence, Floats, Identification, Output
from privbench_plugins.metrics._common import exceedance, expected_hits, open_set
from privbench_plugins.metrics._verification import cumulative, tar_at


class OpenSetRates:
    """DIR = 1 - FNIR(S, 1, T) at fixed FPIR (ISO/IEC 19795-1; NIST FRTE 1:N).

    FPIR(T): share of non-mated probes with a candidate above T. DIR: share of mated probes whose
    first candidate is the true person, and above T. T is the smallest with FPIR(T) <= target on
    the non-mated probes of the same resample, so its uncertainty is in the interval. Ties, for
    the first place and with T, are broken at random: the value is the expected one.
    """

    def __init__(self, fpirs: tuple[float, ...]) -> None:
        self.fpirs = fpirs

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One share per FPIR."""
        return tuple(Output(f"dir@fpir={fpir:g}", "lower", 1.0) for fpir in self.fpirs)

    def chance(self, evidence: Evidence) -> Floats:
        """P(above T) / S: the first candidate is anyone, and scores say nothing of enrolment."""
        trial = open_set(evidence)
        non_mated = int((trial.mated == NOT_ENROLLED).sum())
        people = trial.scores.shape[1]
        return np.array([exceedance(non_mated, fpir) / people for fpir in self.fpirs])

    def rows(self, evidence: Evidence) -> Floats:
        """(N + M, 3): 1 if mated, else 0; best score; chance that the true person has it."""
        trial = open_set(evidence)
        mated = trial.mated != NOT_ENROLLED
        enrolled = Identification(trial.scores[mated], trial.mated[mated], trial.subject[mated])
        hit = np.zeros(len(mated))
        hit[mated] = expected_hits(enrolled, np.array([1]))[:, 0]
        return np.column_stack([mated, trial.scores.max(axis=1), hit])

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, F); NaN where fewer than 1 / FPIR non-mated probes fix the threshold."""
        mated, best, hit = rows.T
        levels, place = np.unique(-best, return_inverse=True)  # highest first
        cell = place.reshape(-1, 1)
        positive = cumulative(cell, len(levels), weights * (1 - mated))
        named = cumulative(cell, len(levels), weights * hit)
        non_mated = positive[-1].copy()
        with np.errstate(invalid="ignore"):  # 0 / 0 where a resample lacks either kind
            fpir, dir_ = positive / non_mated, named / (weights @ mated)
        return np.stack(
            [
                np.where(non_mated * target >= 1, tar_at(fpir, dir_, target), np.nan)
                for target in self.fpirs
            ],
            axis=1,
        )
