"""Speed of `contrastive-reid`. Skipped by `make test`, run by `make bench`."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from privbench.types import ImageSet
from privbench_plugins.attacks import pairs
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.embedding import Embedder, use_bfloat16
from privbench_plugins.attacks.start import create
from privbench_plugins.attacks.training import update

CPU = torch.device("cpu")


def photos(count: int) -> ImageSet:
    """Noise of the embedded data set's size, six photos a person."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 128, 128), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, np.arange(count) // 6, tuple(map(str, range(count))))


@pytest.mark.benchmark(group="contrastive-reid")
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_training_step(benchmark: BenchmarkFixture, dtype: str) -> None:
    """One step of the default attack (64 photos, 128 views), augmentation included."""
    config = ContrastiveConfig(backbone="tiny", dtype=dtype)  # type: ignore[arg-type]
    towers = create(config, 0)
    own = pairs.make_pairs(photos(240), [photos(240)], config.side, CPU)
    optimizer = torch.optim.AdamW(towers.parameters(), 1e-3)
    half = use_bfloat16(dtype, CPU)
    benchmark(lambda: update(config, 0, 0, towers, own, optimizer, half))
    benchmark.extra_info["views/s"] = 2 * config.batch / benchmark.stats["mean"]


@pytest.mark.benchmark(group="contrastive-reid")
def test_embedding_beats_one_image_at_a_time(benchmark: BenchmarkFixture) -> None:
    """Batched embedding against the loop over images that one would write by hand."""
    config = ContrastiveConfig(backbone="tiny")
    embedder = Embedder(create(config, 0).eval(), CPU, use_bfloat16("auto", CPU), 64)
    pixels = photos(256).pixels
    benchmark(embedder, pixels, True)
    alone = replace(embedder, bfloat16=False, batch=1)
    start = time.perf_counter()
    alone(pixels, True)
    ratio = (time.perf_counter() - start) / benchmark.stats["mean"]
    benchmark.extra_info |= {"images/s": 256 / benchmark.stats["mean"], "times the loop": ratio}
    assert ratio > 1.5
