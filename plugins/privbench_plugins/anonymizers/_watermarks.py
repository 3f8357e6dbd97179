"""A visible mark and a hidden one, on whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privbench.types import ImageBatch

FIELD = (0.6, 0.0, 0.05)
"""Red of the mark; its ring and bar are white."""


def logo(side: int) -> Tensor:
    """(3, side, side) float32 in [0, 1]: a white ring around a white bar, on red."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = torch.hypot(x, y)
    ring = (radius > 0.6) & (radius < 0.85)
    bar = (x.abs() < 0.15) & (y.abs() < 0.4)
    return torch.where(ring | bar, 1.0, torch.tensor(FIELD)[:, None, None])


def overlay(key: int, cells: int, height: int, width: int) -> Tensor:
    """(3, height, width) float32: cells x cells random colours, each channel 0 or 1.

    The same pattern at every size, stretched to the image's shape.
    """
    generator = torch.Generator().manual_seed(key)
    colours = torch.randint(2, (1, 3, cells, cells), generator=generator).float()
    return torch.nn.functional.interpolate(colours, (height, width), mode="nearest")[0]


@dataclass(frozen=True, slots=True)
class VisibleMark:
    """`watermark-visible`.

    Attributes:
        size: side of the mark as a share of the image's shorter side.
    """

    size: float

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]: the source outside the mark."""
        marked = batch.pixels.clone()
        side = max(1, round(self.size * min(marked.shape[-2:])))
        marked[:, :, :side, -side:] = logo(side).to(marked)
        return marked


@dataclass(frozen=True, slots=True)
class HiddenMark:
    """`watermark-hidden`.

    Attributes:
        visibility: share of the overlay in the blend; no pixel moves further.
        key: seed of the overlay.
        cells: across the overlay and down it.
    """

    visibility: float
    key: int
    cells: int

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""
        pattern = overlay(self.key, self.cells, *batch.pixels.shape[-2:]).to(batch.pixels)
        return torch.lerp(batch.pixels, pattern, self.visibility)
