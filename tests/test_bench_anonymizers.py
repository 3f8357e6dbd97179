"""Throughput of `controlnet-canny` against the loop one would write with diffusers.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from privbench.types import ImageBatch, quantize
from privbench_plugins import models
from privbench_plugins.anonymizers.ldm import ControlNetCannyConfig, build_controlnet_canny
from privbench_plugins.conditions import canny

BAR = 2.5
ROUNDS = 2
PLAIN = 2


@pytest.mark.timeout(1200)
@pytest.mark.benchmark(group="anonymizers")
@pytest.mark.parametrize("guidance", [None, 1.5], ids=["default", "guided"])
def test_controlnet_canny_beats_the_plain_loop(
    benchmark: BenchmarkFixture, guidance: float | None
) -> None:
    """At the same settings and on the same threads: at least 2.5 times the images a second.

    The plain loop is an ordinary StableDiffusionControlNetPipeline, called for one image at a
    time with PIL images in and out. Both take turns, so that a busy machine slows both.
    """
    chosen = {} if guidance is None else {"guidance_scale": guidance}
    config = ControlNetCannyConfig(**chosen)
    pixels = torch.rand(config.batch_size, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(pixels, (128, 128), mode="bilinear")
    keys = tuple(str(i) for i in range(len(pixels)))
    batch = ImageBatch(pixels, np.full(len(pixels), -1), keys)
    ours = build_controlnet_canny(config)
    pipe = pipeline(models.resolve(config.model), models.resolve(config.controlnet))
    slow: list[float] = []

    def plain_loop() -> None:
        start = time.perf_counter()
        for i, image in enumerate(quantize(pixels[:PLAIN]).permute(0, 2, 3, 1).numpy()):
            edges = canny(image[None], config.low_threshold, config.high_threshold)[0]
            pipe(
                config.prompt,
                image=Image.fromarray(np.stack([edges] * 3, -1)),
                num_inference_steps=config.steps,
                guidance_scale=config.guidance_scale,
                controlnet_conditioning_scale=config.conditioning_scale,
                generator=torch.Generator().manual_seed(i),
            )
        slow.append((time.perf_counter() - start) / PLAIN)

    plain_loop()  # warm-up of both
    slow.clear()
    benchmark.pedantic(
        ours.anonymize,
        args=(batch, range(len(batch))),
        setup=plain_loop,
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    fast = benchmark.stats["min"] / len(batch)
    benchmark.extra_info |= {
        "images/s": round(1 / fast, 2),
        "plain images/s": round(1 / min(slow), 2),
        "times the plain loop": round(min(slow) / fast, 2),
        "threads": torch.get_num_threads(),
    }
    print(benchmark.extra_info)
    assert min(slow) / fast >= BAR


def pipeline(model: Path, controlnet: Path) -> StableDiffusionControlNetPipeline:
    """The ordinary pipeline, as its documentation loads it."""
    pipe = StableDiffusionControlNetPipeline.from_pretrained(
        model,
        controlnet=ControlNetModel.from_pretrained(controlnet, torch_dtype=torch.float32),
        torch_dtype=torch.float32,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
