"""Gaussian noise keeps privbench's contract, and is Gaussian noise."""

import numpy as np
import pytest
import torch
from privbench.testing import Check, parametrize_with_checks
from privbench.types import UNKNOWN, ImageBatch

from privbench_noise import SPEC, GaussianNoise


@parametrize_with_checks([SPEC])
def test_contract(check: Check) -> None:
    """Every promise that privbench relies on is kept."""
    check()


def test_noise_has_the_standard_deviation_asked_for() -> None:
    """On mid grey, where nothing is clipped, the spread is sigma."""
    grey = ImageBatch(torch.full((1, 3, 64, 64), 0.5), np.array([UNKNOWN]), ("a",))
    noise = GaussianNoise(sigma=0.05).anonymize(grey, [7]) - 0.5
    assert float(noise.std()) == pytest.approx(0.05, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.003)
