"""Images that the kit draws itself: people who can be told apart."""

from __future__ import annotations

import numpy as np
import torch

from privbench.types import UNKNOWN, ImageSet, quantize

SIZE = 128
"""Height and width of the images, in pixels."""


def drawing(person: int, shot: int = 0) -> torch.Tensor:
    """(3, SIZE, SIZE) floats in [0, 1]: an oval with eyes and a mouth before a gradient.

    Colours and shape are the person's. Another shot is moved by up to 3 pixels, up to 5 % lighter
    or darker, and has noise of 2 % of the range.
    """
    rng, taken = np.random.default_rng(person), np.random.default_rng([person, shot])
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    colour = rng.uniform(0.2, 0.9, size=(4, 3, 1, 1))
    wide, high = rng.uniform(0.4, 0.7, size=2)
    if shot:
        x, y = x + taken.uniform(-0.04, 0.04), y + taken.uniform(-0.04, 0.04)
    image = colour[0] * (y + 1) / 2 + colour[1] * (1 - y) / 2
    for cx, cy, rx, ry, c in (
        (0.0, 0.0, wide, high + 0.15, colour[2]),
        (-0.2, -0.15, 0.08, 0.05, 0.1 * colour[3]),
        (0.2, -0.15, 0.08, 0.05, 0.1 * colour[3]),
        (0.0, 0.3, 0.2, 0.05, colour[3]),
    ):
        image = np.where(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1, c, image)
    if shot:
        image = image * taken.uniform(0.95, 1.05) + taken.normal(0, 0.02, image.shape)
    return torch.from_numpy(image.clip(0, 1)).float()


def portraits(people: range, shots: range) -> ImageSet:
    """Every shot of every person, person by person, under ids that name them."""
    names = [(person, shot) for person in people for shot in shots]
    return ImageSet(
        quantize(torch.stack([drawing(person, shot) for person, shot in names])),
        np.array([person for person, _ in names], dtype=np.int64),
        tuple(f"person-{person}-shot-{shot}" for person, shot in names),
    )


def static(images: ImageSet) -> ImageSet:
    """As many images of noise: what a perfect anonymizer releases."""
    generator = torch.Generator().manual_seed(len(images))
    pixels = torch.randint(0, 256, images.pixels.shape, dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, images.subject, images.keys)


def withheld(images: ImageSet, prefix: str) -> ImageSet:
    """The same pixels, subjects withheld and ids neutral, as the harness shows them."""
    names = tuple(f"{prefix}-{i}" for i in range(len(images)))
    return ImageSet(images.pixels, np.full(len(images), UNKNOWN), names)
