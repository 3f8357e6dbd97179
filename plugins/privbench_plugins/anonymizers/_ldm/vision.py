"""Networks of transformers that look at a source: depth estimators and captioners.

Their images are prepared here, from `preprocessor_config.json`: the processors of transformers
want torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from privbench_plugins import models
from privbench_plugins.anonymizers._ldm.estimators import EstimatorFolder
from privbench_plugins.anonymizers._ldm.loading import explained, quiet, settle

_BICUBIC = 3
"""PIL's number of the filter; 2 is bilinear."""

WORDS = 40
"""Longest caption, in tokens."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a network wants its images.

    Attributes:
        height: that they are resized to.
        width: that they are resized to.
        keep_ratio: resize both sides by the one factor, that which changes the image less.
        multiple: sides are rounded to a multiple of it.
        bicubic: filter of the resize; bilinear otherwise. Both antialiased.
        mean: per channel, subtracted from RGB in [0, 1].
        std: per channel, divided by.
    """

    height: int
    width: int
    keep_ratio: bool
    multiple: int
    bicubic: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From the content of a preprocessor_config.json."""
        size = settings["size"]
        sides = (size, size) if isinstance(size, int) else (size["height"], size["width"])
        normalised = settings.get("do_normalize", True)
        return cls(
            height=int(sides[0]),
            width=int(sides[1]),
            keep_ratio=bool(settings.get("keep_aspect_ratio", False)),
            multiple=int(settings.get("ensure_multiple_of") or 1),
            bicubic=settings.get("resample", _BICUBIC) == _BICUBIC,
            mean=tuple(settings.get("image_mean", (0.5,) * 3)) if normalised else (0.0,) * 3,
            std=tuple(settings.get("image_std", (0.5,) * 3)) if normalised else (1.0,) * 3,
        )

    def __call__(self, pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
        """(N, H, W, 3) uint8 RGB to the (N, 3, h, w) float32 that the network takes."""
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
        size = self._size(int(pixels.shape[1]), int(pixels.shape[2]))
        mode = "bicubic" if self.bicubic else "bilinear"
        if size != tuple(pixels.shape[1:3]):
            images = F.interpolate(images, size, mode=mode, antialias=True).clamp_(0, 1)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def _size(self, height: int, width: int) -> tuple[int, int]:
        scales = self.height / height, self.width / width
        if self.keep_ratio:
            scales = (min(scales, key=lambda scale: abs(1 - scale)),) * 2
        sides = (scale * side for scale, side in zip(scales, (height, width), strict=True))
        fitted = [max(round(side / self.multiple), 1) * self.multiple for side in sides]
        return fitted[0], fitted[1]


@dataclass(frozen=True, slots=True, eq=False)
class DepthNetwork:
    """Depth-Anything (Yang et al. 2024) or DPT (Ranftl et al. 2021), in float32.

    Attributes:
        network: what AutoModelForDepthEstimation loads.
        prepare: how it wants its images.
        metric: it estimates distances rather than their inverses.
    """

    network: Any
    prepare: Preparation
    metric: bool

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 RGB to (N, H, W) uint8: each image's farthest 0, its nearest 255."""
        device = torch.device(self.network.device)
        depth = self.network(pixel_values=self.prepare(pixels, device)).predicted_depth
        nearness = 1 / depth.clamp(min=1e-6) if self.metric else depth
        size = (int(pixels.shape[1]), int(pixels.shape[2]))
        full = F.interpolate(nearness[:, None], size, mode="bicubic", align_corners=False)[:, 0]
        low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
        grey = (full - low) / (high - low).clamp(min=torch.finfo(full.dtype).tiny)
        found: NDArray[np.uint8] = grey.mul(255).round().to(torch.uint8).cpu().numpy()
        return found

    def to(self, device: torch.device) -> Self:
        """The same network elsewhere."""
        return replace(self, network=settle(self.network, device, torch.float32))


@dataclass(frozen=True, slots=True, eq=False)
class CaptionNetwork:
    """BLIP (Li et al. 2022): one greedy caption an image, in float32.

    Attributes:
        network: BlipForConditionalGeneration.
        tokenizer: of its words.
        prepare: how it wants its images.
    """

    network: Any
    tokenizer: Any
    prepare: Preparation

    @torch.inference_mode()
    def captions(self, pixels: NDArray[np.uint8]) -> list[str]:
        """(N, H, W, 3) uint8 RGB to N captions; image by image, so that none sees its batch."""
        return [self._caption(image[None]) for image in pixels]

    def _caption(self, image: NDArray[np.uint8]) -> str:
        given = self.prepare(image, torch.device(self.network.device))
        with quiet():
            tokens = self.network.generate(
                pixel_values=given, max_new_tokens=WORDS, do_sample=False, num_beams=1
            )
        return str(self.tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()

    def to(self, device: torch.device) -> Self:
        """The same network elsewhere."""
        return replace(self, network=settle(self.network, device, torch.float32))


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedCaptioner:
    """`tiny-captioner`; it stays on the CPU, so that the words are the same on every device.

    Attributes:
        network: a TinyCaptioner.
    """

    network: Any

    def captions(self, pixels: NDArray[np.uint8]) -> list[str]:
        """(N, H, W, 3) uint8 RGB to N captions, each from its image alone."""
        found: list[str] = self.network.captions(pixels)
        return found

    def to(self, device: torch.device) -> Self:
        """Itself."""
        return self


def load_depth_network(found: EstimatorFolder) -> DepthNetwork:
    """Load a depth estimator on the CPU.

    Raises:
        ModelError: transformers cannot load it.
    """
    with explained(found.path), quiet():
        from transformers import AutoModelForDepthEstimation

        network = _loaded(AutoModelForDepthEstimation, found)
        metric = getattr(network.config, "depth_estimation_type", "relative") == "metric"
        return DepthNetwork(network, _preparation(found), metric)


def load_captioner(found: EstimatorFolder) -> CaptionNetwork:
    """Load a captioner on the CPU.

    Raises:
        ModelError: transformers cannot load it.
    """
    with explained(found.path), quiet():
        from transformers import AutoTokenizer, BlipForConditionalGeneration

        tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True)
        return CaptionNetwork(
            _loaded(BlipForConditionalGeneration, found), tokenizer, _preparation(found)
        )


def _loaded(kind: Any, found: EstimatorFolder) -> Any:
    network = kind.from_pretrained(
        found.path, use_safetensors=True, dtype=torch.float32, local_files_only=True
    )
    return settle(network, torch.device("cpu"), torch.float32)


def _preparation(found: EstimatorFolder) -> Preparation:
    return Preparation.of(models.read_json(found.path / "preprocessor_config.json"))
