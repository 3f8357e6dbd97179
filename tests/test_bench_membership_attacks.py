"""Speed of black-box attacks on membership against the loops that a user would write."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from privbench.types import UNKNOWN, ImageSet
from privbench_plugins.attacks.embedding import use_bfloat16
from privbench_plugins.attacks.membership._classifier import create
from privbench_plugins.attacks.membership._embedders import load_embedding
from privbench_plugins.attacks.membership._generated import (
    Labelled,
    Model,
    TrainedGenerated,
    batches,
    update,
)
from privbench_plugins.attacks.membership._nearest import nearest
from privbench_plugins.attacks.membership.generated import GeneratedConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
CONFIG = GeneratedConfig()


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call: other processes count for less than in wall-clock time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def noise(count: int, side: int = 128) -> Tensor:
    """(N, 3, S, S) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def own_model() -> Model:
    """As the attack makes it."""
    return Model(create(CONFIG, 0, use_bfloat16(CONFIG.dtype, CPU)), CPU, CONFIG.score_batch)


def plain_model() -> Model:
    """The same network in PyTorch's default layout, in float32."""
    network = create(CONFIG, 0, False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Model(network, CPU, CONFIG.score_batch)


def step_of(model: Model, fused: bool | None) -> Callable[[], None]:
    """One step of training on a batch."""
    optimizer = torch.optim.Adam(model.network.parameters(), 1e-3, fused=fused)
    train = Labelled(noise(CONFIG.batch, CONFIG.side), torch.arange(CONFIG.batch) % 2)

    def step() -> None:
        for batch in batches(train, CONFIG.batch, torch.Generator().manual_seed(0)):
            update(model, optimizer, *batch)

    return step


def test_a_step_of_training(benchmark: BenchmarkFixture) -> None:
    """No slower than ResNet-18 as a tutorial trains it: float32, default layout, plain Adam."""
    own, plain = step_of(own_model(), True), step_of(plain_model(), None)
    own()
    plain()
    ratio = min(seconds(plain) for _ in range(3)) / min(seconds(own) for _ in range(3))
    benchmark.extra_info["times faster"] = round(ratio, 2)
    benchmark(own)
    assert ratio > 0.9


def test_queries_are_scored_in_batches(benchmark: BenchmarkFixture) -> None:
    """Faster than the same networks asked image by image."""
    trained = TrainedGenerated({}, [own_model()], CONFIG.side)
    one = TrainedGenerated({}, [Model(m.network, CPU, 1) for m in trained.models], CONFIG.side)
    pixels = noise(2 * CONFIG.score_batch)
    queries = ImageSet(pixels, np.full(len(pixels), UNKNOWN), tuple(map(str, range(len(pixels)))))
    trained.score(queries)
    own = min(seconds(lambda: trained.score(queries)) for _ in range(2))
    loop = seconds(lambda: [one.score(queries.take([i])) for i in range(len(queries))])
    benchmark.extra_info["times faster"] = round(loop / own, 2)
    benchmark(lambda: trained.score(queries))
    assert loop > 1.2 * own


def test_the_nearest_sample(benchmark: BenchmarkFixture) -> None:
    """Much faster than a loop over queries that subtracts each from all samples."""
    generator = torch.Generator().manual_seed(0)
    samples, queries = (torch.rand(n, 3 * 64 * 64, generator=generator) for n in (300, 256))

    def loop() -> Tensor:
        return torch.stack([(samples - row).norm(dim=1).min() for row in queries])

    expected, slow = loop(), seconds(loop)
    torch.testing.assert_close(nearest(queries, samples), expected)
    fast = min(seconds(lambda: nearest(queries, samples)) for _ in range(3))
    benchmark.extra_info["times faster"] = round(slow / fast, 1)
    benchmark(lambda: nearest(queries, samples))
    assert slow > 4 * fast


def test_embedding(benchmark: BenchmarkFixture) -> None:
    """Zero-shot and regeneration embed: no slower than batches of one image."""
    whole, single = (load_embedding("tiny-encoder", batch, CPU) for batch in (64, 1))
    pixels = noise(128)
    whole(pixels)
    own = min(seconds(lambda: whole(pixels)) for _ in range(2))
    loop = seconds(lambda: [single(pixels[i : i + 1]) for i in range(len(pixels))])
    benchmark.extra_info["times faster"] = round(loop / own, 2)
    benchmark(lambda: whole(pixels))
    assert loop > own
