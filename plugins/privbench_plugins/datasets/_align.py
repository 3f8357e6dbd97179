"""Frames: a face to its standard place, or the middle of an image, as a square."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Complexes = NDArray[np.complex128]

TEMPLATE: Final = ((49.5, 57.1), (77.5, 57.1), (63.5, 73.9), (52.0, 87.5), (75.0, 87.5))
"""Where the five points go, x and y in an image of 128 x 128: the framing of `synthfaces`.

Mean points that dlib's 68-point predictor finds on every eighth shipped image, made symmetric
(CenterFace's are within 1 px). A predictor trained on photographs, because that is what places
points on photographs; the renderer's own mouth corners lie up to 4 px outside.
"""

_TEMPLATE_SIDE: Final = 128

_OVER: Final = 2
"""Samples per pixel and axis of a warp, averaged."""


def template(side: int) -> NDArray[np.float64]:
    """(5, 2) x, y in pixels of a square of `side`; pixel centres lie at whole numbers."""
    return (np.array(TEMPLATE) + 0.5) * (side / _TEMPLATE_SIDE) - 0.5


def similarity(points: NDArray[np.float32], target: NDArray[np.float64]) -> Complexes:
    """Least-squares similarities without reflection (Umeyama 1991) that move points to a target.

    In the plane, read as complex numbers, a similarity is z -> a z + b, and the least-squares a
    is a ratio of inner products.

    Args:
        points: (N, 5, 2) x, y in pixels.
        target: (5, 2) x, y in pixels.

    Returns:
        (N, 2) a and b; NaN where the points are NaN or all in one place.
    """
    z, t = (p[..., 0] + 1j * p[..., 1] for p in (points.astype(np.float64), target))
    middle = z.mean(1, keepdims=True)
    around = z - middle
    spread = (np.abs(around) ** 2).sum(1)
    inner = (around.conj() * (t - t.mean())).sum(1)
    a = np.divide(inner, spread, out=np.full(len(z), np.nan + 0j), where=spread > 0)
    return np.stack([a, t.mean() - a * middle[:, 0]], axis=1)


def warp(pixels: Tensor, moves: Complexes, side: int) -> Tensor:
    """Move images by similarities into squares, in one sampling of each.

    Where it shrinks, an image is first reduced by the largest power of two that its own
    similarity allows, and sampled twice per pixel and axis, so that nothing aliases. Beyond an
    image's edge its outermost pixels go on.

    Args:
        pixels: (N, 3, H, W) uint8.
        moves: (N, 2) finite, a not 0: z -> a z + b from image to square, in pixels.
        side: of the squares.

    Returns:
        (N, 3, side, side) uint8.
    """
    height, width = pixels.shape[-2:]
    back, half = 1 / moves[:, 0], side / 2
    middle = back * ((half - 0.5) * (1 + 1j) - moves[:, 1])  # where the square's middle comes from
    across = np.stack([half * back.real, -half * back.imag, middle.real + 0.5], 1) * 2 / width
    down = np.stack([half * back.imag, half * back.real, middle.imag + 0.5], 1) * 2 / height
    theta = torch.from_numpy(np.stack([across, down], 1) - [0, 0, 1]).float()
    levels = np.floor(-np.log2(np.abs(moves[:, 0]))).clip(0, np.log2(min(height, width)))
    out = torch.empty(len(pixels), 3, side, side, dtype=torch.uint8)
    for level in np.unique(levels):
        rows = torch.from_numpy(np.flatnonzero(levels == level))
        grid = F.affine_grid(theta[rows], [len(rows), 3, side * _OVER, side * _OVER], False)
        small = (height // 2 ** int(level), width // 2 ** int(level))
        image = F.interpolate(pixels[rows], small, mode="bilinear", antialias=True).float()
        found = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        out[rows] = F.avg_pool2d(found, _OVER).round_().to(torch.uint8)
    return out


def square(pixels: Tensor, side: int, how: Literal["crop", "pad"] = "crop") -> Tensor:
    """Images of one size as squares about their middle.

    Args:
        pixels: (N, 3, H, W) uint8.
        side: of the squares.
        how: `crop` the longer sides, or `pad` the shorter ones by repeating the outermost pixels.

    Returns:
        (N, 3, side, side) uint8.
    """
    height, width = pixels.shape[-2:]
    if how == "crop":
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        pixels = pixels[..., top : top + edge, left : left + edge]
    elif height != width:
        edge = max(height, width)
        top, left = (edge - height) // 2, (edge - width) // 2
        frame = (left, edge - width - left, top, edge - height - top)
        pixels = F.pad(pixels.float(), frame, mode="replicate").to(torch.uint8)
    if pixels.shape[-1] == side:
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
