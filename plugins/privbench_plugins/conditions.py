"""Conditions computed from pixels: the one edge map that training and anonymizers share.

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
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(
            "The 'pixels' parameter of canny must be a uint8 array of shape (N, H, W, 3). "
            f"Got {pixels.dtype} of shape {pixels.shape} instead."
        )
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
