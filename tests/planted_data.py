"""A data set and a detector, honest unless a defect is asked for."""

from __future__ import annotations

import numpy as np
import torch

from planted_conduct import misbehave
from privbench.types import Detections

COUNT = 8
"""Images."""


class Colours:
    """Plain colours."""

    def __init__(self, defect: str) -> None:
        self.defect, self.name = defect, "colours"
        self.shade = int(100 * misbehave(defect))
        same = defect == "labels"
        self.keys = tuple("a" if same else f"colour-{i}" for i in range(COUNT))
        self.subject = np.arange(COUNT) // 2
        self.population = np.full(COUNT, "all")
        self.licence = "" if defect == "licence" else "CC0-1.0"
        self.digest = "0" * (8 if defect == "digest" else 64)

    def pixels(self, index: np.ndarray) -> torch.Tensor:
        """Each its own."""
        levels = torch.from_numpy(np.asarray(index) * 10 + self.shade).to(torch.uint8)
        images = levels[:, None, None, None].expand(-1, 3, 16, 16).clone()
        if self.defect == "subset":
            images[0] += 1
        return images.float() if self.defect == "pixels" else images


class Fixed:
    """Finds the same face in every image."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.shade = misbehave(defect)

    def detect(self, pixels: torch.Tensor) -> Detections:
        """Five points."""
        face = np.array([[40, 50], [88, 50], [64, 70], [48, 90], [80, 90]], np.float32)
        points = np.repeat(face[None] + np.float32(self.shade), len(pixels), 0)
        match self.defect:
            case "output":
                points = points[:, [1, 0, 2, 4, 3]]
            case "input_unchanged":
                pixels.zero_()
            case "companions":
                points = points + np.float32(len(pixels))
        return Detections(points, np.ones(len(pixels), np.float32))
