"""Curves of an identification trial, with bands that resample people."""

from __future__ import annotations

from typing import Literal

import numpy as np

from privbench.record import Curve
from privbench.stats import cluster_weights
from privbench.types import Floats, Identification, Ints

LONGEST = 60
"""Ranks that a CMC curve shows at most, evenly on a log scale."""

RATES = 10.0 ** np.linspace(-4, 0, 25)
"""False match rates of a ROC curve; those that the trial cannot resolve are left out."""

DIGITS = 4


def curves(trial: Identification, resamples: int, seed: int) -> dict[Literal["cmc", "roc"], Curve]:
    """CMC and ROC of a closed-set trial.

    CMC (ISO/IEC 19795-1): share of probes whose person is among the first k of S; ties are broken
    at random. ROC: share of mated comparisons above the least threshold at which at most the
    share x of all N (S - 1) non-mated comparisons is. Bands are pointwise 95 % percentiles over
    resampled people; the thresholds of the ROC stay those of all probes.

    Args:
        resamples: of the bootstrap.
        seed: of the resampling.
    """
    n, people = trial.scores.shape
    weights = cluster_weights(trial.subject, resamples, seed)
    weights /= weights.sum(axis=1, keepdims=True)
    own = trial.scores[np.arange(n), trial.mated]
    above = (trial.scores > own[:, None]).sum(axis=1)
    tied = (trial.scores == own[:, None]).sum(axis=1)
    ranks = np.arange(1.0, people + 1)
    if people > LONGEST:
        ranks = np.unique(np.geomspace(1, people, LONGEST).round())
    cmc = np.clip((ranks[None, :] - above[:, None]) / tied[:, None], 0, 1)
    rates, thresholds = _thresholds(trial.scores, trial.mated)
    roc = np.where(rates < 1, own[:, None] > thresholds, True).astype(np.float64)
    return {"cmc": _curve(ranks, cmc, weights), "roc": _curve(rates, roc, weights)}


def _thresholds(scores: Floats, mated: Ints) -> tuple[Floats, Floats]:
    """False match rates that the trial resolves, and the threshold of each."""
    others = np.delete(scores.ravel(), np.arange(len(scores)) * scores.shape[1] + mated)
    found = np.sort(others)[::-1]
    rates = RATES[RATES * len(found) >= 1]
    place = np.minimum((rates * len(found)).astype(np.int64), len(found) - 1)
    return rates, found[place]


def _curve(x: Floats, hits: Floats, weights: Floats) -> Curve:
    low, high = np.quantile(weights @ hits, (0.025, 0.975), axis=0)
    return Curve(
        x=[float(f"{value:.4g}") for value in x],
        value=hits.mean(axis=0).round(DIGITS).tolist(),
        low=low.round(DIGITS).tolist(),
        high=high.round(DIGITS).tolist(),
    )
