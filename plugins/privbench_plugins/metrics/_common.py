"""What the metrics share."""

from __future__ import annotations

import numpy as np

from privbench.errors import DataError, PluginError
from privbench.types import Evidence, Floats, Identification, Ints


def identification(evidence: Evidence) -> Identification:
    """`evidence`, checked: a NaN would pass as a lowest score and flatter or damn silently."""
    if not isinstance(evidence, Identification):
        raise PluginError(f"Expected identification scores; got {type(evidence).__name__}.")
    probes, people = evidence.scores.shape
    if np.isnan(evidence.scores).any():
        raise DataError("Identification scores must not be NaN.")
    if evidence.mated.shape != (probes,) or not np.all(
        (evidence.mated >= 0) & (evidence.mated < people)
    ):
        raise DataError(f"mated must be ({probes},) columns from 0 to {people - 1}.")
    return evidence


def mated_scores(evidence: Identification) -> Floats:
    """(N, 1) score of each probe against its own person."""
    return np.take_along_axis(evidence.scores, evidence.mated[:, None], axis=1)


def above_and_tied(evidence: Identification) -> tuple[Ints, Ints]:
    """(N,) wrong candidates that score above the true person, and (N,) that tie with it."""
    true = mated_scores(evidence)
    above = (evidence.scores > true).sum(axis=1)
    tied = (evidence.scores == true).sum(axis=1) - 1
    return above, tied


def expected_hits(evidence: Identification, ranks: Ints) -> Floats:
    """(N, K) chance that the true person is among the first k, ties broken at random.

    With `a` candidates above and `t` tied, the rank is uniform on a + 1 .. a + t + 1.
    """
    above, tied = (x[:, None] for x in above_and_tied(evidence))
    hits: Floats = np.clip(ranks - above, 0, tied + 1) / (tied + 1)
    return hits


def weighted_mean(rows: Floats, weights: Floats) -> Floats:
    """(R, D) means of rows (N, D) under weights (R, N); NaN where all weights are 0."""
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean: Floats = (weights @ rows) / total
    return mean
