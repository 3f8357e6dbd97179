"""Pixel fidelity: mean over images of one number per image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from privbench.errors import DataError
from privbench.types import Evidence, Floats, Output
from privbench_plugins.metrics._common import release, weighted_mean

Compare = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two (N, 3, H, W) float batches in [0, 1] to (N,)."""

BATCH = 32
WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004
MARGIN = WINDOW // 2
C1, C2 = 0.01**2, 0.03**2


class Fidelity:
    """One number per pair of images, and its mean."""

    def __init__(self, compare: Compare, output: Output) -> None:
        self.compare = compare
        self.output = output

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One output."""
        return (self.output,)

    def chance(self, evidence: Evidence) -> Floats:
        """There is none."""
        return np.array([np.nan])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 1)."""
        pair = release(evidence)
        source, released = pair.source, pair.released
        blocks = [slice(i, i + BATCH) for i in range(0, len(source), BATCH)]
        values = [self.compare(source.floats(b), released.floats(b)) for b in blocks]
        return torch.cat(values)[:, None].double().numpy()

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """The weighted mean."""
        return weighted_mean(rows, weights)


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004), mean of the channels.

    Gaussian window of 11 pixels (sigma 1.5), K1 = .01, K2 = .03; borders are reflected, so that
    every pixel counts, as in torchmetrics.

    Args:
        a: (N, 3, H, W) in [0, 1], H and W at least 6.
        b: the same shape.

    Returns:
        (N,) in [-1, 1]; 1 for identical images.
    """
    if min(a.shape[-2:]) <= MARGIN:  # a reflection must fit
        raise DataError(
            f"SSIM needs images of {MARGIN + 1} pixels a side or more; got {tuple(a.shape[-2:])}."
        )
    mean_a, mean_b, aa, bb, ab = _blur(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    structure = (2 * (ab - product) + C2) / (aa + bb - squares + C2)
    return ((2 * product + C1) / (squares + C1) * structure).mean(dim=(1, 2, 3))


def psnr(a: torch.Tensor, b: torch.Tensor, cap: float) -> torch.Tensor:
    """Peak signal-to-noise ratio with peak 1, at most `cap` dB.

    Args:
        a: (N, 3, H, W) in [0, 1].
        b: the same shape.
        cap: identical images would be infinite, and no mean would survive one of them.

    Returns:
        (N,) dB.
    """
    error = (a - b).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).clamp(max=cap)


def _blur(x: torch.Tensor) -> torch.Tensor:
    """Gaussian means of (N, 3, H, W), the same shape. Two products: 10 times faster than conv2d."""
    down, across = (_blur_matrix(side).to(x) for side in x.shape[-2:])
    return down.T @ x @ across


def _blur_matrix(side: int) -> torch.Tensor:
    """(side, side): column j holds the weights of each pixel in the mean around pixel j."""
    offset = torch.arange(WINDOW) - MARGIN
    window = torch.softmax(-(offset**2) / (2 * SIGMA**2), dim=0)
    padded = F.pad(torch.eye(side)[None], (MARGIN, MARGIN), mode="reflect")[0]
    return padded.unfold(1, WINDOW, 1) @ window
