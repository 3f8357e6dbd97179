"""Images that the kit draws itself."""

from __future__ import annotations

import numpy as np
import torch

SIZE = 128
"""Height and width of the images, in pixels."""


def drawing(index: int) -> torch.Tensor:
    """(3, SIZE, SIZE) floats in [0, 1]: an oval with eyes and a mouth before a gradient."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    colour = rng.uniform(0.2, 0.9, size=(4, 3, 1, 1))
    image = colour[0] * (y + 1) / 2 + colour[1] * (1 - y) / 2
    wide, high = rng.uniform(0.4, 0.7, size=2)
    for cx, cy, rx, ry, c in (
        (0.0, 0.0, wide, high + 0.15, colour[2]),
        (-0.2, -0.15, 0.08, 0.05, 0.1 * colour[3]),
        (0.2, -0.15, 0.08, 0.05, 0.1 * colour[3]),
        (0.0, 0.3, 0.2, 0.05, colour[3]),
    ):
        image = np.where(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1, c, image)
    return torch.from_numpy(image).float()
