"""dlib's HOG detector (Dalal and Triggs 2005; King 2009) and its regression-tree landmarks
(Kazemi and Sullivan 2014).

The five points are means of the 68: both eyes' six points each, the tip of the nose, and the
corners of the mouth. The 5-point predictor has no mouth (eye corners and the nose's base only),
so it cannot give them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import dlib
import numpy as np
import torch

from privbench.types import Detections
from privbench_plugins.detectors._common import Face, Image, each

_PARTS: Final = (range(36, 42), range(42, 48), range(30, 31), range(48, 49), range(54, 55))
"""Which of the 68 points make each of the five; the image's left first."""


class DlibDetector:
    """See `privbench.types.Detector`."""

    def __init__(self, points: Path, doublings: int) -> None:
        self._find = dlib.get_frontal_face_detector()
        self._points = dlib.shape_predictor(str(points))
        self._doublings = doublings

    def detect(self, pixels: torch.Tensor) -> Detections:
        """The largest face of each image."""
        return each(pixels, self._face)

    def _face(self, image: Image) -> Face | None:
        boxes, scores, _ = self._find.run(image, self._doublings, 0.0)
        if not boxes:
            return None
        best = max(range(len(boxes)), key=lambda i: boxes[i].area())
        shape = self._points(image, boxes[best])
        all68 = np.array([(p.x, p.y) for p in shape.parts()], np.float32)
        return np.stack([all68[list(part)].mean(0) for part in _PARTS]), scores[best]
