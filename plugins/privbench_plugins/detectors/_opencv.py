"""Detectors that OpenCV runs from ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch

from privbench.errors import ModelError
from privbench.types import Detections, Floats
from privbench_plugins.detectors._common import POINTS, Face, Image, each

_CELL: Final = 4
"""Pixels per cell of CenterFace's maps."""

_MULTIPLE: Final = 32
"""CenterFace takes sides that are multiples of this."""

_OUTPUTS: Final = ("537", "538", "539", "540")
"""Names of CenterFace's maps: score, size, offset, points."""


class YunetDetector:
    """YuNet (Wu, Peng and Yu 2023) by `cv2.FaceDetectorYN`."""

    def __init__(self, model: Path, threshold: float) -> None:
        try:
            self._net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), threshold)
        except cv2.error as error:
            raise _unreadable(model, "YuNet", error) from error

    def detect(self, pixels: torch.Tensor) -> Detections:
        """The largest face of each image."""
        return each(pixels, self._face)

    def _face(self, image: Image) -> Face | None:
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._net.detect(np.ascontiguousarray(image[:, :, ::-1]))  # it takes BGR
        if rows is None:
            return None
        # A row: x, y, width, height, five points with the image's left first, score.
        best = rows[np.argmax(rows[:, 2] * rows[:, 3])]
        return best[4:14].reshape(POINTS, 2), float(best[14])


class CenterfaceDetector:
    """CenterFace (Xu et al. 2019): centre heat map, box sizes, offsets and points per cell."""

    def __init__(self, model: Path, threshold: float) -> None:
        try:
            self._net = cv2.dnn.readNetFromONNX(str(model))
        except cv2.error as error:
            raise _unreadable(model, "CenterFace", error) from error
        if not set(_OUTPUTS) <= set(found := self._net.getUnconnectedOutLayersNames()):
            raise ModelError(
                f"{model.name} is no CenterFace: expected outputs {', '.join(_OUTPUTS)}; "
                f"got {', '.join(found)}."
            )
        self._threshold = threshold

    def detect(self, pixels: torch.Tensor) -> Detections:
        """The largest face of each image."""
        return each(pixels, self._face)

    def _face(self, image: Image) -> Face | None:
        below, right = (-side % _MULTIPLE for side in image.shape[:2])
        padded = np.pad(image, ((0, below), (0, right), (0, 0)))
        self._net.setInput(np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32))
        heat, size, offset, points = self._net.forward(_OUTPUTS)
        return largest(heat[0, 0], size[0], offset[0], points[0], self._threshold)


def largest(heat: Any, size: Any, offset: Any, points: Any, threshold: float) -> Face | None:
    """The largest face in CenterFace's maps; None where no cell reaches the threshold.

    Args:
        heat: (h, w) score of a face's centre.
        size: (2, h, w) logarithm of box height and width, in cells.
        offset: (2, h, w) centre within its cell, y then x.
        points: (10, h, w) y, x of five points, in box sizes from the box's upper left corner.
        threshold: least score.
    """
    y, x = np.nonzero(heat >= threshold)
    if not len(y):
        return None
    sides: Floats = np.exp(size[:, y, x]) * _CELL
    # Of neighbouring cells on one face the surest decides, as suppression would have it:
    # boxes compete by area among those that are the surest around.
    surest = heat[y, x] >= cv2.dilate(heat, np.ones((3, 3), np.uint8))[y, x]
    best = int(np.argmax(np.where(surest, sides.prod(0), 0)))
    middle = (np.array([y[best], x[best]]) + offset[:, y[best], x[best]] + 0.5) * _CELL
    corner = np.maximum(middle - sides[:, best] / 2, 0)
    shares = points[:, y[best], x[best]].reshape(POINTS, 2)
    found = (shares * sides[:, best] + corner)[:, ::-1]
    return found.astype(np.float32), float(heat[y[best], x[best]])


def _unreadable(model: Path, kind: str, error: cv2.error) -> ModelError:
    return ModelError(
        f"OpenCV cannot read {model.name} as an ONNX file of {kind}: "
        f"{str(error).strip().splitlines()[0]}"
    )
