"""Membership by the nearest generated image (GAN-Leaks: Chen et al., CCS 2020, full black box)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from privbench.errors import PluginError
from privbench.membership import MembershipView
from privbench.types import ImageSet
from privbench_plugins.attacks.alignment import shrink
from privbench_plugins.attacks.membership._blocks import in_blocks
from privbench_plugins.attacks.membership._embedders import Space, load_embedding
from privbench_plugins.attacks.membership.nearest import PIXELS, NearestConfig

QUERIES = 256
"""Queries that are compared at once."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Images as they are, resized: the root mean square of the grey level is the unit."""

    side: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Space`."""
        small = shrink(pixels, self.side, self.side).flatten(1)
        return small.float().div_(255 * small.shape[1] ** 0.5)


class Nearest:
    """See `NearestConfig`."""

    def __init__(self, config: NearestConfig) -> None:
        self.config = config

    def train(self, view: MembershipView) -> TrainedNearest:
        """Embed the samples; nothing is learnt.

        Raises:
            PluginError: there are no samples.
            ModelError: the embedder cannot be read.
        """
        config = self.config
        space = space_of(config, view.device)
        samples = rows_of(space, view.samples, "samples of the target")
        reference = None
        if config.calibrate != "none":
            kind = f"samples of the attacker's own ({config.calibrate})"
            reference = rows_of(space, view.own(config.calibrate), kind)
        report = {
            "samples": len(samples),
            "reference": 0 if reference is None else len(reference),
            "dimensions": samples.shape[1],
        }
        return TrainedNearest(report, space, samples, reference)


@dataclass(slots=True, eq=False)
class TrainedNearest:
    """Samples in a space.

    Attributes:
        report: how many.
        space: places images in it.
        samples: (M, D) of the target.
        reference: (R, D) of another model; None without calibration.
    """

    report: Mapping[str, Any]
    space: Space
    samples: Tensor
    reference: Tensor | None

    def score(self, images: ImageSet) -> Tensor:
        """(N,) distance from the reference, 0 without one, less that from the samples."""
        rows = self.space(images.pixels)
        near = nearest(rows, self.samples)
        return -near if self.reference is None else nearest(rows, self.reference) - near


def space_of(config: NearestConfig, device: torch.device) -> Space:
    """The space that the setting names."""
    if config.space == PIXELS:
        return Pixels(config.side)
    return load_embedding(config.space, config.batch, device)


def rows_of(space: Space, images: ImageSet, kind: str) -> Tensor:
    """(N, D) features.

    Raises:
        PluginError: there is no image.
    """
    if not len(images):
        raise PluginError(f"mia-nearest needs {kind}; got none. Release at least one.")
    return space(images.pixels)


def nearest(rows: Tensor, others: Tensor) -> Tensor:
    """(N,) Euclidean distance of (N, D) rows from the nearest of (M, D) others.

    Products find who is nearest, a subtraction says how near: close to zero the former lose all
    their digits.
    """
    squares = others.square().sum(1)

    def work(block: Tensor) -> Tensor:
        index = (block @ others.T).mul_(-2).add_(squares).argmin(1)
        return (block - others[index]).square().sum(1).sqrt()

    return in_blocks(rows, QUERIES, work)
