"""Faces found, and brought into the pose that a recogniser was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import ModelError
from privbench_plugins.attacks.recogniser_files import PREDICTOR, dlib_folder
from privbench_plugins.geometry import load_geometry

Points = NDArray[np.float64]
Complex = NDArray[np.complex128]

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
        undetected: faces that no detector found, for which the middle of the image stands;
            None where the recogniser uses no detector.
    """

    pixels: Tensor
    undetected: int | None = None


@dataclass(frozen=True, eq=False)
class Faces:
    """Images of one set; the detector runs when first needed, and once.

    Attributes:
        pixels: (N, 3, H, W) uint8 RGB on the CPU.
        doublings: times that dlib's detector doubles an image.
    """

    pixels: Tensor
    doublings: int = field(default=1)

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
    def landmarks(self) -> tuple[Points, Points]:
        """Points to align by, and where they belong in a crop of `ARCFACE_SIDE` pixels.

        dlib's where it is installed, else those of the embedded estimator, which always answers.

        Returns:
            (N, K, 2) x, y in pixels, NaN where no face was found; (K, 2).
        """
        if dlib_folder() is None:
            return load_geometry().landmarks(self.images).astype(np.float64), ARCFACE
        lost = np.full(DLIB.shape, np.nan)
        points = [
            lost if shape is None else np.array([(p.x, p.y) for p in shape.parts()], np.float64)
            for shape in self.shapes
        ]
        return np.stack(points) if points else lost[None][:0], dlib_template()


def _predictor() -> Any:
    import dlib

    folder = dlib_folder()
    if folder is None:
        raise ModelError("dlib's landmarks are not installed; pip install 'privbench[recognise]'")
    try:
        return dlib.shape_predictor(str(folder / PREDICTOR))
    except RuntimeError as error:
        problem = f"{folder / PREDICTOR} cannot be read: {error}. Install it anew."
        raise ModelError(problem) from error


def dlib_template() -> Points:
    """(5, 2): where dlib's points lie in an ArcFace crop, eyes upon eyes."""
    # Of dlib's mean face each eye is two corners; both centres fix scale, turn and place.
    own = np.stack([DLIB[2:4].mean(0), DLIB[0:2].mean(0)])
    scale, shift = similarity(own[None], ARCFACE[:2])
    moved = _complex(DLIB) * scale[0] + shift[0]
    return np.stack([moved.real, moved.imag], -1)


def similarity(points: Points, template: Points) -> tuple[Complex, Complex]:
    """Turn, scale and shift that bring points nearest to a template (least squares).

    With points as complex numbers z and w, w = a z + b has the solution
    a = <z - mean z, w - mean w> / |z - mean z|^2 (Umeyama 1991 in the plane, no reflection).

    Args:
        points: (N, K, 2) x, y.
        template: (K, 2).

    Returns:
        (N,) a and (N,) b.
    """
    z, w = _complex(points), _complex(template)
    near, far = z - z.mean(1, keepdims=True), w - w.mean()
    spread = np.maximum((abs(near) ** 2).sum(1), np.finfo(np.float64).eps)
    a = (near.conj() * far).sum(1) / spread
    return a, w.mean() - a * z.mean(1)


def align(faces: Faces, height: int, width: int) -> Chips:
    """Crops in ArcFace's pose, bilinear, black outside; scaled by the height, centred across."""
    points, template = faces.landmarks
    scale = height / ARCFACE_SIDE
    wanted = template * scale + np.array([(width - ARCFACE_SIDE * scale) / 2, 0.0])
    # Points on one spot, of an estimator gone wild, are no face either.
    known = np.isfinite(points).all((1, 2)) & (np.ptp(points, axis=1).max(1) > 1)
    chips = middle(faces.pixels, height, width)
    if known.any():
        rows = torch.from_numpy(known)
        chips[rows] = warp(faces.pixels[rows], *similarity(points[known], wanted), height, width)
    return Chips(chips, int((~known).sum()))


def warp(pixels: Tensor, a: Complex, b: Complex, height: int, width: int) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, height, width) uint8; pixel z of an image goes to a z + b."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    back = ((x + 1j * y)[None] - b[:, None, None]) / a[:, None, None]
    size = np.array([pixels.shape[3], pixels.shape[2]])
    grid = (2 * np.stack([back.real, back.imag], -1) + 1) / size - 1
    parts = [
        F.grid_sample(block.float(), where, align_corners=False).round_().to(torch.uint8)
        for block, where in zip(
            torch.split(pixels, _BATCH),
            torch.split(torch.from_numpy(grid).float(), _BATCH),
            strict=True,
        )
    ]
    return torch.cat(parts)


def middle(pixels: Tensor, height: int, width: int) -> Tensor:
    """The largest crop of the wanted shape from the middle of each image, resized to it.

    Args:
        pixels: (N, 3, H, W) uint8.
        height: of the result.
        width: of the result.

    Returns:
        (N, 3, height, width) uint8, a new tensor.
    """
    h, w = pixels.shape[2:]
    scale = min(h / height, w / width)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (h - tall) // 2, (w - wide) // 2
    crop = pixels[:, :, top : top + tall, left : left + wide]
    return shrink(crop, height, width)


def shrink(pixels: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) uint8 resized to (N, 3, height, width), bilinear and anti-aliased."""
    out = torch.empty(len(pixels), 3, height, width, dtype=torch.uint8)
    for start in range(0, len(pixels), _BATCH):
        block = pixels[start : start + _BATCH].float()
        small = F.interpolate(block, (height, width), mode="bilinear", antialias=True)
        out[start : start + _BATCH] = small.round_().clamp_(0, 255).to(torch.uint8)
    return out


def _complex(points: Points) -> Complex:
    return np.asarray(points[..., 0] + 1j * points[..., 1])
