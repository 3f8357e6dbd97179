"""Speed of the inversions without gradients. Skipped by `make test`, run by `make bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import Ridge
from torch import Tensor

from privbench.progress import Silent
from privbench.types import AttackerView, ImageSet, quantize
from privbench_plugins.attacks.inversion._linear import fit
from privbench_plugins.attacks.inversion._optimise import TrainedOptimise
from privbench_plugins.attacks.inversion._optimise_latents import Autoencoder
from privbench_plugins.attacks.inversion.linear import LinearConfig
from privbench_plugins.attacks.inversion.optimise import OptimiseConfig, build
from privbench_plugins.attacks.inversion.pairs import Pairs

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def photos(count: int, side: int) -> ImageSet:
    """Smooth noise, four photos a person."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 16, 16, generator=generator)
    pixels = quantize(F.interpolate(coarse, (side, side), mode="bicubic"))
    return ImageSet(pixels, np.arange(count) // 4, tuple(f"{count}-{i}" for i in range(count)))


class Mosaic:
    """The oracle of a mosaic, which costs next to nothing."""

    queries = 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        cells = F.avg_pool2d(images.floats(), 4)
        return replace(images, pixels=quantize(F.interpolate(cells, scale_factor=4.0)))


def seconds(function: Callable[[], object]) -> float:
    """Processor time of one call: what else runs on the machine does not count."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(benchmark: BenchmarkFixture, ours: Callable[[], object], loop: float) -> float:
    """How many times faster `ours` is than what took so many seconds."""
    benchmark.pedantic(ours, rounds=3, warmup_rounds=1)
    times = loop / min(seconds(ours) for _ in range(2))
    benchmark.extra_info["times the plain way"] = times
    return times


@pytest.mark.benchmark(group="inversion-linear")
def test_patches_beat_a_ridge_on_raw_pixels(benchmark: BenchmarkFixture) -> None:
    """The fit in shared patches against `Ridge` from all released to all clear pixels."""
    train, validation = (
        Pairs(p.pixels, Mosaic()(p).pixels[None], p.subject)
        for p in (photos(256, 96), photos(16, 96))
    )
    config = LinearConfig(basis="patch", penalty=1e-5)
    x = train.released[0].flatten(1).float().div(255).numpy()
    y = train.clear.flatten(1).float().div(255).numpy()
    plain = seconds(lambda: Ridge(1e-5 * len(x)).fit(x, y))
    assert compare(benchmark, lambda: fit(config, train, validation, 0, CPU), plain) > 1.2


@pytest.mark.benchmark(group="inversion-optimise")
def test_searching_side_by_side_beats_image_by_image(benchmark: BenchmarkFixture) -> None:
    """Candidates of many images at once, in bfloat16 where it is native, against a loop over
    images in float32."""
    attacker = AttackerView(photos(48, 128), photos(8, 128), Mosaic(), 0, CPU, Silent())
    config = OptimiseConfig(queries_per_image=4, explore=0, margin=4, distance="pixels")
    trained = build(config).train(attacker)
    assert isinstance(trained, TrainedOptimise)
    release = Mosaic()(photos(64, 128))
    tools = trained.tools
    start = tools.begin([release])
    wanted = tools.reading(release.floats())
    network = Autoencoder.load("tiny-faces", "", CPU, torch.float32).network

    def one(row: int) -> Tensor:
        latents = start[row : row + 1]
        for _ in range(4):
            pixels = network.decode(latents, return_dict=False)[0].div(2).add(0.5).clamp(0, 1)
            image = ImageSet(quantize(pixels), np.zeros(1, np.int64), ("0",))
            padded = F.pad(Mosaic()(image).floats(), (4,) * 4, mode="replicate")
            read = F.conv2d(padded, tools.reading.weight, tools.reading.bias, 8)
            latents = latents + 0.7 * (wanted[row : row + 1] - read)
        return latents

    def loop() -> list[Tensor]:
        with torch.no_grad():
            return [one(row) for row in range(len(release))]

    one(0)
    times = compare(benchmark, lambda: list(tools.states([release], "pixels")), seconds(loop))
    benchmark.extra_info["candidates/s"] = 4 * len(release) / benchmark.stats["mean"]
    assert times > 1.2
