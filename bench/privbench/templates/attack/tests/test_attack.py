"""The attack keeps privbench's contract, and does what it says."""

import numpy as np
import torch
from privbench.testing import Check, parametrize_with_checks
from privbench.types import ImageSet

from privbench_thumbnails import SPEC, thumbnails


@parametrize_with_checks([SPEC])
def test_contract(check: Check) -> None:
    """Every promise that privbench relies on is kept."""
    check()


def test_a_thumbnail_holds_means_of_squares() -> None:
    """Each number is the mean of one square of pixels, in [0, 1]."""
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[:, 0, :4, 4:] = 255
    rows = thumbnails(ImageSet(pixels, np.array([0]), ("a",)), side=2)
    np.testing.assert_allclose(rows, [[0, 1, 0, 0] + [0] * 8])
