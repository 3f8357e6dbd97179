"""DP-Pix: pixelation with Laplace noise (Fan 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.types import ImageBatch

CHANNELS = 3


def cell_means(grey: Tensor, cell: int) -> Tensor:
    """(N, C, H, W) to (N, C, h, w): the mean of each `cell` x `cell` block; edge blocks may be
    smaller, and are means of what they hold.
    """
    return F.avg_pool2d(grey, cell, ceil_mode=True, count_include_pad=False)


def cell_sizes(height: int, width: int, cell: int) -> np.ndarray:
    """(h, w) pixels in each cell.

    >>> cell_sizes(5, 4, 2).tolist()
    [[4, 4], [4, 4], [2, 2]]
    """
    rows, columns = (np.minimum(cell, side - np.arange(0, side, cell)) for side in (height, width))
    return np.outer(rows, columns)


@dataclass(frozen=True, slots=True)
class DpPix:
    """`dp-pix`.

    Attributes:
        epsilon: of the whole colour image.
        cell: side of a cell in pixels.
        neighbours: m, pixels in which neighbouring images may differ.
    """

    epsilon: float
    cell: int
    neighbours: int

    def scale(self, height: int, width: int) -> np.ndarray:
        """(h, w) scale of the Laplace noise of each channel, in grey levels.

        255 m / (n epsilon / 3) for a cell of n pixels. m pixels that move by at most 255 change
        a cell's mean by at most 255 / n each, so that the changes divided by the scales add up to
        at most epsilon / 3 a channel, and epsilon over three of them (Fan 2018, theorem 1, and
        sequential composition).
        """
        sizes = cell_sizes(height, width, self.cell)
        scale: np.ndarray = 255 * self.neighbours * CHANNELS / (sizes * self.epsilon)
        return scale

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]: noisy means, clipped (post-processing: it costs no privacy)."""
        height, width = batch.pixels.shape[2:]
        means = cell_means(batch.pixels.double() * 255, self.cell)
        scale = self.scale(height, width)
        shape = (CHANNELS, *scale.shape)
        noise = np.stack([np.random.default_rng(s).laplace(0, scale, shape) for s in seeds])
        noisy = (means + torch.from_numpy(noise).to(means)).clamp(0, 255) / 255
        grown = noisy.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)
        return grown[:, :, :height, :width].to(batch.pixels.dtype)
