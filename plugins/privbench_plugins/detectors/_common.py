"""What detectors share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from privbench.errors import DataError
from privbench.types import Detections

Image = NDArray[np.uint8]
Face = tuple[NDArray[np.float32], float]

POINTS: Final = 5


def each(pixels: torch.Tensor, find: Callable[[Image], Face | None]) -> Detections:
    """Look for a face in each image on its own.

    Args:
        pixels: (N, 3, H, W) uint8 RGB.
        find: (H, W, 3) uint8 RGB to points (5, 2) and score, or None.

    Raises:
        DataError: `pixels` has another shape or type.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise DataError(
            "A detector takes images of shape (N, 3, H, W) uint8; "
            f"got {tuple(pixels.shape)} {pixels.dtype}."
        )
    images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
    points = np.full((len(images), POINTS, 2), np.nan, np.float32)
    score = np.full(len(images), np.nan, np.float32)
    for i, image in enumerate(images):
        if face := find(image):
            points[i], score[i] = face
    return Detections(points, score)
