"""What can be asked of a model: samples, and its noise predictions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from privbench.errors import ModelError
from privbench_plugins.anonymizers._finetune.denoiser import LatentDenoiser
from privbench_plugins.anonymizers._finetune.networks import writer_of
from privbench_plugins.anonymizers._ldm.anonymizer import resolve_dtype
from privbench_plugins.anonymizers._ldm.denoise import Course, denoise, noise
from privbench_plugins.anonymizers._ldm.loading import Diffuser, quiet
from privbench_plugins.anonymizers._ldm.memory import AT_ONCE, Fit, in_pieces
from privbench_plugins.anonymizers._ldm.pixels import resize

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig


class LatentTarget:
    """A latent diffusion model under attack.

    Every batch has the same shape: the last one is padded, so that on one machine an image does
    not depend on the others, bit for bit. Noise comes from CPU generators in float32.
    """

    def __init__(self, config: LdmFinetuneConfig, model: Diffuser, device: torch.device) -> None:
        self._config = config
        self._exact = model.to(device, torch.float32)
        dtype = resolve_dtype(config.dtype, device)
        self._model = self._exact if dtype == torch.float32 else _copy(self._exact, device, dtype)
        self._fit = Fit(config.batch_size)
        self._decoded = Fit(max(1, min(AT_ONCE // model.resolution**2, config.batch_size)))

    @torch.no_grad()
    def sample(
        self, seeds: Sequence[int], size: tuple[int, int], prompts: Sequence[str] | None = None
    ) -> Tensor:
        """Fresh images.

        Args:
            seeds: one 63-bit seed per image; all randomness of image i comes from `seeds[i]`.
            size: (height, width) in pixels.
            prompts: one per image; None: that of the release.

        Returns:
            (n, 3, H, W) float32 in [0, 1] on the model's device.

        Raises:
            ModelError: not even one image fits into the GPU's memory.
        """
        if prompts is not None and len(prompts) != len(seeds):
            raise ValueError(f"Expected {len(seeds)} prompts, one per seed. Got {len(prompts)}.")
        model, total = self._model, len(seeds)
        if not total:
            return torch.zeros(0, 3, *size, device=model.device)

        def samples(start: int, count: int) -> Tensor:
            rows = [min(row, total - 1) for row in range(start, start + count)]
            latents = self._latents(
                [seeds[r] for r in rows], prompts and [prompts[r] for r in rows]
            )
            return resize(self._decode(latents), *size)[: total - start]

        try:
            return in_pieces(total, self._fit, model.device, samples)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"One image of {model.resolution} pixels does not fit into the memory of "
                f"{model.device}. Lower resolution=, or set dtype=float16."
            ) from error

    def denoiser(self) -> LatentDenoiser:
        """Its noise predictions, in float32."""
        return LatentDenoiser(self._exact, self._config.batch_size)

    def save(self, folder: Path) -> None:
        """Write the model as a diffusers folder, in float32 safetensors."""
        with quiet():
            writer_of(self._exact).pipe.save_pretrained(folder, safe_serialization=True)

    def _latents(self, seeds: Sequence[int], prompts: Sequence[str] | None) -> Tensor:
        model = self._model
        with quiet():
            text = writer_of(model).inputs(prompts) if prompts else model.text.inputs(len(seeds))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return denoise(
            model.unet,
            model.scheduler,
            noise(model.latent_shape, generators).to(model.device),
            self._config.steps,
            text,
            self._config.guidance_scale,
            Course(),
            generators,
        )

    def _decode(self, latents: Tensor) -> Tensor:
        """Pixels of latents, in slices of one shape."""
        total = len(latents)

        def pixels(start: int, count: int) -> Tensor:
            rows = torch.arange(start, start + min(count, total)).clamp_(max=total - 1)
            return self._model.decode(latents[rows.to(latents.device)])[: total - start]

        return in_pieces(total, self._decoded, self._model.device, pixels)


def _copy(model: Diffuser, device: torch.device, dtype: torch.dtype) -> Diffuser:
    """A second model of another number type; the text encoders, which stay float32, are shared."""
    networks: dict[str, Any] = {
        name: copy.deepcopy(getattr(model, name)) for name in ("unet", "vae")
    }
    return replace(model, **networks).to(device, dtype)
