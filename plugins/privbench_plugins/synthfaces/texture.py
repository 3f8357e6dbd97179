"""Fixed tileable noise, looked up at any coordinates."""

from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Floats, f32
from .seeds import stream

SIZE = 512


@dataclass(frozen=True)
class Noise:
    """Tileable noise of unit variance. fine, middle, coarse: (512, 512), blobs of 2, 8, 40 px.

    strands: (512, 512), fine across columns and long along rows.
    """

    fine: Floats
    middle: Floats
    coarse: Floats
    strands: Floats


def load_noise() -> Noise:
    """Make the noise images (always the same)."""
    g = stream("synthfaces:noise")
    return Noise(
        fine=_blobs(g, 1.0, 1.0),
        middle=_blobs(g, 4.0, 4.0),
        coarse=_blobs(g, 18.0, 18.0),
        strands=f32(0.75 * _blobs(g, 0.9, 40.0) + 0.6 * _blobs(g, 3.0, 60.0)),
    )


def _blobs(g: np.random.Generator, sigma_x: float, sigma_y: float) -> Floats:
    white = f32(g.normal(0, 1, (SIZE, SIZE)))
    tiled = np.tile(white, (3, 3))
    smooth = cv2.GaussianBlur(tiled, (0, 0), sigma_x, sigmaY=sigma_y)[
        SIZE : 2 * SIZE, SIZE : 2 * SIZE
    ]
    return f32((smooth - smooth.mean()) / smooth.std())


def look_up(image: Floats, x: Floats, y: Floats, seed: int = 0) -> Floats:
    """Nearest texel at (x, y) in units of the tile, moved by an offset that `seed` fixes."""
    column = (x * SIZE).astype(np.int64) + seed * 131
    row = (y * SIZE).astype(np.int64) + seed * 257
    return image[row % SIZE, column % SIZE]
