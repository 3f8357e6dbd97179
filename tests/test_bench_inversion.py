"""Speed of `inversion-unet` against the loops that a user would write."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from privbench_plugins.attacks.embedding import use_bfloat16
from privbench_plugins.attacks.inversion._unet import Restorer, create
from privbench_plugins.attacks.inversion._unet_net import Unet
from privbench_plugins.attacks.inversion._unet_training import Losses, Training
from privbench_plugins.attacks.inversion.choice import encoder_folder
from privbench_plugins.attacks.inversion.pairs import Pairs
from privbench_plugins.attacks.inversion.unet import UnetInversionConfig
from privbench_plugins.tiny_encoder import net

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIDE = 128
CONFIG = UnetInversionConfig()


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call: other processes count for less than in wall-clock time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def noise(count: int) -> Tensor:
    """(N, 3, 128, 128) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def plain_network() -> Unet:
    """The same network in PyTorch's default layout."""
    return create(CONFIG, 0).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


def plain_step(pixels: Tensor) -> Callable[[], None]:
    """One step in float32 with AdamW; losses written down as they read."""
    network, encoder = plain_network(), net.load(encoder_folder())
    encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), CONFIG.learning_rate)
    stages = torch.nn.ModuleList([encoder.body[:2], encoder.body[2:4], encoder.body[4:]])
    clear = released = pixels.float() / 255

    def features(x: Tensor) -> tuple[list[Tensor], Tensor]:
        x = F.interpolate(x, (80, 80), mode="bilinear", antialias=True)
        maps = [F.relu(encoder.stem_norm(encoder.stem((x - 0.5) * 4)))]
        for stage in stages:
            maps.append(stage(maps[-1]))
        squeezed = F.relu(encoder.squeeze_norm(encoder.squeeze(maps[-1]))).flatten(1)
        return maps[1:], F.normalize(encoder.head_norm(encoder.head(squeezed)))

    def step() -> None:
        rows = torch.randint(len(clear), (CONFIG.batch,))
        made = network(released[rows])
        maps, embedding = features(made)
        true_maps, true_embedding = features(clear[rows])
        loss = F.l1_loss(made, clear[rows])
        for a, b in zip(maps, true_maps, strict=True):
            distance = (F.normalize(a) - F.normalize(b)).square().sum(1).mean()
            loss = loss + CONFIG.perceptual / len(maps) * distance
        loss = loss + CONFIG.identity * (1 - (embedding * true_embedding).sum(1).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@pytest.mark.benchmark(group="inversion-unet")
def test_training_beats_a_plain_loop(benchmark: BenchmarkFixture) -> None:
    """Images a second of one step of the defaults, against float32 in the usual layout."""
    pixels = noise(2 * CONFIG.batch)
    pairs = Pairs(pixels, pixels[None], np.arange(len(pixels)))
    losses = Losses(net.load(encoder_folder()).requires_grad_(False), CONFIG)
    half = use_bfloat16("auto", CPU)
    training = Training(CONFIG, create(CONFIG, 0), losses, pairs, SIDE, 0, half, CPU)
    plain = plain_step(pixels)
    plain(), training.advance()
    benchmark.pedantic(training.advance, rounds=3)
    ours = min(seconds(training.advance) for _ in range(3))
    ratio = min(seconds(plain) for _ in range(3)) / ours
    benchmark.extra_info |= {"images/s": CONFIG.batch / ours, "times the loop": ratio}
    assert ratio > (1.2 if half else 0.8)


@pytest.mark.benchmark(group="inversion-unet")
def test_one_call_beats_image_by_image(benchmark: BenchmarkFixture) -> None:
    """64 releases in one call against a float32 loop over single images; both mean over the
    mirror image."""
    pixels = noise(64)
    restorer = Restorer(
        create(CONFIG, 0).eval(), SIDE, CONFIG.invert_batch, CPU, use_bfloat16("auto", CPU)
    )
    plain = plain_network().eval()

    @torch.no_grad()
    def loop() -> None:
        for image in pixels:
            x = image[None].float() / 255
            ((plain(x) + plain(x.flip(3)).flip(3)) / 2).clamp(0, 1)

    restorer(pixels)
    benchmark.pedantic(restorer, (pixels,), rounds=2)
    ours = min(seconds(lambda: restorer(pixels)) for _ in range(2))
    ratio = seconds(loop) / ours
    benchmark.extra_info |= {"images/s": len(pixels) / ours, "times the loop": ratio}
    assert ratio > 1.2
