"""Speed of what `contrastive-reid` can also do: hard negatives, several draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from privbench.types import ImageSet
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.embedding import CosineScorer, Embedder
from privbench_plugins.attacks.losses import contrastive_loss
from privbench_plugins.attacks.start import create

CPU = torch.device("cpu")


def photos(count: int, side: int = 32) -> ImageSet:
    """Noise, four photos a person."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, np.arange(count) // 4, tuple(map(str, range(count))))


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="contrastive-reid")
def test_hard_negatives_beat_a_loop_over_anchors(benchmark: BenchmarkFixture) -> None:
    """Forward and backward of the loss of 256 views, against one anchor at a time."""
    rows = F.normalize(torch.randn(256, 128)).requires_grad_(True)
    groups = torch.arange(256) % 64
    positives = groups[:, None] == groups[None]

    def loop() -> None:
        losses = []
        for i in range(len(rows)):
            s = (rows @ rows[i]) / 0.1
            same = positives[i].clone()
            same[i] = False
            weight = torch.softmax(0.5 * s[~positives[i]], 0) * (~positives[i]).sum()
            below = (weight * s[~positives[i]].exp()).sum() + s[same].exp().sum()
            losses.append((below.log() - s[same]).mean())
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]

    def whole() -> None:
        contrastive_loss(rows, positives, 0.1, 0.5).backward()  # type: ignore[no-untyped-call]

    loop()
    benchmark(whole)
    ratio = seconds(loop) / benchmark.stats["mean"]
    benchmark.extra_info["times the loop"] = ratio
    assert ratio > 3


@pytest.mark.benchmark(group="contrastive-reid")
def test_pooled_draws_beat_one_image_at_a_time(benchmark: BenchmarkFixture) -> None:
    """Four draws of 64 probes against 256 references, against the loop over images and draws."""
    embedder = Embedder(create(ContrastiveConfig(backbone="tiny"), 0).eval(), CPU, False, 64)
    gallery = embedder(photos(256).pixels, False)
    scorer = CosineScorer(embedder, False, gallery, False, None)
    draws = [photos(64)] * 4
    benchmark(scorer.score_draws, draws)
    alone = replace(embedder, batch=1)

    def loop() -> None:
        for i in range(64):
            rows = [alone(draw.pixels[i : i + 1], True) for draw in draws]
            F.normalize(torch.stack(rows).mean(0)) @ gallery.T

    ratio = seconds(loop) / benchmark.stats["mean"]
    benchmark.extra_info |= {"images/s": 256 / benchmark.stats["mean"], "times the loop": ratio}
    assert ratio > 1.2
