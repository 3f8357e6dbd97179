"""Speed of what publishing a record takes: its bundle, its curves, its verification.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.metrics import roc_curve

from privbench import bundle
from privbench.curves import RATES, curves
from privbench.registry import load_registry
from privbench.types import Identification
from privbench.verify import verify

RECORDS = sorted((Path(__file__).parents[1] / "leaderboard" / "records").glob("*.json.gz"))
PEOPLE, PER, RESAMPLES = 100, 2, 2000

pytestmark = pytest.mark.usefixtures("one_thread")


def trial() -> Identification:
    """200 probes of 100 people."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(PEOPLE), PER)
    scores = rng.normal(size=(len(subject), PEOPLE))
    scores[np.arange(len(subject)), subject] += 1.5
    return Identification(scores, subject, subject)


def by_hand(evidence: Identification, resamples: int) -> None:
    """Both curves of every resample of people, as one would write it with scikit-learn."""
    rng = np.random.default_rng(0)
    truth = np.arange(PEOPLE)[None, :] == evidence.mated[:, None]
    for _ in range(resamples):
        people = rng.integers(0, PEOPLE, PEOPLE)
        rows = np.concatenate([np.flatnonzero(evidence.subject == p) for p in people])
        true = evidence.scores[rows, evidence.mated[rows]]
        rank = (evidence.scores[rows] > true[:, None]).sum(axis=1) + 1
        [(rank <= k).mean() for k in range(1, PEOPLE + 1)]
        fmr, tmr, _ = roc_curve(truth[rows].ravel(), evidence.scores[rows].ravel())
        np.interp(RATES, fmr, tmr)


def test_curves(benchmark: BenchmarkFixture) -> None:
    """CMC and ROC with bands from 2,000 resamples, against a loop over resamples."""
    evidence = trial()
    benchmark(curves, evidence, RESAMPLES, 0)
    start = time.perf_counter()
    by_hand(evidence, 20)
    loop = (time.perf_counter() - start) / 20 * RESAMPLES
    benchmark.extra_info["against a loop"] = f"{loop / benchmark.stats['min']:.0f}x"


def test_bundle(benchmark: BenchmarkFixture) -> None:
    """Packing and unpacking what a record of `quick` rests on."""
    name = RECORDS[0].name.replace(".json.gz", bundle.SUFFIX)
    data = RECORDS[0].with_name(name).read_bytes()
    arrays = bundle.unpack(data, name)
    benchmark(lambda: bundle.unpack(bundle.pack(arrays), name))
    raw = sum(array.nbytes for array in arrays.values())
    benchmark.extra_info["size"] = f"{len(data) / raw:.0%} of the arrays"


def test_verification(benchmark: BenchmarkFixture) -> None:
    """All numbers of a published record anew."""
    registry = load_registry()
    verdict = benchmark.pedantic(lambda: verify(RECORDS[0], registry=registry), rounds=3)
    assert verdict.problems == ()
    record = RECORDS[0].stat().st_size
    benchmark.extra_info["record"] = f"{record / 2**10:.0f} KiB"
