"""Speed of the clustered bootstrap against the loop that one would write by hand.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.stats import permutation_test
from sklearn.metrics import roc_auc_score, roc_curve
from statsmodels.stats.multitest import multipletests

from privbench.paired import FLIPS
from privbench.ranking import max_over_attacks, rank_intervals
from privbench.stats import bootstrap
from privbench.types import NOT_ENROLLED, Floats, Identification, Metric, OpenSet
from privbench_plugins.metrics._identification import IdentificationRates
from privbench_plugins.metrics._kanonymity import AnonymitySets
from privbench_plugins.metrics._linkability import Linkability
from privbench_plugins.metrics._openset import OpenSetRates
from privbench_plugins.metrics._operating import OperatingPoint
from privbench_plugins.metrics._verification import ErrorTradeoff, Verification

RESAMPLES = 2000
PEOPLE, PER = 100, 3


def trial() -> Identification:
    """300 probes of 100 people."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(PEOPLE), PER)
    scores = rng.normal(size=(len(subject), PEOPLE))
    scores[np.arange(len(subject)), subject] += 1.5
    return Identification(scores, subject, subject, rng.normal(size=4000))


def open_trial() -> OpenSet:
    """The same, and 300 probes of 100 people who are not enrolled."""
    closed = trial()
    strangers = np.random.default_rng(1).normal(size=closed.scores.shape)
    return OpenSet(
        np.concatenate([closed.scores, strangers]),
        np.concatenate([closed.mated, np.full(len(strangers), NOT_ENROLLED)]),
        np.concatenate([closed.subject, closed.subject + PEOPLE]),
    )


def ranks(scores: Floats, mated: np.ndarray) -> list[float]:
    """Rank-1, rank-5, rank-10 and mAP, as one would write it."""
    true = scores[np.arange(len(scores)), mated]
    rank = (scores > true[:, None]).sum(axis=1) + 1
    return [*(float((rank <= k).mean()) for k in (1, 5, 10)), float((1 / rank).mean())]


def pooled(scores: Floats, mated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of all comparisons."""
    labels = np.zeros(scores.shape, dtype=int)
    labels[np.arange(len(scores)), mated] = 1
    return labels.ravel(), scores.ravel()


def auc(scores: Floats, mated: np.ndarray) -> list[float]:
    """ROC AUC, as one would write it."""
    return [float(roc_auc_score(*pooled(scores, mated)))]


def det(scores: Floats, mated: np.ndarray) -> list[float]:
    """FNMR at nine FMRs, as one would write it."""
    fmr, tmr, _ = roc_curve(*pooled(scores, mated))
    return [1 - tmr[fmr <= target].max() for target in FMRS]


def point(scores: Floats, mated: np.ndarray) -> list[float]:
    """FNMR and FMR at a threshold fixed beforehand, as one would write it."""
    labels, values = pooled(scores, mated)
    accepted = values > THRESHOLD
    return [float((~accepted[labels == 1]).mean()), float(accepted[labels == 0].mean())]


def sets(scores: Floats, mated: np.ndarray) -> list[float]:
    """Shares of small anonymity sets and their quartiles, as one would write it."""
    size = (scores >= scores[np.arange(len(scores)), mated][:, None]).sum(axis=1)
    small = [float((size < k).mean()) for k in (2, 5, 10, 20)]
    return [*small, *np.quantile(size, [0.25, 0.5, 0.75]).tolist()]


def d_sys(scores: Floats, mated: np.ndarray) -> list[float]:
    """Linkability, as one would write it."""
    labels, values = pooled(scores, mated)
    edges = np.linspace(values.min(), values.max(), 31)
    f, _ = np.histogram(values[labels == 1], edges, density=True)
    g, _ = np.histogram(values[labels == 0], edges, density=True)
    local = np.maximum(0, np.divide(f - g, f + g, out=np.zeros_like(f), where=f + g > 0))
    return [float((local * f).sum() * (edges[1] - edges[0]))]


def named(scores: Floats, mated: np.ndarray) -> list[float]:
    """DIR at FPIR of 1 % and 10 %, as one would write it."""
    best, first = scores.max(axis=1), scores.argmax(axis=1)
    known = mated != NOT_ENROLLED
    fpir, _, threshold = roc_curve(known, best, drop_intermediate=False)
    right = best[known & (first == mated)]
    return [float((right >= threshold[fpir <= t].min()).sum() / known.sum()) for t in (0.01, 0.1)]


FMRS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
THRESHOLD = 2.33


def plain_loop(
    number: Callable[[Floats, np.ndarray], list[float]],
    evidence: Identification | OpenSet,
    resamples: int,
) -> Floats:
    """Percentile intervals by resampling people in a Python loop."""
    rng = np.random.default_rng(0)
    people = np.unique(evidence.subject)
    rows_of = {p: np.flatnonzero(evidence.subject == p) for p in people}
    replicates = []
    for _ in range(resamples):
        drawn = rng.choice(people, size=len(people))
        rows = np.concatenate([rows_of[p] for p in drawn])
        replicates.append(number(evidence.scores[rows], evidence.mated[rows]))
    return np.quantile(replicates, [0.025, 0.975], axis=0)


# CPU time, not wall time: the ratio then holds on a machine that is busy with something else.
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(
    ("metric", "number", "loop_share", "least"),
    [
        pytest.param(IdentificationRates((1, 5, 10)), ranks, 0.2, 50, id="rank-k"),
        # The whole loop takes most of a minute, so a fiftieth of it is timed.
        pytest.param(Verification((0.01, 0.001)), auc, 0.02, 50, id="roc"),
        pytest.param(ErrorTradeoff(FMRS), det, 0.02, 50, id="det"),
        pytest.param(OperatingPoint((0.01,)), point, 0.1, 50, id="operating-point"),
        pytest.param(AnonymitySets((2, 5, 10, 20)), sets, 0.1, 8, id="k-anonymity"),
        pytest.param(Linkability(1.0, 100, 1), d_sys, 0.1, 50, id="linkability"),
        pytest.param(OpenSetRates((0.01, 0.1)), named, 0.1, 10, id="open-set"),
    ],
)
def test_bootstrap_against_a_python_loop(
    benchmark: BenchmarkFixture,
    metric: Metric,
    number: Callable[[Floats, np.ndarray], list[float]],
    loop_share: float,
    least: float,
) -> None:
    """2,000 clustered resamples are `least` times as fast at least, and yield as many numbers.

    Ours: BCa intervals. The loop: percentile intervals of the same numbers, or of AUC alone.
    """
    evidence = open_trial() if isinstance(metric, OpenSetRates) else trial()
    rows = metric.rows(evidence)
    outputs, chance = metric.outputs(evidence), metric.chance(evidence)
    benchmark.pedantic(
        bootstrap,
        args=(metric, rows, evidence.subject, outputs, chance),
        kwargs={"resamples": RESAMPLES},
        rounds=7,
        warmup_rounds=1,
    )
    loops = []
    for _ in range(3):
        start = time.process_time()
        plain_loop(number, evidence, round(RESAMPLES * loop_share))
        loops.append((time.process_time() - start) / loop_share)
    ratio = min(loops) / benchmark.stats.stats.min
    benchmark.extra_info["loop_seconds"] = min(loops)
    benchmark.extra_info["ratio"] = ratio
    print(f"\nloop {min(loops):.2f} s, bootstrap {benchmark.stats.stats.min:.4f} s: {ratio:.0f}x")
    assert ratio >= least


ROWS = 8


def hits(rows: int) -> tuple[Floats, np.ndarray]:
    """(N, rows) rank-1 hits with means from .2 to .6, and the identity of each probe."""
    rng = np.random.default_rng(0)
    found = rng.random((PEOPLE * PER, rows)) < np.linspace(0.2, 0.6, rows)
    return found.astype(float), np.repeat(np.arange(PEOPLE), PER)


def pairwise(rows: Floats, subject: np.ndarray, flips: int) -> np.ndarray:
    """Which pairs differ, by SciPy's permutation test of each pair and statsmodels' Holm."""
    people = np.stack([rows[subject == s].sum(axis=0) for s in np.unique(subject)])
    p = [
        permutation_test(
            (people[:, i], people[:, j]),
            lambda a, b, axis: (a - b).sum(axis),
            permutation_type="samples",
            n_resamples=flips,
            vectorized=True,
            rng=0,
        ).pvalue
        for i in range(rows.shape[1])
        for j in range(i)
    ]
    return np.asarray(multipletests(p, 0.05, "holm")[0])


@pytest.mark.benchmark(timer=time.process_time)
def test_rank_intervals_against_scipy(benchmark: BenchmarkFixture) -> None:
    """Rank intervals of 8 rows are 100 times as fast as SciPy's test of each of the 28 pairs."""
    rows, subject = hits(ROWS)
    benchmark.pedantic(rank_intervals, args=(rows, subject), rounds=5, warmup_rounds=1)
    start = time.process_time()
    pairwise(rows, subject, FLIPS // 10)
    loop = 10 * (time.process_time() - start)
    ratio = loop / benchmark.stats.stats.min
    benchmark.extra_info["ratio"] = ratio
    print(f"\nscipy {loop:.2f} s, ours {benchmark.stats.stats.min:.4f} s: {ratio:.0f}x")
    assert ratio >= 100


@pytest.mark.benchmark(timer=time.process_time)
def test_worst_case_against_a_python_loop(benchmark: BenchmarkFixture) -> None:
    """The interval of the worst of 5 attacks is 4 times as fast as resampling in a loop."""
    rows, subject = hits(5)
    benchmark.pedantic(max_over_attacks, args=(rows, subject), rounds=5, warmup_rounds=1)
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(subject == s) for s in range(PEOPLE)]
    start = time.process_time()
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rows_of[s] for s in rng.integers(PEOPLE, size=PEOPLE)])
        rows[drawn].mean(axis=0).max()
    loop = time.process_time() - start
    ratio = loop / benchmark.stats.stats.min
    benchmark.extra_info["ratio"] = ratio
    print(f"\nloop {loop:.3f} s, ours {benchmark.stats.stats.min:.4f} s: {ratio:.1f}x")
    assert ratio >= 4
