"""Scores that know nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from privbench.membership import MembershipView
from privbench.types import ImageSet
from privbench_plugins.attacks.membership._blocks import image_seed


class RandomMembership:
    """Guesses."""

    def train(self, view: MembershipView) -> TrainedGuess:
        """Keep the seed."""
        return TrainedGuess(view.seed)


@dataclass(slots=True, eq=False)
class TrainedGuess:
    """A seed."""

    seed: int
    report: Mapping[str, Any] = field(default_factory=dict)

    def score(self, images: ImageSet) -> Tensor:
        """(N,) uniform in [0, 1), from the seed and the pixels of each image alone."""
        seeds = [image_seed(image, 0, self.seed) for image in images.pixels]
        return torch.tensor(seeds, dtype=torch.float64) / 2.0**63
