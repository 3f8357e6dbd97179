"""Blur and pixelation on whole batches, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.types import ImageBatch

TRUNCATE = 4.0
"""Standard deviations at which the Gaussian is cut off, as in `scipy.ndimage`."""


def gaussian_kernel(sigma: float) -> Tensor:
    """(2 r + 1,) float64 weights that sum to one, with r = round(4 sigma)."""
    radius = int(TRUNCATE * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offset / sigma) ** 2)
    return weights / weights.sum()


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """Blur each channel; borders are mirrored about the edge pixel's centre.

    The same filter as `scipy.ndimage.gaussian_filter(..., mode="mirror")`, also where the
    kernel is wider than the image.

    Args:
        pixels: (N, C, H, W) float.
        sigma: standard deviation in pixels, above 0.

    Returns:
        (N, C, H, W) of the same dtype.
    """
    kernel = gaussian_kernel(sigma).to(pixels)
    n, c, h, w = pixels.shape
    flat = pixels.reshape(n * c, 1, h, w)
    rows = flat[:, :, mirrored(h, len(kernel) // 2)]
    columns = F.conv2d(rows, kernel[None, None, :, None])[:, :, :, mirrored(w, len(kernel) // 2)]
    return F.conv2d(columns, kernel[None, None, None, :]).reshape(n, c, h, w)


def mirrored(length: int, margin: int) -> Tensor:
    """(length + 2 margin,) int64 source positions under mirroring about the end samples.

    >>> mirrored(3, 2).tolist()
    [2, 1, 0, 1, 2, 1, 0]
    """
    if length == 1:
        return torch.zeros(1 + 2 * margin, dtype=torch.int64)
    period = 2 * (length - 1)
    position = torch.arange(-margin, length + margin) % period
    return torch.minimum(position, period - position)


def pixelate(pixels: Tensor, cells: int) -> Tensor:
    """Replace each square cell by its mean.

    Where `cells` does not divide the width, cells are ceil(W / cells) pixels wide and the last
    one in a row or column is narrower.

    Args:
        pixels: (N, C, H, W) float.
        cells: cells across the width; at `cells` >= W nothing changes.

    Returns:
        (N, C, H, W) of the same dtype.
    """
    _, _, h, w = pixels.shape
    size = ceil(w / cells)
    means = F.avg_pool2d(pixels, size, ceil_mode=True, count_include_pad=False)
    grown = means.repeat_interleave(size, 2).repeat_interleave(size, 3)
    return grown[:, :, :h, :w]


@dataclass(frozen=True, slots=True)
class Identity:
    """`none`: a copy of the images."""

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W), equal to the source."""
        return batch.pixels.clone()


@dataclass(frozen=True, slots=True)
class GaussianBlur:
    """`gaussian-blur`.

    Attributes:
        sigma: pixels at `resolution`.
        resolution: image width at which `sigma` is stated; 0 for the image's own.
    """

    sigma: float
    resolution: int

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""
        width = batch.pixels.shape[-1]
        scale = width / self.resolution if self.resolution else 1.0
        return gaussian_blur(batch.pixels, self.sigma * scale).clamp_(0, 1)


@dataclass(frozen=True, slots=True)
class Pixelate:
    """`pixelate`.

    Attributes:
        cells: cells across the width.
    """

    cells: int

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""
        return pixelate(batch.pixels, self.cells).clamp_(0, 1)
