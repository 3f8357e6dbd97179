"""Speed of the clustered bootstrap against the loop that one would write by hand.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.metrics import roc_auc_score

from privbench.stats import bootstrap
from privbench.types import Floats, Identification, Metric
from privbench_plugins.metrics._identification import IdentificationRates
from privbench_plugins.metrics._verification import Verification

RESAMPLES = 2000
PEOPLE, PER = 100, 3


def trial() -> Identification:
    """300 probes of 100 people."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(PEOPLE), PER)
    scores = rng.normal(size=(len(subject), PEOPLE))
    scores[np.arange(len(subject)), subject] += 1.5
    return Identification(scores, subject, subject)


def ranks(scores: Floats, mated: np.ndarray) -> list[float]:
    """Rank-1, rank-5, rank-10 and mAP, as one would write it."""
    true = scores[np.arange(len(scores)), mated]
    rank = (scores > true[:, None]).sum(axis=1) + 1
    return [*(float((rank <= k).mean()) for k in (1, 5, 10)), float((1 / rank).mean())]


def auc(scores: Floats, mated: np.ndarray) -> list[float]:
    """ROC AUC, as one would write it."""
    labels = np.zeros(scores.shape, dtype=int)
    labels[np.arange(len(scores)), mated] = 1
    return [float(roc_auc_score(labels.ravel(), scores.ravel()))]


def plain_loop(
    number: Callable[[Floats, np.ndarray], list[float]], evidence: Identification, resamples: int
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
    ("metric", "number", "loop_share"),
    [
        pytest.param(IdentificationRates((1, 5, 10)), ranks, 0.2, id="rank-k"),
        # The whole loop takes most of a minute, so a fiftieth of it is timed.
        pytest.param(Verification((0.01, 0.001)), auc, 0.02, id="roc"),
    ],
)
def test_bootstrap_against_a_python_loop(
    benchmark: BenchmarkFixture,
    metric: Metric,
    number: Callable[[Floats, np.ndarray], list[float]],
    loop_share: float,
) -> None:
    """2,000 clustered resamples are at least 50 times as fast, though they yield more numbers.

    Ours: BCa intervals of rank-1/5/10 and mAP, or of AUC, EER and two TARs. The loop: percentile
    intervals of the same four, or of AUC alone.
    """
    evidence = trial()
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
    assert ratio >= 50
