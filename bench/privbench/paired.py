"""Differences between anonymizers that met the same probes, and their p-values.

Two anonymizers of one study see the same people, so a difference is taken probe by probe, and
what both sides share (hard people, look-alikes in the gallery) cancels. The unit is the person:
intervals resample people (`stats.paired_difference`), tests flip the sign of people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privbench.errors import DataError
from privbench.stats import paired_difference
from privbench.types import Estimate, Floats, Identification, Ints, Output

FLIPS = 20_000
"""Random sign flips: the least p is 1 / 20,001, so that 200 tests can pass Holm at .01."""

_BLOCK = 1024  # flips at once
_SAME = 1e-9  # sums closer than this differ by rounding only


class Rank1:
    """Rank-1 from hits: their mean. `reduce` takes any number of columns of them."""

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, D) weighted means of (N, D) hits."""
        mean: Floats = (weights @ rows) / weights.sum(axis=1, keepdims=True)
        return mean


@dataclass(frozen=True, slots=True)
class Difference:
    """Rank-1 of one side minus that of the other.

    Attributes:
        estimate: with its 95 % interval; chance is 0.
        p: two-sided, by sign flips; see `sign_flip`.
    """

    estimate: Estimate
    p: float


def rank1_hits(evidence: Identification) -> Floats:
    """(N,) chance in [0, 1] that the true person is named first; ties are broken at random."""
    best = evidence.scores == evidence.scores.max(axis=1, keepdims=True)
    mine = best[np.arange(len(best)), evidence.mated]
    hits: Floats = mine / best.sum(axis=1)
    return hits


def differences(
    hits: Floats, reference: Floats, subject: Ints, resamples: int = 2000, seed: int = 0
) -> list[Difference]:
    """Every column of `hits` minus `reference`, on the same probes.

    Args:
        hits: (N, M) rank-1 hits of M variants.
        reference: (N,) hits of the variant they are compared with.
        subject: (N,) identity of each probe.
        resamples: of the interval.
        seed: of resamples and flips.

    Returns:
        M differences.

    Raises:
        DataError: the numbers of probes differ.
    """
    if len(hits) != len(reference):
        raise DataError(f"Paired rows must match; got {len(hits)} and {len(reference)}.")
    outputs = [Output("rank-1", "lower", 1.0)] * hits.shape[1]
    other = np.repeat(reference[:, None], hits.shape[1], axis=1)
    estimates = paired_difference(Rank1(), hits, other, subject, outputs, resamples, seed)
    p = sign_flip(hits - other, subject, seed=seed)
    return [Difference(e, float(x)) for e, x in zip(estimates, p, strict=True)]


def sign_flip(rows: Floats, subject: Ints, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Two-sided p-values of paired differences, with people as units.

    Under the null hypothesis the two sides are exchangeable for each person, so the sum of a
    person's differences is as likely as its negative. All of a person's probes flip together.
    The observed signs count as one flip (Phipson and Smyth 2010), so p is never 0. With one
    probe a person this is a Monte Carlo version of McNemar's exact test.

    Args:
        rows: (N, M) differences, one column per test.
        subject: (N,) identity of each row.
        flips: random ones.
        seed: of the flips; all columns see the same.

    Returns:
        (M,) p-values.
    """
    totals = by_person(rows, subject)
    observed = np.abs(totals.sum(axis=0))
    rng = np.random.default_rng(seed)
    reached = np.zeros(rows.shape[1])
    for start in range(0, flips, _BLOCK):
        size = min(_BLOCK, flips - start)
        signs = rng.integers(2, size=(size, len(totals))) * 2.0 - 1
        reached += (np.abs(signs @ totals) >= observed - _SAME).sum(axis=0)
    p: Floats = (1 + reached) / (1 + flips)
    return p


def by_person(rows: Floats, subject: Ints) -> Floats:
    """(P, M) sums of (N, M) rows over each person's, in the order of their numbers."""
    names, person = np.unique(subject, return_inverse=True)
    totals = np.zeros((len(names), rows.shape[1]))
    np.add.at(totals, person, rows)
    return totals


def holm(p: NDArray[np.float64]) -> Floats:
    """Adjusted p-values that hold the family-wise error (Holm, Scand. J. Statist. 6, 1979).

    Args:
        p: (M,) p-values of one family of tests.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])
    """
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
