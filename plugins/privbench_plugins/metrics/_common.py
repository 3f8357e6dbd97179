"""What the metrics share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privbench.errors import DataError, PluginError
from privbench.types import (
    NOT_ENROLLED,
    Evidence,
    Floats,
    Identification,
    Ints,
    OpenSet,
    Release,
)

_ROUNDING = 1e-9  # .29 * 100 is 28.999...


def identification(evidence: Evidence) -> Identification:
    """`evidence`, checked: a NaN would pass as a lowest score and flatter or damn silently."""
    if not isinstance(evidence, Identification):
        raise PluginError(f"Expected identification scores; got {type(evidence).__name__}.")
    _check_scores(evidence, least=0)
    if np.isnan(evidence.impostors).any():
        raise DataError("Impostor scores must not be NaN.")
    return evidence


def open_set(evidence: Evidence) -> OpenSet:
    """`evidence`, checked as `identification` does; mated probes must come first."""
    if not isinstance(evidence, OpenSet):
        raise PluginError(f"Expected open-set scores; got {type(evidence).__name__}.")
    _check_scores(evidence, least=NOT_ENROLLED)
    if np.any(np.diff((evidence.mated != NOT_ENROLLED).astype(np.int8)) > 0):
        raise DataError("The mated probes of an open-set trial must come before the non-mated.")
    return evidence


def _check_scores(evidence: Identification | OpenSet, least: int) -> None:
    probes, people = evidence.scores.shape
    if np.isnan(evidence.scores).any():
        raise DataError("Identification scores must not be NaN.")
    if evidence.mated.shape != (probes,) or not np.all(
        (evidence.mated >= least) & (evidence.mated < people)
    ):
        raise DataError(f"mated must be ({probes},) columns from {least} to {people - 1}.")


def release(evidence: Evidence) -> Release:
    """`evidence`, checked: sources and releases, row by row, of one size."""
    if not isinstance(evidence, Release):
        raise PluginError(f"Expected sources and releases; got {type(evidence).__name__}.")
    source, released = evidence.source.pixels, evidence.released.pixels
    if source.shape != released.shape:
        raise DataError(
            f"A release must have its source's shape {tuple(source.shape)}; "
            f"got {tuple(released.shape)}."
        )
    return evidence


def others(subject: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """For each row one of another person: what a release that ignores its source may agree with.

    Returns:
        (N,) rows, half of the sorted people away, each used once; and (N,) whether that row is
        of another person indeed (with one person there is none).
    """
    order = np.argsort(subject, kind="stable")
    other = np.empty_like(order)
    other[order] = np.roll(order, len(order) // 2)
    return other, subject[other] != subject


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


def allowed(count: int, rate: float) -> int:
    """How many of `count` scores may lie above a threshold whose rate must not exceed `rate`."""
    return int(np.floor(count * rate + _ROUNDING))


def exceedance(count: int, rate: float) -> float:
    """Chance that one more score lies above the smallest threshold fixed on `count` of its kind.

    The threshold is the (k + 1)-th largest, k = `allowed`; among count + 1 exchangeable scores
    without ties the new one is above it k + 1 times. It tends to `rate`.
    """
    return (allowed(count, rate) + 1) / (count + 1)


def weighted_mean(rows: Floats, weights: Floats) -> Floats:
    """(R, D) means of rows (N, D) under weights (R, N); NaN where all weights are 0."""
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean: Floats = (weights @ rows) / total
    return mean


def known_mean(rows: Floats, weights: Floats) -> Floats:
    """(R, D) means of rows (N, D) under weights (R, N) over the rows that are not NaN."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean: Floats = (weights @ np.where(known, rows, 0)) / (weights @ known.astype(np.float64))
    return mean
