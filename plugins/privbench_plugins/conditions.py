"""Condition maps that need no trained estimator, shared by training and anonymizers.

A ControlNet follows only the kind of map it was trained on, so the training of
``tiny-faces`` and every anonymizer that drives it must call the same function with
the same defaults. NumPy and OpenCV only: importing this module is cheap.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

CANNY_LOW: Final = 30
"""Default hysteresis threshold below which a gradient (grey levels) is dropped."""

CANNY_HIGH: Final = 80
"""Default hysteresis threshold from which a gradient (grey levels) always is an edge."""

_BLUR_PER_SIDE: Final = 1.0 / 128.0

_SOFT_SCALES: Final = (0.75, 1.5, 3.0)
"""Standard deviations of the soft edges' Gaussians, in 128ths of the shorter side."""

_SOFT_LEVEL: Final = 16.0
"""Gradient (grey levels per standard deviation) whose soft edge is 1 - 1/e of full white."""

_SKELETON: Final = ((0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4))
"""Pairs of landmarks that `draw_landmarks` joins: eyes, nose, mouth."""

_FRACTION_BITS: Final = 4
"""OpenCV draws at positions of a sixteenth of a pixel."""


def canny(
    pixels: npt.NDArray[np.uint8], low: float = CANNY_LOW, high: float = CANNY_HIGH
) -> npt.NDArray[np.uint8]:
    """Return the Canny edge map of each image.

    The blur grows with the image (one pixel per 128 of the shorter side), so that the
    same thresholds draw about the same lines at 128 and at 512 pixels. Each image is
    treated alone: its map does not depend on the batch.

    Args:
        pixels: (N, H, W, 3) uint8 RGB.
        low: lower hysteresis threshold, grey levels (L2 norm of the Sobel gradient).
        high: upper hysteresis threshold, not below ``low``.

    Returns:
        (N, H, W) uint8, 255 on an edge and 0 elsewhere.

    >>> square = np.zeros((1, 32, 32, 3), np.uint8)
    >>> square[:, 8:24, 8:24] = 255
    >>> edges = canny(square)
    >>> edges.shape, sorted(set(edges.ravel().tolist()))
    ((1, 32, 32), [0, 255])
    """
    _check(pixels, "canny")
    if not 0 <= low <= high:
        raise ValueError(
            "The 'low' and 'high' parameters of canny must satisfy 0 <= low <= high. "
            f"Got {low!r} and {high!r} instead."
        )
    edges = np.zeros(pixels.shape[:3], np.uint8)
    sigma = max(min(pixels.shape[1:3]) * _BLUR_PER_SIDE, 0.5)
    for index, image in enumerate(pixels):
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
        edges[index] = cv2.Canny(smooth, low, high, L2gradient=True)
    return edges


def soft_edges(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a soft edge map of each image: graded strength instead of thin lines.

    Mean over three scales of the scale-normalised Gaussian gradient magnitude (Lindeberg
    1998), the strongest of the three colour channels, tone-mapped by 1 - exp(-g / 16). Where a
    learned estimator (HED, Xie & Tu 2015) is to be had for a real model, its maps look alike:
    thick, graded lines. Nothing is normalised by the image or the batch.

    Args:
        pixels: (N, H, W, 3) uint8 RGB.

    Returns:
        (N, H, W) uint8, larger is a stronger edge.

    >>> square = np.zeros((1, 32, 32, 3), np.uint8)
    >>> square[:, 8:24, 8:24] = 255
    >>> edges = soft_edges(square)
    >>> bool(edges[0, 8, 16] > 200), int(edges[0, 0, 0])
    (True, 0)
    """
    _check(pixels, "soft_edges")
    edges = np.zeros(pixels.shape[:3], np.uint8)
    unit = min(pixels.shape[1:3]) / 128
    for index, image in enumerate(pixels):
        source = image.astype(np.float32)
        strength = np.zeros(image.shape[:2], np.float32)
        for scale in _SOFT_SCALES:
            sigma = max(scale * unit, 0.5)
            smooth = cv2.GaussianBlur(source, (0, 0), sigma)
            # The Sobel kernel of size 3 sums to 8 for a ramp of one grey level a pixel.
            gradients = [cv2.Sobel(smooth, cv2.CV_32F, x, y) / 8 for x, y in ((1, 0), (0, 1))]
            strength += sigma * np.hypot(*gradients).max(-1) / len(_SOFT_SCALES)
        edges[index] = np.rint(255 * (1 - np.exp(-strength / _SOFT_LEVEL)))
    return edges


def draw_landmarks(
    points: npt.NDArray[np.floating], height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Draw five landmarks of each face as a wire mask: all that is kept is pose and proportion.

    Args:
        points: (N, 5, 2) x, y in pixels: eye on the image's left, eye on its right, tip of the
            nose, left and right corner of the mouth. Points outside of the image are clipped.
        height: of the map.
        width: of the map.

    Returns:
        (N, height, width) uint8, antialiased lines of 255 on 0.

    >>> face = np.array([[[40, 50], [88, 50], [64, 75], [48, 95], [80, 95]]], np.float32)
    >>> drawn = draw_landmarks(face, 128, 128)
    >>> int(drawn[0, 50, 64]), int(drawn[0, 10, 10])
    (255, 0)
    """
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise ValueError(
            "The 'points' parameter of draw_landmarks must have shape (N, 5, 2). "
            f"Got {points.shape} instead."
        )
    maps = np.zeros((len(points), height, width), np.uint8)
    side = min(height, width)
    fixed = np.rint(np.clip(points, -side, 2 * side) * 2**_FRACTION_BITS).astype(int)
    thickness, radius = max(round(side / 64), 1), int(side / 40 * 2**_FRACTION_BITS)
    for image, face in zip(maps, fixed.tolist(), strict=True):
        for a, b in _SKELETON:
            cv2.line(image, face[a], face[b], 255, thickness, cv2.LINE_AA, _FRACTION_BITS)
        for point in face:
            cv2.circle(image, point, radius, 255, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)
    return maps


def _check(pixels: npt.NDArray[np.uint8], function: str) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(
            f"The 'pixels' parameter of {function} must be a uint8 array of shape (N, H, W, 3). "
            f"Got {pixels.dtype} of shape {pixels.shape} instead."
        )
