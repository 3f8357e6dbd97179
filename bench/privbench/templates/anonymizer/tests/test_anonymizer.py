"""The anonymizer keeps privbench's contract, and does what it says."""

import numpy as np
import torch
from privbench.testing import Check, parametrize_with_checks
from privbench.types import UNKNOWN, ImageBatch

from privbench_blur import SPEC, Blur


@parametrize_with_checks([SPEC])
def test_contract(check: Check) -> None:
    """Every promise that privbench relies on is kept."""
    check()


def test_a_pixel_becomes_the_mean_of_its_square() -> None:
    """One white pixel on black is spread over 3 x 3 pixels, and nothing else changes."""
    pixels = torch.zeros(1, 3, 9, 9)
    pixels[..., 4, 4] = 1
    expected = torch.zeros(1, 3, 9, 9)
    expected[..., 3:6, 3:6] = 1 / 9
    released = Blur(radius=1).anonymize(ImageBatch(pixels, np.array([UNKNOWN]), ("a",)), [0])
    torch.testing.assert_close(released, expected)
