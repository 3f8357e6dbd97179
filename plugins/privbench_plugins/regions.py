"""Regions of a face from five landmarks: what is masked, repainted or left out.

Sizes are in *face units*: the larger of eye distance and distance from eyes to mouth, in pixels.
On a frontal adult face the two are about equal (63 mm); the larger one stays put where turning
the head shortens the other. Pure NumPy, whole batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_HALF_WIDTH: Final = 1.25
"""Of the face's ellipse: cheekbones (1.1) and a margin for a turned head."""

_HALF_HEIGHT: Final = 1.6
"""Of the face's ellipse: half of hairline to chin (1.5) and a margin."""

_BELOW_EYES: Final = 0.4
"""Centre of the ellipse below the eye line: a chin is farther from it than a hairline."""

_BAND_HALF_WIDTH: Final = 1.15
"""Of the eye band: both eyes, their corners and a margin for a turned head."""

_BAND_HALF_HEIGHT: Final = 0.45
"""Of the eye band: lids and brows."""


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """Upright axes of N faces: origins and right-pointing unit vectors (N, 2), units (N,)."""

    eyes: Floats
    middle: Floats
    right: Floats
    unit: Floats


def face_mask(points: Floats, height: int, width: int, feather: float = 0.1) -> Floats:
    """Soft-edged ellipse over each face, from hairline to chin and cheek to cheek.

    Args:
        points: (N, 5, 2) x, y in pixels: the eye on the image's left, the eye on its right, nose
            tip, left and right corner of the mouth (`Geometry.landmarks`).
        height: of the mask, in pixels.
        width: of the mask, in pixels.
        feather: width of the soft edge, outside the ellipse, as a share of its radii; 0: hard.

    Returns:
        (N, H, W) float32 in [0, 1]: 1 inside the ellipse, 0 beyond the soft edge.

    Raises:
        ValueError: another shape, landmarks that are not finite, or a negative feather.

    >>> points = np.float32([[[50, 50], [78, 50], [64, 66], [54, 80], [74, 80]]])
    >>> mask = face_mask(points, 128, 128)
    >>> mask.shape, float(mask[0, 60, 64]), float(mask[0, 5, 5])
    ((1, 128, 128), 1.0, 0.0)
    """
    if not feather >= 0:
        raise ValueError(f"The 'feather' parameter must be 0 or more. Got {feather!r} instead.")
    frames = _frames(points)
    across, down = _coordinates(frames, frames.middle, height, width)
    radius = np.hypot(across / _HALF_WIDTH, (down - _BELOW_EYES) / _HALF_HEIGHT)
    if feather == 0:
        hard: Floats = (radius <= 1).astype(np.float32)
        return hard
    ramp = np.clip((1 + feather - radius) / feather, 0, 1)
    smooth: Floats = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return smooth


def eye_band(points: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Band over both eyes and brows, along the line through the eyes.

    Args:
        points: (N, 5, 2) x, y in pixels, as for `face_mask`.
        height: of the band's image, in pixels.
        width: of the band's image, in pixels.

    Returns:
        (N, H, W) bool.

    Raises:
        ValueError: another shape, or landmarks that are not finite.

    >>> points = np.float32([[[50, 50], [78, 50], [64, 66], [54, 80], [74, 80]]])
    >>> band = eye_band(points, 128, 128)
    >>> bool(band[0, 50, 50]), bool(band[0, 50, 78]), bool(band[0, 80, 64])
    (True, True, False)
    """
    frames = _frames(points)
    across, down = _coordinates(frames, frames.eyes, height, width)
    band: NDArray[np.bool_] = (abs(across) <= _BAND_HALF_WIDTH) & (abs(down) <= _BAND_HALF_HEIGHT)
    return band


def _frames(points: Floats) -> _Frames:
    points = np.asarray(points, np.float32)
    if points.ndim != 3 or points.shape[1:] != (5, 2) or not np.isfinite(points).all():
        raise ValueError(
            "The 'points' parameter must hold finite landmarks of shape (N, 5, 2). "
            f"Got shape {points.shape} instead."
        )
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    across = points[:, 1] - points[:, 0]
    apart = np.hypot(across[:, 0], across[:, 1])
    # Eyes on one spot give no direction (a full profile, or a wild estimate): upright then.
    right = np.where(apart[:, None] > 1e-3, across / np.maximum(apart, 1e-3)[:, None], (1, 0))
    below = mouth - eyes
    unit = np.maximum(np.maximum(apart, np.hypot(below[:, 0], below[:, 1])), 1)
    # On a turned head the mouth lies off the eyes' middle: the face's own lies between.
    sideways = (below * right).sum(1, keepdims=True)
    middle = eyes + 0.5 * sideways * right
    return _Frames(
        eyes, middle.astype(np.float32), right.astype(np.float32), unit.astype(np.float32)
    )


def _coordinates(frames: _Frames, origin: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """(N, H, W) each: how far right and down of the origin a pixel is, in face units."""
    x = np.arange(width, dtype=np.float32)[None, None, :] - origin[:, 0, None, None]
    y = np.arange(height, dtype=np.float32)[None, :, None] - origin[:, 1, None, None]
    cos, sin = (frames.right[:, i, None, None] for i in (0, 1))
    unit = frames.unit[:, None, None]
    across = (x * cos + y * sin) / unit
    down = (y * cos - x * sin) / unit
    return across.astype(np.float32, copy=False), down.astype(np.float32, copy=False)
