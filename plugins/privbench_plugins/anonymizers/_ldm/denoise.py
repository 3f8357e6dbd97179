"""The denoising loop: that of the diffusers pipelines, with its steering as an argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
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
    steer: Steer,
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
        steer: see `Steer`.
        generators: one per image, for schedulers that add noise.

    Returns:
        (N, C, h, w) float32.
    """
    dtype: torch.dtype = unet.dtype
    guided = len(text["encoder_hidden_states"]) == 2 * len(latents)
    options = _step_options(scheduler, generators)
    scheduler.set_timesteps(steps, device=latents.device)
    latents = latents * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        doubled = torch.cat([latents, latents]) if guided else latents
        sample = scheduler.scale_model_input(doubled, t).to(
            dtype, memory_format=torch.channels_last
        )
        predicted = unet(sample, t, **text, **steer(sample, t, text), return_dict=False)[0].float()
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + guidance_scale * (with_prompt - without)
        latents = scheduler.step(predicted, t, latents, **options, return_dict=False)[0]
    return latents


def _step_options(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": list(generators)} if "generator" in accepted else {}
