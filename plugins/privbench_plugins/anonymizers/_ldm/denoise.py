"""The denoising loop: that of the diffusers pipelines, with what a source adds as an argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Steer = Callable[[Tensor, Tensor, Mapping[str, Any]], Mapping[str, Any]]
"""(model input, time step, text inputs) -> further keyword arguments of the UNet.

How a source image steers the denoiser: a ControlNet or an adapter returns residuals.
"""


def unsteered(sample: Tensor, step: Tensor, text: Mapping[str, Any]) -> Mapping[str, Any]:
    """No steering: a sample of the model alone."""
    return {}


def unfinished(samples: Tensor) -> Tensor:
    """The samples as they are."""
    return samples


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Sampling that starts from a source (SDEdit, Meng et al. 2022).

    Attributes:
        latents: (N, C, h, w) float32.
        strength: share of the steps that are done, in (0, 1].
    """

    latents: Tensor
    strength: float


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Latents that are kept (RePaint's replacement, as the inpainting pipelines do it).

    Attributes:
        latents: (N, C, h, w) float32, what is kept.
        hidden: (N, 1, h, w) float32, 1 where the sample is new, 0 where `latents` are kept.
    """

    latents: Tensor
    hidden: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """All that a batch of sources does to its sampling; per-image work is done already.

    Attributes:
        steer: residuals of a ControlNet or an adapter.
        start: where sampling starts, or None for pure noise.
        beside: (N, c, h, w) float32 further input channels of an inpainting UNet, or None.
        kept: latents that are kept, or None.
        text: text inputs of each image, as `Text.inputs` makes them, or None for the one prompt.
        finish: (N, 3, H, W) samples at the sources' size -> what is released.
    """

    steer: Steer = unsteered
    start: Start | None = None
    beside: Tensor | None = None
    kept: Kept | None = None
    text: Mapping[str, Any] | None = None
    finish: Callable[[Tensor], Tensor] = unfinished

    @property
    def only_steers(self) -> bool:
        """Whether residuals are all that the sources add."""
        others = (self.start, self.beside, self.kept, self.text)
        return self.finish is unfinished and all(other is None for other in others)


def noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """(N, *shape) float32 normal noise on the CPU, row i from generator i alone."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def denoise(
    unet: Any,
    scheduler: Any,
    latents: Tensor,
    steps: int,
    text: Mapping[str, Any],
    guidance_scale: float,
    course: Course,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Turn noise into latents.

    Args:
        unet: UNet2DConditionModel.
        scheduler: diffusers scheduler; its step counters are reset here.
        latents: (N, C, h, w) float32 standard normal noise.
        steps: number of denoising steps.
        text: `Text.inputs(N)`; twice N rows ask for classifier-free guidance.
        guidance_scale: weight of the prompt against the negative prompt.
        course: what the sources add. Its `text` and `finish` are the caller's business.
        generators: one per image, for schedulers that add noise.

    Returns:
        (N, C, h, w) float32.
    """
    dtype: torch.dtype = unet.dtype
    guided = len(text["encoder_hidden_states"]) == 2 * len(latents)
    options = _step_options(scheduler, generators)
    noise, (times, latents) = latents, _begin(scheduler, latents, steps, course.start)
    for index, t in enumerate(times):
        doubled = torch.cat([latents, latents]) if guided else latents
        sample = scheduler.scale_model_input(doubled, t)
        steered = sample.to(dtype, memory_format=torch.channels_last)
        residuals = course.steer(steered, t, text)
        if course.beside is not None:
            beside = torch.cat([course.beside, course.beside]) if guided else course.beside
            steered = torch.cat([sample, beside], 1).to(dtype, memory_format=torch.channels_last)
        predicted = unet(steered, t, **text, **residuals, return_dict=False)[0].float()
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + guidance_scale * (with_prompt - without)
        latents = scheduler.step(predicted, t, latents, **options, return_dict=False)[0]
        if course.kept is not None:
            latents = _restore(scheduler, latents, course.kept, noise, times[index + 1 : index + 2])
    return latents


def skipped_steps(steps: int, strength: float) -> int:
    """How many of the steps an img2img sampling leaves out; at least one is done."""
    return steps - max(1, min(int(steps * strength), steps))


def _begin(scheduler: Any, noise: Tensor, steps: int, start: Start | None) -> tuple[Tensor, Tensor]:
    """The time steps and the latents that the first of them is given."""
    scheduler.set_timesteps(steps, device=noise.device)
    if start is None:
        return scheduler.timesteps, noise * scheduler.init_noise_sigma
    first = skipped_steps(steps, start.strength) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    times = scheduler.timesteps[first:]
    return times, scheduler.add_noise(start.latents, noise, times[:1])


def _restore(scheduler: Any, latents: Tensor, kept: Kept, noise: Tensor, then: Tensor) -> Tensor:
    """The latents with the kept ones put back, at the noise of the next step; `then` (1,) or ()."""
    back = scheduler.add_noise(kept.latents, noise, then) if len(then) else kept.latents
    return (1 - kept.hidden) * back + kept.hidden * latents


def _step_options(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if "generator" in accepted else {}
