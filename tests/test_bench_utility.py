"""Processor time of the utility metrics with intervals, 200 probes of 100 people, one thread.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from privbench.data import PROTOCOLS, load_part, split
from privbench.stats import bootstrap
from privbench.types import FittableMetric, ImageSet, Release
from privbench_plugins.datasets.synthfaces import SynthfacesConfig, build
from privbench_plugins.metrics import distances, fidelity, semantics, structure

SPECS = {s.id: s for s in (*fidelity.SPECS, *distances.SPECS, *semantics.SPECS, *structure.SPECS)}
MOST_SECONDS = 10.0  # for all of them together, on an idle core


@pytest.fixture(scope="module")
def parts() -> tuple[ImageSet, Release]:
    """Background, and blurred probes of the `quick` protocol."""
    data = build(SynthfacesConfig())
    rows = split(data, PROTOCOLS["quick"])
    probes = load_part(data, rows.probes)
    pictures = probes.pixels.numpy().transpose(0, 2, 3, 1)
    soft = np.stack([cv2.GaussianBlur(np.ascontiguousarray(x), (0, 0), 3) for x in pictures])
    shown = torch.from_numpy(soft).permute(0, 3, 1, 2).contiguous()
    released = ImageSet(shown, probes.subject, probes.keys)
    return load_part(data, rows.background), Release(probes, released, probes.subject)


def measure(name: str, background: ImageSet, evidence: Release) -> int:
    """Fit, rows, and numbers with 2,000 resamples."""
    spec = SPECS[name]
    metric = spec.build(spec.config())
    if isinstance(metric, FittableMetric):
        metric = metric.fit(background)
    rows = metric.rows(evidence)
    outputs, chance = metric.outputs(evidence), metric.chance(evidence)
    return len(bootstrap(metric, rows, evidence.subject, outputs, chance))


@pytest.mark.benchmark(timer=time.process_time)  # of one thread: the seconds of an idle core
@pytest.mark.parametrize("name", list(SPECS))
def test_one_metric(
    name: str, parts: tuple[ImageSet, Release], benchmark: BenchmarkFixture
) -> None:
    """Each metric takes less than half of what all of them may take."""
    if name == "detection":
        pytest.importorskip("dlib")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        background, evidence = parts
        args = (name, background, evidence)
        assert benchmark.pedantic(measure, args, rounds=1, warmup_rounds=0)
    finally:
        torch.set_num_threads(threads)
    assert benchmark.stats.stats.mean < MOST_SECONDS / 2
