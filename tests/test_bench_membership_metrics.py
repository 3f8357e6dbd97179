"""Speed of membership's intervals and of the power of set tests against plain loops.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.stats import ttest_ind
from sklearn.metrics import roc_auc_score, roc_curve

from privbench.settest import power
from privbench.stats import bootstrap
from privbench.types import Membership
from privbench_plugins.metrics._membership import MembershipRates

RESAMPLES = 2000
DRAWS = 1000
SIZES = (10, 50, 100, 500)


def trial() -> Membership:
    """1,100 members and as many others, one photo a person: the size of the paper's sets."""
    rng = np.random.default_rng(0)
    member = np.arange(2200) < 1100
    return Membership(
        rng.normal(size=2200) + 0.2 * member, member, np.arange(2200), rng.normal(size=500)
    )


def numbers(scores: np.ndarray, member: np.ndarray) -> list[float]:
    """AUC and the two TPRs, as one would write it."""
    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=False)
    return [float(roc_auc_score(member, scores)), *(tpr[fpr <= r].max() for r in (0.01, 0.001))]


@pytest.mark.benchmark(timer=time.process_time)
def test_bootstrap_against_a_python_loop(benchmark: BenchmarkFixture) -> None:
    """2,000 resamples of five numbers are five times as fast as three numbers in a loop."""
    evidence, metric = trial(), MembershipRates((0.01, 0.001), 0.01)
    rows = metric.rows(evidence)
    outputs, chance = metric.outputs(evidence), metric.chance(evidence)
    benchmark.pedantic(
        bootstrap,
        args=(metric, rows, evidence.subject, outputs, chance),
        kwargs={"resamples": RESAMPLES},
        rounds=3,
        warmup_rounds=1,
    )
    rng = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(RESAMPLES // 10):
        drawn = rng.integers(len(rows), size=len(rows))
        numbers(evidence.scores[drawn], evidence.member[drawn])
    loop = 10 * (time.process_time() - start)
    ratio = loop / benchmark.stats.stats.min
    benchmark.extra_info["ratio"] = ratio
    print(f"\nloop {loop:.2f} s, bootstrap {benchmark.stats.stats.min:.3f} s: {ratio:.1f}x")
    assert ratio >= 5


@pytest.mark.benchmark(timer=time.process_time)
def test_power_against_a_python_loop(benchmark: BenchmarkFixture) -> None:
    """1,000 draws of four sizes are 15 times as fast as SciPy's test in a loop."""
    evidence = trial()
    members, others = evidence.scores[evidence.member], evidence.scores[~evidence.member]
    benchmark.pedantic(power, args=(members, others, SIZES, DRAWS, 0), rounds=5, warmup_rounds=1)
    rng = np.random.default_rng(0)
    start = time.process_time()
    for n in SIZES:
        for _ in range(DRAWS // 10):
            sides = (rng.choice(side, n, replace=False) for side in (members, others))
            ttest_ind(*sides, equal_var=False, alternative="greater")
    loop = 10 * (time.process_time() - start)
    ratio = loop / benchmark.stats.stats.min
    benchmark.extra_info["ratio"] = ratio
    print(f"\nscipy {loop:.2f} s, ours {benchmark.stats.stats.min:.4f} s: {ratio:.0f}x")
    assert ratio >= 15
