"""The embedded landmark estimator as a detector."""

from __future__ import annotations

import numpy as np
import torch

from privbench.types import Detections
from privbench_plugins.geometry import load_geometry


class GeometryDetector:
    """Points of ``tiny-geometry``, which knows rendered heads framed as in `synthfaces`.

    It points at a face wherever it sees a person at all; the score is the person's share of the
    image.
    """

    def __init__(self) -> None:
        self._geometry = load_geometry()

    def detect(self, pixels: torch.Tensor) -> Detections:
        """The face of each image."""
        images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        points = self._geometry.landmarks(images).astype(np.float32)
        score = (self._geometry.depth(images) > 0).mean((1, 2)).astype(np.float32)
        nobody = score == 0
        points[nobody], score[nobody] = np.nan, np.nan
        return Detections(points, score)
