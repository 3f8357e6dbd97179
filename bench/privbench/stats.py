"""Intervals, exact bounds and permutation nulls, all clustered by identity.

Photographs of one person are not independent, so the unit that is resampled is the identity,
never the image. Nothing here loops over resamples, probes or pairs: a `Metric` reduces many
weightings of its rows at once, and a bootstrap resample is a weighting.

The interval is the bias-corrected and accelerated bootstrap (BCa; Efron, JASA 82, 1987) with
normal quantiles replaced by Student's t for the number of identities (the correction of
Hesterberg, The American Statistician 69, 2015). `docs/metrics.md` gives its measured coverage
beside that of the percentile interval, which fails near 0 and 1, where privacy results lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from privbench.errors import DataError
from privbench.types import Estimate, Floats, Identification, Ints, Output, Reducer

BLOCK_BYTES = 256 * 2**20
"""Working memory that one block of resamples may use."""

_BLOCK = 256  # resamples at once: enough to share a sort, few enough to stay in the cache

_RANGES = {"share": (0.0, 1.0), "difference": (-1.0, 1.0)}  # of units that have one

_WORK = 16  # float64 per row and resample that a reduction may hold at once (measured: ROC, 9)
_DEFINED = 0.95  # share of resamples that must be defined, else there is no interval
_SAME = 1e-12  # values closer than this differ by rounding only

Statistic = Callable[[Floats], Floats]
"""Weights (R, N) to values (R, M)."""


@dataclass(frozen=True, slots=True)
class Null:
    """What an identification number is when nobody can be told apart.

    Attributes:
        name: `rank-1` or `auc`.
        observed: the value under the true labels.
        mean: mean over permuted labels.
        low: lower end of the central range of the permuted values.
        high: upper end.
        p: share of permutations, the true labelling included, that do at least as well.
    """

    name: str
    observed: float
    mean: float
    low: float
    high: float
    p: float


def cluster_weights(subject: Ints, resamples: int, seed: int) -> Floats:
    """How often each row occurs in each identity-clustered bootstrap resample.

    Each resample draws as many identities as there are, with replacement, and takes all rows
    of an identity as often as it was drawn (Davison & Hinkley 1997, section 3.8, strategy 1).

    Args:
        subject: (N,) identity of each row.
        resamples: R.
        seed: of the draw; block sizes do not matter.

    Returns:
        (R, N) non-negative integers as float64; rows of one identity share one multiplicity.

    >>> cluster_weights(np.array([7, 7, 9]), resamples=3, seed=0)
    array([[0., 0., 2.],
           [1., 1., 1.],
           [2., 2., 0.]])
    """
    identity, count = _identities(subject)
    return _draw(np.random.default_rng(seed), identity, count, resamples)


def bootstrap(
    metric: Reducer,
    rows: Floats,
    subject: Ints,
    outputs: Sequence[Output],
    chance: Floats,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    decisive: NDArray[np.bool_] | None = None,
) -> list[Estimate]:
    """Point estimates with identity-clustered intervals.

    NaN: an output that is undefined on all rows has value and interval None. Resamples in which
    it is undefined are left out; if that is more than 5 % of them, the interval is None.

    Boundary: where every identity gives the same value (rank-1 of exactly 1, or of 0), all
    resamples agree and the interval would be a point. For a share it then is
    `unseen_share_interval`, and no narrower wherever the value is an end of the range (an error
    rate of 1 at a threshold that moves); so for a difference of shares. For other units, which have
    no known range, it is None.

    Args:
        metric: reduces `rows`.
        rows: (N, D) from `metric.rows`.
        subject: (N,) identity of each row.
        outputs: M descriptions, from `metric.outputs`.
        chance: (M,) from `metric.chance`.
        resamples: R; 2,000 put the end points within about 5 % of the interval's width.
        seed: of the resampling.
        level: confidence level.
        decisive: (N,) rows whose identities the boundary counts, e.g. the mated probes of an
            open set: non-mated ones say nothing about the next enrolled person. None: all.

    Returns:
        M estimates, in the order of `outputs`.
    """
    return _estimates(
        lambda weights: metric.reduce(rows, weights),
        subject,
        outputs,
        chance,
        _RANGES,
        resamples,
        seed,
        level,
        decisive,
    )


def paired_difference(
    metric: Reducer,
    rows_a: Floats,
    rows_b: Floats,
    subject: Ints,
    outputs: Sequence[Output],
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Estimate]:
    """A minus B on the same probes; both sides see the same resamples.

    Args:
        metric: reduces both sets of rows.
        rows_a: (N, D).
        rows_b: (N, D), row i from the same probe as row i of `rows_a`.
        subject: (N,) identity of each row.
        outputs: M descriptions; name, direction, worst and unit are those of the output itself.
        resamples: R.
        seed: of the resampling.
        level: confidence level.

    Returns:
        M differences, whose chance is 0: no difference.
    """
    if len(rows_a) != len(rows_b):
        raise DataError(f"Paired rows must match; got {len(rows_a)} and {len(rows_b)}.")
    return _estimates(
        lambda weights: metric.reduce(rows_a, weights) - metric.reduce(rows_b, weights),
        subject,
        outputs,
        np.zeros(len(outputs)),
        {unit: (low - high, high - low) for unit, (low, high) in _RANGES.items()},
        resamples,
        seed,
        level,
    )


def exact_binomial(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a proportion (Biometrika 26, 1934).

    Args:
        successes: 0 to `trials`.
        trials: independent ones: identities, not images.
        level: the interval covers at least this often, whatever the proportion.

    >>> low, high = exact_binomial(0, 100)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.0362)
    """
    if not 0 <= successes <= trials or trials < 1:
        raise DataError(f"Need 0 <= successes <= trials; got {successes} of {trials}.")
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.isf(tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def unseen_share_interval(
    value: float, identities: int, bounds: tuple[float, float], level: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean over people, when all identities seen have one value.

    By Clopper and Pearson, 0 exceptions among C identities leave at most the share
    q = 1 - (alpha / 2) ^ (1 / C) of the population exceptional. Exceptions may take any value
    within `bounds`. At value 1 (or 0) this is the Clopper-Pearson interval of C out of C (0 of C).
    For ROC outputs the impostor scores count as known.

    Args:
        value: shared by all identities.
        identities: C.
        bounds: least and largest possible value.
        level: confidence level.

    >>> low, high = unseen_share_interval(1.0, 100, (0.0, 1.0))
    >>> round(low, 4), high
    (0.9638, 1.0)
    """
    _, q = exact_binomial(0, identities, level)
    low, high = bounds
    return value - q * (value - low), value + q * (high - value)


def permutation_null(
    evidence: Identification, permutations: int = 2000, seed: int = 0, level: float = 0.95
) -> list[Null]:
    """Rank-1 and ROC AUC when names are dealt out at random among the enrolled people.

    All probes of a person are given the same wrong name, so that the null keeps the clusters
    and the habit of some enrolled faces to match everyone. Ties count as in the metrics.

    Args:
        evidence: (N, S) scores with the truth.
        permutations: of the S names.
        seed: of the permutations.
        level: of the central range.

    Returns:
        Two entries: `rank-1` and `auc`.
    """
    scores, mated = evidence.scores, evidence.mated
    probes, people = scores.shape
    best = scores == scores.max(axis=1, keepdims=True)
    hit = best / best.sum(axis=1, keepdims=True)
    # Labels move, the pooled scores do not: Mann-Whitney's U needs one ranking for all.
    place = stats.rankdata(scores).reshape(scores.shape)
    impostors = probes * (people - 1)

    def values(columns: Ints) -> Floats:
        probe = np.arange(probes)
        u = place[probe, columns].sum(axis=1) - probes * (probes + 1) / 2
        with np.errstate(invalid="ignore"):  # one enrolled person leaves no impostor: 0 / 0
            auc = u / (probes * np.float64(impostors))
        return np.stack([hit[probe, columns].mean(axis=1), auc], axis=1)

    rng = np.random.default_rng(seed)
    names = np.arange(people)
    null = np.concatenate(
        [
            values(rng.permuted(np.broadcast_to(names, (size, people)), axis=1)[:, mated])
            for size in _blocks(permutations, 8 * probes + 2 * people)
        ]
    )
    observed = values(mated[None, :])[0]
    tail = (1 - level) / 2
    low, high = np.quantile(null, [tail, 1 - tail], axis=0)
    p = (1 + (null >= observed - _SAME).sum(axis=0)) / (1 + permutations)
    return [
        Null(name, *(float(x) for x in numbers))
        for name, *numbers in zip(
            ("rank-1", "auc"), observed, null.mean(axis=0), low, high, p, strict=True
        )
    ]


def _estimates(
    statistic: Statistic,
    subject: Ints,
    outputs: Sequence[Output],
    chance: Floats,
    ranges: Mapping[str, tuple[float, float]],
    resamples: int,
    seed: int,
    level: float,
    decisive: NDArray[np.bool_] | None = None,
) -> list[Estimate]:
    identity, count = _identities(subject)
    n = len(identity)
    counted = count if decisive is None else len(np.unique(identity[decisive]))
    rng = np.random.default_rng(seed)
    point = statistic(np.ones((1, n)))[0]
    replicates = np.concatenate(
        [statistic(_draw(rng, identity, count, size)) for size in _blocks(resamples, _WORK * n)]
    )
    without = np.concatenate([statistic(1 - one) for one in _one_identity(identity, count)])
    still = [_constant(column) for column in replicates.T]
    if any(still):  # resamples agree; do single identities, too?
        alone = np.concatenate([statistic(one) for one in _one_identity(identity, count)])
        still = [s and _constant(column) for s, column in zip(still, alone.T, strict=True)]
    estimates = []
    for m, output in enumerate(outputs):
        value = point[m]
        interval = None
        if not np.isnan(value):
            if not still[m]:
                interval = _bca(value, replicates[:, m], without[:, m], level)
            bounds = ranges.get(output.unit)
            if bounds and (still[m] or min(abs(value - bound) for bound in bounds) <= _SAME):
                edge = unseen_share_interval(value, counted, bounds, level)
                both = [edge, *([interval] if interval else [])]
                interval = min(low for low, _ in both), max(high for _, high in both)
        low, high = interval or (None, None)
        estimates.append(
            Estimate(
                name=output.name,
                value=_number(value),
                low=low,
                high=high,
                n=n,
                clusters=count,
                chance=_number(chance[m]),
                protects=output.protects,
                worst=output.worst,
                unit=output.unit,
            )
        )
    return estimates


def _bca(
    point: float, replicates: Floats, without: Floats, level: float
) -> tuple[float, float] | None:
    """BCa interval with t quantiles.

    Args:
        point: the estimate.
        replicates: (R,), NaN where undefined.
        without: (C,) delete-one-identity values.
        level: confidence level.
    """
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < _DEFINED * len(replicates):
        return None
    # Bias: where the estimate lies among the replicates. Ties count half, as shares are lumpy.
    tied = np.abs(defined - point) <= _SAME
    below = ((defined < point) & ~tied).mean() + tied.mean() / 2
    edge = 1 / (len(defined) + 1)
    bias = special.ndtri(np.clip(below, edge, 1 - edge))
    # Acceleration: skewness of the influence that single identities have.
    jackknife = without[~np.isnan(without)]
    influence = jackknife.mean() - jackknife if len(jackknife) else np.zeros(1)
    spread = (influence**2).sum()
    acceleration = (influence**3).sum() / (6 * spread**1.5) if spread > _SAME**2 else 0.0
    # The bootstrap's spread is too small by sqrt((C - 1) / C), and its tails are normal.
    c = max(len(without), 2)
    z = np.sqrt(c / (c - 1)) * special.stdtrit(c - 1, (1 + level) / 2)
    shift = bias + np.array([-z, z])
    # Past the pole at acceleration * shift = 1 the quantile is the outermost replicate.
    tails = special.ndtr(bias + shift / np.maximum(1 - acceleration * shift, _SAME))
    low, high = np.quantile(defined, tails)
    return float(low), float(high)


def _identities(subject: Ints) -> tuple[NDArray[np.intp], int]:
    """(N,) index of each row's identity, and how many identities there are."""
    if not len(subject) or subject.min() < 0:
        raise DataError(
            "Intervals need the identity (0 or more) of every row, and one row at least."
        )
    names, identity = np.unique(subject, return_inverse=True)
    return identity, len(names)


def _draw(
    rng: np.random.Generator, identity: NDArray[np.intp], count: int, resamples: int
) -> Floats:
    drawn = rng.integers(count, size=(resamples, count))  # counted below; multinomial() is slower
    drawn += np.arange(resamples)[:, None] * count
    times = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return times.astype(np.float64)[:, identity]


def _blocks(total: int, floats_each: int) -> Iterator[int]:
    """Sizes that add up to `total`, each within `_BLOCK` and `BLOCK_BYTES`."""
    size = max(1, min(_BLOCK, BLOCK_BYTES // (8 * floats_each)))
    for start in range(0, total, size):
        yield min(size, total - start)


def _one_identity(identity: NDArray[np.intp], count: int) -> Iterator[Floats]:
    """Blocks of (C, N) weights: row c is 1 for identity c alone."""
    start = 0
    for size in _blocks(count, _WORK * len(identity)):
        yield (np.arange(start, start + size)[:, None] == identity).astype(np.float64)
        start += size


def _constant(values: Floats) -> bool:
    """All values that are defined agree."""
    defined = values[~np.isnan(values)]
    return not len(defined) or bool(np.ptp(defined) <= _SAME)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
