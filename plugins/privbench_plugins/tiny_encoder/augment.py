"""Random changes to a batch of images, as tensor operations (no loop over images).

All functions take and return (N, C, H, W) float in [0, 1] and draw only from `generator`
(a CPU generator), one value per image unless said otherwise.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def uniform(generator: Generator, n: int, low: float, high: float, like: Tensor) -> Tensor:
    """(n, 1, 1, 1) uniform draws, on the device of `like`."""
    draws = torch.rand((n, 1, 1, 1), generator=generator) * (high - low) + low
    return draws.to(like.device)


def chosen(generator: Generator, n: int, share: float, like: Tensor) -> Tensor:
    """(n, 1, 1, 1) bool; each True with probability `share`."""
    return uniform(generator, n, 0.0, 1.0, like) < share


def warp(
    pixels: Tensor,
    generator: Generator,
    side: int,
    scale: float = 0.12,
    shift: float = 0.06,
    degrees: float = 8.0,
    flip: float = 0.5,
) -> Tensor:
    """Random similarity transform with a little stretch, resampled to `side` x `side`.

    Args:
        pixels: (N, C, H, W).
        generator: source of randomness.
        side: size of the result.
        scale: log-range of the zoom.
        shift: largest shift, as a share of the side.
        degrees: largest rotation.
        flip: probability of mirroring.

    Returns:
        (N, C, side, side); places outside repeat the border.
    """
    n = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    zoom = torch.exp(draw(-scale, scale))
    stretch = torch.exp(draw(-scale / 4, scale / 4))
    angle = draw(-degrees, degrees) * (math.pi / 180)
    mirror = torch.where(draw(0, 1) < flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([mirror * zoom * stretch * cos, -zoom * sin, draw(-2, 2) * shift], 1)
    row_y = torch.stack([mirror * zoom * sin, zoom / stretch * cos, draw(-2, 2) * shift], 1)
    theta = torch.stack([row_x, row_y], 1).to(pixels.device)
    grid = F.affine_grid(theta, [n, pixels.shape[1], side, side], align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def grey(pixels: Tensor) -> Tensor:
    """(N, 1, H, W) luminance of RGB."""
    weights = pixels.new_tensor(LUMA).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


def jitter(pixels: Tensor, generator: Generator, strength: float, grey_share: float) -> Tensor:
    """Random brightness, contrast, saturation and colour cast; some images become grey.

    Args:
        pixels: RGB.
        generator: source of randomness.
        strength: 0 changes nothing, 0.4 is strong.
        grey_share: probability that an image loses its colour.
    """
    n = len(pixels)
    luma = grey(pixels)
    low = 1 - strength
    saturation = uniform(generator, n, low, 1 + strength, pixels)
    saturation = torch.where(chosen(generator, n, grey_share, pixels), 0.0, saturation)
    contrast = uniform(generator, n, low, 1 + strength, pixels)
    level = uniform(generator, n, -0.5 * strength, 0.5 * strength, pixels)
    cast = (torch.rand((n, 3, 1, 1), generator=generator) - 0.5).to(pixels.device) * 0.4 * strength
    mean = luma.mean(dim=(2, 3), keepdim=True)
    colour = luma + (pixels - luma) * saturation
    return ((colour - mean) * contrast + mean + level + cast).clamp_(0, 1)


def erase(pixels: Tensor, generator: Generator, share: float, size: float = 0.4) -> Tensor:
    """Cover a random rectangle with a random grey in a `share` of the images.

    The rectangle's sides are between a tenth and `size` of the image's.
    """
    n, _, height, width = pixels.shape

    def span(length: int) -> Tensor:
        extent = torch.rand((n, 1), generator=generator) * (size - 0.1) + 0.1
        start = torch.rand((n, 1), generator=generator) * (1 - extent)
        place = (torch.arange(length) + 0.5)[None] / length
        return (place >= start) & (place < start + extent)

    box = (span(height)[:, None, :, None] & span(width)[:, None, None, :]).to(pixels.device)
    hit = chosen(generator, n, share, pixels)
    return torch.where(box & hit, uniform(generator, n, 0.0, 1.0, pixels), pixels)
