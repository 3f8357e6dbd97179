"""Speed of gray-box attacks with `tiny-faces`, against asking image by image."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from graybox_kit import view
from privbench.spec import PluginSpec
from privbench.types import ImageSet
from privbench_plugins.anonymizers._ldm.folders import find_pipeline
from privbench_plugins.anonymizers._ldm.loading import load_diffuser
from privbench_plugins.attacks.membership import cdi, loss, pia, secmi

pytestmark = pytest.mark.usefixtures("one_thread")

SPECS = [spec for module in (loss, secmi, pia, cdi) for spec in module.SPECS]


class TinyFaces:
    """`tiny-faces` as it is."""

    def __init__(self) -> None:
        found = find_pipeline("tiny-faces", "", "", 0)
        model = load_diffuser(found, "a portrait photo of a person", "", False, "keep")
        self.model = model.to(torch.device("cpu"), torch.float32)
        self.alphas = model.scheduler.alphas_cumprod.double().numpy()

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """See `Denoiser.encode`."""
        return self.model.encode(pixels.float().div(255))

    @torch.no_grad()
    def predict(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """See `Denoiser.predict`."""
        alpha = self.model.scheduler.alphas_cumprod[levels].view(-1, 1, 1, 1)
        given = noisy.contiguous(memory_format=torch.channels_last)
        text = self.model.text.inputs(len(noisy))
        velocity: Tensor = self.model.unet(given, levels, return_dict=False, **text)[0]
        return alpha.sqrt() * velocity + (1 - alpha).sqrt() * noisy


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call: other processes count for less than in wall-clock time."""
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.benchmark(group="membership-graybox")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_blocks_beat_image_by_image(benchmark: BenchmarkFixture, spec: PluginSpec) -> None:
    """32 images in blocks of the default size against a loop of single images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 3, 128, 128), dtype=torch.uint8, generator=generator)
    images = ImageSet(pixels, np.arange(32), tuple(map(str, range(32))))
    denoiser = TinyFaces()
    blocks, single = (
        spec.build(spec.config(**given)).train(view(denoiser)) for given in ({}, {"batch": 1})
    )

    def loop() -> None:
        for i in range(len(images)):
            single.score(images.take([i]))

    blocks.score(images)
    benchmark.pedantic(blocks.score, (images,), rounds=1)
    ours = min(seconds(lambda: blocks.score(images)) for _ in range(2))
    ratio = seconds(loop) / ours
    benchmark.extra_info |= {"images/s": len(images) / ours, "times the loop": ratio}
    assert ratio > 1.2
