"""Speed of `inversion-ldm` against the loop of diffusers' own training example."""

from __future__ import annotations

import time
from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from privbench_plugins.attacks.inversion import _ldm
from privbench_plugins.attacks.inversion._ldm_training import Training
from privbench_plugins.attacks.inversion.ldm import LdmInversionConfig
from privbench_plugins.attacks.inversion.pairs import Pairs
from privbench_plugins.models import resolve

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PAIRS = 32


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def noise(count: int) -> torch.Tensor:
    """(N, 3, 128, 128) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 128, 128), dtype=torch.uint8, generator=generator)


def plain_loop(clear: torch.Tensor, released: torch.Tensor, batch: int) -> Callable[[], None]:
    """One step of `examples/controlnet/train_controlnet.py` of diffusers: float32, photos and
    prompt encoded in every step."""
    folder = resolve("tiny-faces")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    schedule = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    network = diffusers.ControlNetModel.from_pretrained(resolve("tiny-faces-softedge")).float()
    for frozen in (pipe.vae, pipe.unet, pipe.text_encoder):
        frozen.requires_grad_(False)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    words = ["a portrait photo of a person"] * batch
    ids = pipe.tokenizer(words, padding="max_length", return_tensors="pt").input_ids

    def step() -> None:
        rows = torch.randint(len(clear), (batch,))
        latents = pipe.vae.encode(clear[rows] / 127.5 - 1).latents
        added = torch.randn_like(latents)
        times = torch.randint(0, schedule.config.num_train_timesteps, (batch,))
        noisy = schedule.add_noise(latents, added, times)
        text = pipe.text_encoder(ids)[0]
        down, middle = network(
            noisy, times, text, controlnet_cond=released[rows] / 255, return_dict=False
        )
        predicted = pipe.unet(
            noisy,
            times,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        loss = F.mse_loss(predicted, schedule.get_velocity(latents, added, times))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.benchmark(group="inversion-ldm", timer=time.process_time)
def test_training_beats_the_example_loop(benchmark: BenchmarkFixture) -> None:
    """The same ControlNet, model, loss and size of batch; so without the identity term."""
    clear, released = noise(PAIRS), noise(PAIRS)
    config = LdmInversionConfig(identity=0)
    model, network = _ldm.load(config, CPU)
    pairs = Pairs(clear, released[None], np.arange(PAIRS))
    training = Training(config, model, network, pairs, 0)
    loop = plain_loop(clear.float(), released.float(), config.batch)
    loop()
    plain = min(seconds(loop) for _ in range(3))
    benchmark.pedantic(training.advance, rounds=5, warmup_rounds=1)
    ratio = plain / benchmark.stats["min"]
    benchmark.extra_info |= {
        "images/s": config.batch / benchmark.stats["min"],
        "times the loop": ratio,
    }
    assert ratio > 1.2


@pytest.mark.benchmark(group="inversion-ldm", timer=time.process_time)
def test_one_call_beats_one_image_at_a_time(benchmark: BenchmarkFixture) -> None:
    """A sample of 32 releases in batches, against one by one."""
    released = noise(PAIRS)
    config = LdmInversionConfig()
    model, network = _ldm.load(config, CPU)
    painter = _ldm.Painter.of(config, model, network, 0)
    alone = _ldm.Painter.of(LdmInversionConfig(invert_batch=1), model, _ldm.load(config, CPU)[1], 0)

    def loop() -> None:
        for image in released:
            alone.paint(image[None], 0)

    painter.paint(released, 0)
    benchmark.pedantic(painter.paint, (released, 0), rounds=3)
    ratio = seconds(loop) / benchmark.stats["min"]
    benchmark.extra_info |= {"images/s": PAIRS / benchmark.stats["min"], "times the loop": ratio}
    assert ratio > 1.2
