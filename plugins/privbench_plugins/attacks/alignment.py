"""Faces found, and brought into the pose that a recogniser was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import ModelError
from privbench_plugins.attacks.recogniser_files import PREDICTOR, dlib_folder, require_dlib
from privbench_plugins.datasets._align import similarity, square, warp
from privbench_plugins.geometry import load_geometry

Points = NDArray[np.float64]

ARCFACE: Final[Points] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip
"""Eyes, tip of the nose and corners of the mouth in a crop of 112 x 112 pixels (Deng et al. 2019,
ArcFace; the reference points of its published code)."""

ARCFACE_SIDE: Final = 112

DLIB: Final[Points] = np.array(
    [[0.8595674595992, 0.2134981538014], [0.6460604764104, 0.2289674387677],
     [0.1205750620789, 0.2137274526848], [0.3340850613712, 0.2290642403242],
     [0.4901123135679, 0.6277975316475]]
)  # fmt: skip
"""Corners of the eyes and base of the nose of dlib's mean face (get_face_chip_details)."""

_BATCH: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Chips:
    """Faces ready to be embedded.

    Attributes:
        pixels: (N, 3, S, S) uint8 RGB.
        found: (N,) whether a detector found the face; the middle of the image stands for those it
            did not. None where the recogniser uses no detector.
    """

    pixels: Tensor
    found: NDArray[np.bool_] | None = None

    @property
    def undetected(self) -> int | None:
        """Images without a detected face."""
        return None if self.found is None else int((~self.found).sum())


@dataclass(frozen=True, eq=False)
class Faces:
    """Images of one set; the detector runs when first needed, and once.

    Attributes:
        pixels: (N, 3, H, W) uint8 RGB on the CPU.
        doublings: times that dlib's detector doubles an image.
    """

    pixels: Tensor
    doublings: int = 1

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 RGB."""
        return np.ascontiguousarray(self.pixels.permute(0, 2, 3, 1).numpy())

    @cached_property
    def shapes(self) -> tuple[Any, ...]:
        """dlib's five points of the surest face of each image; None where there is no face.

        Source: HOG detector (King 2009), regression trees (Kazemi and Sullivan 2014).

        Raises:
            ModelError: the predictor's file is missing or damaged.
        """
        import dlib

        detector, predictor = dlib.get_frontal_face_detector(), _predictor()
        found = [detector.run(image, self.doublings, 0.0)[0] for image in self.images]
        return tuple(
            predictor(image, boxes[0]) if boxes else None
            for image, boxes in zip(self.images, found, strict=True)
        )

    @cached_property
    def landmarks(self) -> tuple[NDArray[np.float32], Points]:
        """Points to align by, and where they belong in a crop of `ARCFACE_SIDE` pixels.

        dlib's where it is installed, else those of the embedded estimator, which always answers.

        Returns:
            (N, K, 2) x, y in pixels, NaN where no face was found; (K, 2).
        """
        if dlib_folder() is None:
            return load_geometry().landmarks(self.images), ARCFACE
        lost = np.full(DLIB.shape, np.nan, np.float32)
        points = [
            lost if shape is None else np.array([(p.x, p.y) for p in shape.parts()], np.float32)
            for shape in self.shapes
        ]
        return np.stack(points) if points else lost[None][:0], dlib_template()


def _predictor() -> Any:
    import dlib

    path = require_dlib() / PREDICTOR
    try:
        return dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be read: {error}. Install it anew.") from error


def dlib_template() -> Points:
    """(5, 2): where dlib's points lie in an ArcFace crop, eyes upon eyes."""
    # Of dlib's mean face each eye is two corners; both centres fix scale, turn and place.
    own = np.stack([DLIB[2:4].mean(0), DLIB[0:2].mean(0)]).astype(np.float32)
    a, b = similarity(own[None], ARCFACE[:2])[0]
    moved = (DLIB[:, 0] + 1j * DLIB[:, 1]) * a + b
    return np.stack([moved.real, moved.imag], -1)


def align(faces: Faces, side: int) -> Chips:
    """Crops of `side` x `side` in ArcFace's pose; the middle of the image where no face is."""
    points, template = faces.landmarks
    # Points on one spot, of an estimator gone wild, are no face either.
    known = np.isfinite(points).all((1, 2)) & (np.ptp(points, axis=1).max(1) > 1)
    chips = centred(faces.pixels, side)
    rows = torch.from_numpy(np.flatnonzero(known))
    moves = similarity(points[known], template * (side / ARCFACE_SIDE))
    for start in range(0, len(rows), _BATCH):
        block = slice(start, start + _BATCH)
        chips[rows[block]] = warp(faces.pixels[rows[block]], moves[block], side)
    return Chips(chips, np.asarray(known))


def centred(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, side, side) uint8: the middle of each image, a new tensor."""
    return torch.cat([square(block, side) for block in torch.split(pixels, _BATCH)])


def shrink(pixels: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) uint8 resized to (N, 3, height, width), bilinear and anti-aliased."""
    out = torch.empty(len(pixels), 3, height, width, dtype=torch.uint8)
    for start in range(0, len(pixels), _BATCH):
        block = pixels[start : start + _BATCH].float()
        small = F.interpolate(block, (height, width), mode="bilinear", antialias=True)
        out[start : start + _BATCH] = small.round_().clamp_(0, 255).to(torch.uint8)
    return out
