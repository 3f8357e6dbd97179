"""Pixels and latents at other sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) in [0, 1] at another size: bicubic, antialiased; untouched if it fits."""
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    resized = F.interpolate(
        pixels, (height, width), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp_(0, 1)


def fill(pixels: Tensor, hidden: Tensor) -> Tensor:
    """Replace hidden pixels by a smooth continuation of the visible ones (push-pull).

    Means of the visible pixels on a pyramid of halved sizes; each gap takes the finest level
    that knows something. Gortler et al. 1996, The Lumigraph, section 3.4.

    Args:
        pixels: (N, C, H, W).
        hidden: (N, 1, H, W) bool.

    Returns:
        (N, C, H, W); visible pixels as they were. Black where everything is hidden.
    """
    visible = (~hidden).to(pixels.dtype)
    if max(pixels.shape[-2:]) == 1:
        return torch.where(hidden, torch.zeros_like(pixels), pixels)
    weight = F.avg_pool2d(visible, 2, ceil_mode=True)
    total = F.avg_pool2d(torch.where(hidden, 0.0, pixels), 2, ceil_mode=True)
    coarse = fill(total / weight.clamp(min=torch.finfo(weight.dtype).tiny), weight <= 0)
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    smooth = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return torch.where(hidden, smooth, pixels)
