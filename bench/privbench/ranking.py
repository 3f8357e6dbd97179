"""Who is better than whom: intervals of ranks, tie groups, and the worst case over attacks.

Rank intervals follow Klein, Wright and Wieczorek (JRSS C 69, 2020) and Mogstad, Romano, Shaikh
and Wilhelm (Review of Economic Studies 91, 2024): count whom a row is significantly worse and
better than. Holm over all pairs makes them hold for all rows at once, as in Bazylik et al. (2021)
for multinomial shares; here the pairs are tested by identity-clustered sign flips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from privbench.errors import DataError
from privbench.paired import FLIPS, Rank1, by_person, holm, sign_flip
from privbench.stats import bootstrap
from privbench.types import Estimate, Floats, Ints, Output

FLIPS_PER_PAIR = 100
"""At least so many flips a pair, so that the least p is far below Holm's first step."""

SCREENS = (1_000, 10_000, 100_000)
"""Flips after which pairs without hope are left alone."""


@dataclass(frozen=True, slots=True)
class Rank:
    """The place of a row among K, 1 for the lowest mean (best protection).

    Attributes:
        low: best rank that the data allow.
        high: worst rank.
        groups: letters of its tie groups; rows that share no letter differ significantly.
    """

    low: int
    high: int
    groups: tuple[str, ...]


def rank_intervals(
    hits: Floats, subject: Ints, level: float = 0.95, seed: int = 0
) -> tuple[Rank, ...]:
    """Simultaneous intervals of the ranks of K rows, by their means on the same probes.

    Args:
        hits: (N, K) e.g. rank-1 hits of K anonymizers; a lower mean is better.
        subject: (N,) identity of each probe, the unit of the tests.
        level: chance that all K intervals hold the true ranks.
        seed: of the sign flips.

    Returns:
        K ranks: from 1 + rows significantly better to K - rows significantly worse.

    >>> hits = np.repeat([[0.0, 0.9, 1.0]], 40, axis=0)
    >>> hits[0, 1] = 1
    >>> [(r.low, r.high, r.groups) for r in rank_intervals(hits, np.arange(40))]
    [(1, 1, ('a',)), (2, 2, ('b',)), (3, 3, ('c',))]
    """
    if hits.ndim != 2 or not hits.shape[1]:
        raise DataError(f"Ranks need hits of shape (probes, rows); got {hits.shape}.")
    better = significantly_better(hits, subject, level, seed)
    low, high = 1 + better.sum(axis=0), len(better) - better.sum(axis=1)
    groups = tie_groups(~(better | better.T), np.argsort(hits.mean(axis=0), kind="stable"))
    return tuple(Rank(int(a), int(b), g) for a, b, g in zip(low, high, groups, strict=True))


def rank_rows(rows: Sequence[Sequence[float]], subject: Sequence[int]) -> tuple[Rank, ...]:
    """`rank_intervals` of K rows of N hits, as lists: what the leaderboard holds."""
    return rank_intervals(np.array(rows, dtype=np.float64).T, np.array(subject, dtype=np.int64))


def significantly_better(
    hits: Floats, subject: Ints, level: float = 0.95, seed: int = 0
) -> NDArray[np.bool_]:
    """(K, K) entry (i, j): the mean of column i is lower than that of j, Holm over all pairs.

    Sign flips decide; most pairs of a long table need few or none. A pair is surely different where
    even Hoeffding's bound on its p-value (J. Amer. Statist. Assoc. 58, 1963) passes Holm's first
    step. It surely is not where a few flips put p far above the step that Holm can reach: the level
    over the number of pairs that are settled so, and this one.
    """
    count = hits.shape[1]
    one, other = np.triu_indices(count, 1)
    difference = hits[:, one] - hits[:, other]
    p, alpha, settled = _bound(difference, subject), 1 - level, 0
    open_ = np.flatnonzero(p * len(p) > alpha)
    last = max(FLIPS, FLIPS_PER_PAIR * len(p))
    for flips in (*(n for n in SCREENS if n < last), last):
        if len(open_):
            p[open_] = sign_flip(difference[:, open_], subject, flips, seed)
        while (hopeless := p[open_] > _far_above(alpha / (settled + 1), flips)).any():
            settled, open_ = settled + int(hopeless.sum()), open_[~hopeless]
    real = holm(p) <= 1 - level
    below = difference.mean(axis=0) < 0
    better = np.zeros((count, count), dtype=bool)
    better[one, other], better[other, one] = real & below, real & ~below
    return better


def _far_above(limit: float, flips: int) -> float:
    """What a p-value from so many flips exceeds only if the true one exceeds the limit, too: ten
    standard errors, and thirty flips."""
    return limit + 10 * float(np.sqrt(limit / flips)) + 30 / flips


def _bound(difference: Floats, subject: Ints) -> Floats:
    """(M,) upper bounds of the sign flip test's exact p-values: P(|sum of signs * d| >= |sum of d|)
    is at most 2 exp(-(sum of d)^2 / (2 sum of d^2)), with d the sums of each person."""
    totals = by_person(difference, subject)
    squares = (totals**2).sum(axis=0)
    exponent = totals.sum(axis=0) ** 2 / np.where(squares > 0, 2 * squares, 1)
    bound: Floats = np.minimum(2 * np.exp(-exponent), 1)
    return bound


def tie_groups(tied: NDArray[np.bool_], order: NDArray[np.intp]) -> tuple[tuple[str, ...], ...]:
    """Letters for K rows: two rows share one exactly if they are tied.

    A group is a maximal set of rows that are tied with each other (the compact letter display of
    Piepho, J. Comput. Graph. Statist. 13, 2004).

    Args:
        tied: (K, K) symmetric; the diagonal is not read.
        order: the rows from best to worst; group a holds the best.
    """
    place = np.argsort(order)
    near = [frozenset(np.flatnonzero(row).tolist()) - {i} for i, row in enumerate(tied)]
    groups = _maximal(near, frozenset(), frozenset(range(len(near))), frozenset())
    ranked = sorted(groups, key=lambda group: sorted(place[list(group)]))
    return tuple(
        tuple(_letter(i) for i, group in enumerate(ranked) if row in group)
        for row in range(len(near))
    )


def max_over_attacks(
    rows: Floats, subject: Ints, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """The worst case over A attacks: the largest mean, with an interval of the largest true mean.

    The largest of several noisy means is too large on average: the value is biased upward, more
    so the more attacks are equally strong, and so is a bootstrap of it. The ends are therefore
    made of the attacks' own: the largest upper end (the strongest attack's holds its true mean,
    and none is larger), and the largest lower end at level 1 - (1 - level) / A (Bonferroni: none
    lies above its own true mean). The interval need not lie evenly about the value.

    Args:
        rows: (N, A) shares, e.g. rank-1 hits of A attacks on the same probes.
        subject: (N,) identity of each probe.
        resamples: of the bootstrap.
        seed: of the resampling.
        level: confidence level.

    Returns:
        `worst-case`; its chance is unknown here.
    """
    if rows.ndim != 2 or not rows.shape[1]:
        raise DataError(f"The worst case needs rows of shape (probes, attacks); got {rows.shape}.")
    attacks = rows.shape[1]
    outputs, chance = [Output("worst-case", "lower", 1.0)] * attacks, np.full(attacks, np.nan)
    upper, lower = (
        bootstrap(Rank1(), rows, subject, outputs, chance, resamples, seed, one)
        for one in (level, 1 - (1 - level) / attacks)
    )
    low = max(e.low for e in lower if e.low is not None)
    high = max(e.high for e in upper if e.high is not None)
    largest = max(upper, key=lambda e: e.value if e.value is not None else -np.inf)
    return replace(largest, low=low, high=high)


def _maximal(
    near: list[frozenset[int]], chosen: frozenset[int], open_: frozenset[int], done: frozenset[int]
) -> Iterator[frozenset[int]]:
    """Maximal cliques (Bron and Kerbosch, Comm. ACM 16, 1973, with a pivot)."""
    if not open_ and not done:
        yield chosen
        return
    pivot = max(open_ | done, key=lambda row: len(near[row] & open_))
    for row in sorted(open_ - near[pivot]):
        yield from _maximal(near, chosen | {row}, open_ & near[row], done & near[row])
        open_, done = open_ - {row}, done | {row}


def _letter(index: int) -> str:
    """a .. z, then aa, ab, .."""
    first, last = divmod(index, 26)
    return (_letter(first - 1) if first else "") + chr(ord("a") + last)
