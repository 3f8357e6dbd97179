"""Batches of images through a guided latent diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from privbench.errors import ModelError
from privbench.types import ImageBatch
from privbench_plugins.anonymizers._ldm.denoise import denoise, noise
from privbench_plugins.anonymizers._ldm.guides import Guide
from privbench_plugins.anonymizers._ldm.loading import DTYPES, Diffuser
from privbench_plugins.anonymizers._ldm.memory import AT_ONCE, Fit, in_pieces
from privbench_plugins.anonymizers._ldm.pixels import resize


class LatentAnonymizer:
    """Releases one sample per image.

    Every batch has the same shape: the last one is padded, so that on one machine an image's
    result does not depend on the batch, bit for bit. Noise comes from CPU generators in
    float32, so that a seed means the same on every device.
    """

    def __init__(
        self,
        model: Diffuser,
        guide: Guide,
        *,
        steps: int,
        guidance_scale: float,
        dtype: str,
        batch_size: int,
        denoised: Fit | None = None,
        decoded: Fit | None = None,
    ) -> None:
        self._model, self._guide = model, guide
        self._settings: dict[str, Any] = {
            "steps": steps,
            "guidance_scale": guidance_scale,
            "dtype": dtype,
        }
        self._batch_size = batch_size
        self._denoised = denoised or Fit(batch_size)
        slices = max(1, AT_ONCE // model.resolution**2)
        self._decoded = decoded or Fit(min(slices, batch_size))

    @property
    def batch_size(self) -> int:
        """Images denoised at once here; smaller than asked for once memory has run out."""
        return self._denoised.on(self.device)

    @property
    def resolution(self) -> int:
        """Side of the square at which the model works, in pixels."""
        return self._model.resolution

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._model.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the networks."""
        return self._model.dtype

    def to(self, device: torch.device | str) -> LatentAnonymizer:
        """The anonymizer on another device; the networks move, so use the new object only."""
        place = torch.device(device)
        dtype = resolve_dtype(self._settings["dtype"], place)
        return LatentAnonymizer(
            self._model.to(place, dtype),
            self._guide.to(place, dtype),
            **self._settings,
            batch_size=self._batch_size,
            denoised=self._denoised,
            decoded=self._decoded,
        )

    def condition(self, batch: ImageBatch) -> Tensor | None:
        """What the model sees of each source, such as its edges.

        Returns:
            (N, 3, R, R) float32 in [0, 1] at the model's resolution, or None if the source
            is ignored.
        """
        return self._guide.condition(self._fit(batch.pixels))

    @torch.inference_mode()
    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """One sample per image.

        Args:
            batch: N images.
            seeds: one per image; all of image i's noise comes from `seeds[i]`.

        Returns:
            (N, 3, H, W) float32 in [0, 1] on the model's device.

        Raises:
            ModelError: not even one image fits into the GPU's memory.
        """
        if len(seeds) != len(batch):
            raise ValueError(f"Expected {len(batch)} seeds, one per image. Got {len(seeds)}.")
        if self.device.type == "meta":
            raise ModelError("Random weights are made on the device: call `.to(device)` first.")
        if not len(batch):
            return batch.pixels.clone()

        def samples(start: int, size: int) -> Tensor:
            part = slice(start, start + size)
            return self._samples(batch.pixels[part], seeds[part], size)

        try:
            return in_pieces(len(batch), self._denoised, self.device, samples)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"One image of {self.resolution} pixels does not fit into the memory of "
                f"{self.device}. Lower resolution=, or set dtype=float16."
            ) from error

    def _samples(self, pixels: Tensor, seeds: Sequence[int], size: int) -> Tensor:
        """(n, 3, H, W) samples for n <= size images, computed at exactly `size` rows."""
        n, _, height, width = pixels.shape
        rows = [min(i, n - 1) for i in range(size)]
        generators = [torch.Generator().manual_seed(seeds[i]) for i in rows]
        model, given = self._model, pixels[rows].to(self.device)
        course = self._guide.course(given, model, model.text.guided)
        latents = denoise(
            model.unet,
            model.scheduler,
            noise(model.latent_shape, generators).to(model.device),
            self._settings["steps"],
            course.text or model.text.inputs(size),
            self._settings["guidance_scale"],
            course,
            generators,
        )
        return course.finish(resize(self._decode(latents), height, width))[:n]

    def _decode(self, latents: Tensor) -> Tensor:
        """Pixels of latents, in slices of one shape (the last one padded, like a batch)."""
        total = len(latents)

        def pixels(start: int, size: int) -> Tensor:
            rows = torch.arange(start, start + min(size, total)).clamp_(max=total - 1)
            return self._model.decode(latents[rows.to(latents.device)])[: total - start]

        return in_pieces(total, self._decoded, self.device, pixels)

    def _fit(self, pixels: Tensor) -> Tensor:
        return resize(pixels.to(self.device), self.resolution, self.resolution)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number type that `auto` stands for on a device: float16 on a GPU, else float32."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[name]
