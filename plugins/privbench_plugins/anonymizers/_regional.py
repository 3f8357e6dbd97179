"""Regions of the face covered, or all but them; and what conditions alone give away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from privbench.types import ImageBatch, quantize
from privbench_plugins.conditions import canny, draw_landmarks, soft_edges
from privbench_plugins.geometry import Geometry, load_geometry
from privbench_plugins.regions import eye_band, face_mask

Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]
Locator = Callable[[Pixels], Points]
"""(N, H, W, 3) uint8 RGB to (N, 5, 2) landmarks in pixels."""

CENTRED = np.array(
    [[0.38, 0.40], [0.62, 0.40], [0.50, 0.53], [0.41, 0.64], [0.59, 0.64]], np.float32
)
"""Landmarks of a centred portrait, as shares of width and height."""


def bytes_of(batch: ImageBatch) -> Pixels:
    """(N, H, W, 3) uint8 RGB."""
    found: Pixels = quantize(batch.pixels).permute(0, 2, 3, 1).contiguous().numpy()
    return found


def locator(name: str) -> Locator:
    """How landmarks are found: `embedded` estimates them, `centre` takes them as given."""
    return centred if name == "centre" else load_geometry().landmarks


def centred(pixels: Pixels) -> Points:
    """The same landmarks for every image: nothing of the pixels matters."""
    n, height, width = pixels.shape[:3]
    points = CENTRED * np.array([width, height], np.float32) - np.float32(0.5)
    return np.repeat(points[None], n, axis=0)


@dataclass(frozen=True, slots=True)
class EyeMask:
    """`eye-mask`: a black band over both eyes."""

    locate: Locator

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]: the source outside the band."""
        pixels = bytes_of(batch)
        band = eye_band(self.locate(pixels), *pixels.shape[1:3])
        return covered(batch.pixels, band, 0.0)


@dataclass(frozen=True, slots=True)
class MaskFace:
    """`mask-face`: one colour over the face.

    Attributes:
        locate: finds landmarks.
        mean: fill with the mean colour of what is kept, rather than with black.
    """

    locate: Locator
    mean: bool

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]: the source outside the face, one colour inside."""
        pixels = bytes_of(batch)
        mask = face_mask(self.locate(pixels), *pixels.shape[1:3]) > 0
        if not self.mean:
            return covered(batch.pixels, mask, 0.0)
        kept = torch.from_numpy(~mask).to(batch.pixels)[:, None]
        # Of the kept pixels only: the mean of the whole image would tell of the face's colour.
        total = (batch.pixels * kept).sum((2, 3), keepdim=True)
        return covered(batch.pixels, mask, total / kept.sum((2, 3), keepdim=True).clamp_min(1))


@dataclass(frozen=True, slots=True)
class ConditionMap:
    """`condition-map`: (N, H, W, 3) uint8 to the (N, H, W) uint8 that is released."""

    draw: Callable[[Pixels], Pixels]

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1], grey."""
        drawn = torch.from_numpy(self.draw(bytes_of(batch))).to(batch.pixels) / 255
        return drawn[:, None].repeat(1, 3, 1, 1)


def condition(name: str) -> Callable[[Pixels], Pixels]:
    """The map of a name: `canny`, `softedge`, `depth`, `landmarks` or `silhouette`."""
    if name == "canny":
        return canny
    if name == "softedge":
        return soft_edges
    geometry = load_geometry()
    if name == "depth":
        return geometry.depth
    if name == "silhouette":
        return lambda pixels: np.where(geometry.depth(pixels) > 0, 255, 0).astype(np.uint8)
    return lambda pixels: draw_landmarks(geometry.landmarks(pixels), *pixels.shape[1:3])


@dataclass(frozen=True, slots=True)
class BackgroundOnly:
    """`background-only`: mid-grey over the person.

    Attributes:
        geometry: finds outline and landmarks.
        margin: by which the outline is widened, as a share of the shorter side.
    """

    geometry: Geometry
    margin: float

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]: the source outside the person, .5 inside."""
        pixels = bytes_of(batch)
        height, width = pixels.shape[1:3]
        # The face's ellipse too: where no outline is found, nobody must pass untouched.
        face = face_mask(self.geometry.landmarks(pixels), height, width) > 0
        person = torch.from_numpy((self.geometry.depth(pixels) > 0) | face)
        reach = round(self.margin * min(height, width))
        wide = F.max_pool2d(person.float()[:, None], 2 * reach + 1, 1, reach)[:, 0] > 0
        return covered(batch.pixels, wide.numpy(), 0.5)


def covered(pixels: Tensor, mask: NDArray[np.bool_], colour: float | Tensor) -> Tensor:
    """The images with one colour wherever the (N, H, W) mask is set."""
    inside = torch.from_numpy(mask).to(pixels.device)[:, None]
    return torch.where(inside, torch.as_tensor(colour).to(pixels), pixels)
