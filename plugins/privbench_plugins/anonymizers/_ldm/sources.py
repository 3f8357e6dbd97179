"""Guides that use more of a source than a map of it: its latents, its background, its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from privbench.types import quantize
from privbench_plugins.anonymizers._ldm.denoise import Course, Kept, Start
from privbench_plugins.anonymizers._ldm.loading import Diffuser
from privbench_plugins.anonymizers._ldm.pixels import fill, resize

CAPTION: Final = "{caption}"
"""Where a prompt takes the caption of the source."""

Regions = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(N, H, W, 3) uint8 RGB -> (N, H, W) float32, above 0.5 where a face is; each image alone."""


@dataclass(frozen=True, slots=True)
class SourceGuide:
    """SDEdit (Meng et al. 2022): sampling starts from the noised source.

    Attributes:
        strength: share of the steps that are done, in (0, 1].
    """

    strength: float

    def condition(self, pixels: Tensor) -> Tensor:
        """The source itself."""
        return pixels

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """A start from each source's latents."""
        fitted = resize(pixels, model.resolution, model.resolution)
        return Course(start=Start(model.encode(fitted), self.strength))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class InpaintGuide:
    """The face is painted anew; the rest of the source stays.

    A pixel of the hidden region reaches neither the autoencoder nor the release: it is replaced
    before the source is resized. What the face itself decides is where the region lies.

    Attributes:
        regions: where the faces are.
        dilate: growth of a region, as a share of the image's shorter side.
        feather: width of the soft seam around the hidden region, likewise.
    """

    regions: Regions
    dilate: float
    feather: float

    def condition(self, pixels: Tensor) -> Tensor:
        """The source with the face in grey."""
        return torch.where(self._hidden(pixels)[0], 0.5, pixels)

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """New latents in the hidden region: by an inpainting UNet, or by replacement."""
        hidden, blend = self._hidden(pixels)
        side = model.resolution
        visible = resize(fill(pixels, hidden), side, side)
        fitted = F.adaptive_max_pool2d(_sized(hidden, side), side)
        latent = F.adaptive_max_pool2d(fitted, model.latent_shape[1:])

        def finish(samples: Tensor) -> Tensor:
            return torch.lerp(pixels, samples, blend)

        if model.inpaints:
            masked = model.encode(torch.where(fitted > 0, 0.5, visible))
            return Course(beside=torch.cat([latent, masked], 1), finish=finish)
        return Course(kept=Kept(model.encode(visible), latent), finish=finish)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Itself; faces are found on the CPU."""
        return self

    def _hidden(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, H, W): bool, what is hidden; float32, how much of the sample is released."""
        faces = self.regions(_bytes(pixels)) > 0.5
        maps = [cv2.distanceTransform((~f).astype(np.uint8), cv2.DIST_L2, 5) for f in faces]
        side = min(pixels.shape[-2:])
        away = torch.from_numpy(np.stack(maps)).to(pixels.device)[:, None] - self.dilate * side
        # One pixel at least: the seam is where the sample's weight falls from 1 to 0.
        ramp = (1 - away / max(self.feather * side, 1.0)).clamp(0, 1)
        return away <= 0, ramp * ramp * (3 - 2 * ramp)


@dataclass(frozen=True, slots=True, eq=False)
class CaptionGuide:
    """The source in words, and nothing else of it.

    Attributes:
        captioner: has `captions(pixels)`: (N, H, W, 3) uint8 RGB to N texts.
        prompt: holds `CAPTION`.
    """

    captioner: Any
    prompt: str

    def condition(self, pixels: Tensor) -> None:
        """No map."""
        return

    def prompts(self, pixels: Tensor) -> list[str]:
        """The prompt of each of (N, 3, H, W) sources in [0, 1]."""
        captions = self.captioner.captions(_bytes(pixels))
        return [self.prompt.replace(CAPTION, caption) for caption in captions]

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """Each image's own prompt, encoded once."""
        if model.writer is None:  # random weights, which only tell the time, read no words
            return Course()
        return Course(text=model.writer.inputs(self.prompts(pixels)))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same guide on another device."""
        return replace(self, captioner=self.captioner.to(device))


def _bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [0, 1] to (N, H, W, 3) uint8."""
    found: NDArray[np.uint8] = quantize(pixels).permute(0, 2, 3, 1).numpy()
    return found


def _sized(hidden: Tensor, side: int) -> Tensor:
    """A bool mask as float32, enlarged where it is smaller than the model's square."""
    height, width = (max(side, int(n)) for n in hidden.shape[-2:])
    return F.interpolate(hidden.float(), (height, width), mode="nearest")
