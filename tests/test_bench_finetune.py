"""Speed of `ldm-finetune` against the loop of diffusers' own training example, and its pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader

from privbench.types import ImageSet
from privbench_plugins.anonymizers import finetune
from privbench_plugins.anonymizers._finetune.lessons import prepare
from privbench_plugins.anonymizers._finetune.networks import load
from privbench_plugins.anonymizers._finetune.training import FineTuner
from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig
from privbench_plugins.models import resolve

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
IMAGES = 64
CAPTION = "a photo of a person"
SIZE = (128, 128)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def portraits() -> ImageSet:
    """Noise in the shape of photographs."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, *SIZE), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, np.arange(IMAGES), tuple(map(str, range(IMAGES))))


def pipeline() -> Any:
    """diffusers' own, in float32."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        resolve("tiny-faces"), torch_dtype=torch.float32, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plain_epoch(images: ImageSet, config: LdmFinetuneConfig) -> Callable[[], None]:
    """An epoch of `examples/text_to_image/train_text_to_image.py` of diffusers: float32, images and
    captions encoded in every step."""
    pipe = pipeline()
    schedule = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    for frozen in (pipe.vae, pipe.text_encoder):
        frozen.requires_grad_(False)
    pipe.unet.train()
    optimizer = torch.optim.AdamW(pipe.unet.parameters(), lr=config.learning_rate)
    ids = pipe.tokenizer(CAPTION, padding="max_length", return_tensors="pt").input_ids[0]
    samples = [{"pixel_values": x / 127.5 - 1, "input_ids": ids} for x in images.pixels.float()]
    loader: Any = DataLoader(samples, batch_size=config.batch, shuffle=True)  # type: ignore[arg-type]

    def step(batch: dict[str, torch.Tensor]) -> None:
        latents = pipe.vae.encode(batch["pixel_values"]).latents
        noise = torch.randn_like(latents)
        times = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),))
        noisy = schedule.add_noise(latents, noise, times)
        text = pipe.text_encoder(batch["input_ids"])[0]
        predicted = pipe.unet(noisy, times, text, return_dict=False)[0]
        loss = F.mse_loss(predicted, schedule.get_velocity(latents, noise, times))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pipe.unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def epoch() -> None:
        for batch in loader:
            step(batch)

    return epoch


@pytest.mark.benchmark(group="ldm-finetune", timer=time.process_time)
def test_training_beats_the_example_loop(benchmark: BenchmarkFixture) -> None:
    """An epoch with the same model, loss, optimiser, number type and size of batch."""
    images, config = portraits(), LdmFinetuneConfig(caption=CAPTION)
    model = load(config, guided=True).to(CPU, torch.float32)
    encoding = seconds(lambda: prepare(config, model, images))
    lessons = prepare(config, model, images)
    tuner = FineTuner(config, model.unet, model.scheduler, lessons, 0)
    loop = plain_epoch(images, config)
    loop()
    plain = min(seconds(loop) for _ in range(3))
    benchmark.pedantic(tuner.epoch, (lambda done: None,), rounds=3, warmup_rounds=1)
    ratio = plain / benchmark.stats["min"]
    benchmark.extra_info |= {
        "images/s": IMAGES / benchmark.stats["min"],
        "images encoded/s, once": IMAGES / encoding,
        "times the loop": ratio,
    }
    assert ratio > 1.1


@pytest.mark.benchmark(group="ldm-finetune", timer=time.process_time)
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_sampling_keeps_up_with_the_pipeline(benchmark: BenchmarkFixture, guidance: float) -> None:
    """At the pipeline's best, a batch of the same size; and against one image at a time."""
    config = LdmFinetuneConfig(guidance_scale=guidance, steps=10)
    target = finetune.build(config).restore({}, CPU)
    assert target is not None
    seeds, pipe = list(range(config.batch_size)), pipeline()

    def sample(count: int) -> None:
        pipe(
            [config.prompt] * count,
            num_inference_steps=config.steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[:count]],
            output_type="pt",
        )

    sample(len(seeds))
    plain = min(seconds(lambda: sample(len(seeds))) for _ in range(2))
    one = min(seconds(lambda: sample(1)) for _ in range(2)) * len(seeds)
    benchmark.pedantic(target.sample, (seeds, SIZE), rounds=2, warmup_rounds=1)
    best = benchmark.stats["min"]
    benchmark.extra_info |= {
        "images/s": len(seeds) / best,
        "times the pipeline": plain / best,
        "times the pipeline one by one": one / best,
    }
    assert plain / best > 0.95
