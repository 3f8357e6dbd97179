"""Members against others without the target (Das, Zhang and Tramèr 2024, "Blind baselines beat
membership inference attacks for foundation models")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from privbench.errors import PluginError
from privbench.types import Floats, ImageSet
from privbench_plugins.attacks.membership._blocks import in_blocks
from privbench_plugins.attacks.membership._embedders import Space, load_embedding
from privbench_plugins.attacks.membership.blind import BlindConfig


class Blind:
    """See `BlindConfig`."""

    def __init__(self, config: BlindConfig) -> None:
        self.config = config

    def learn(
        self, images: ImageSet, member: NDArray[np.bool_], seed: int, device: torch.device
    ) -> TrainedBlind:
        """Fit a logistic regression; it is convex, so that the seed is not needed.

        Raises:
            PluginError: there are only members, or none.
            ModelError: the embedder cannot be read.
        """
        if len(np.unique(member)) < 2:
            raise PluginError(
                f"mia-blind needs members and others; got {int(member.sum())} members among "
                f"{len(member)} images. Choose a larger preset."
            )
        config = self.config
        features = Features(load_embedding(config.backbone, config.batch, device), config)
        rows = features(images.pixels)
        regression = LogisticRegression(C=1 / config.penalty, max_iter=1000)
        model = make_pipeline(StandardScaler(), regression).fit(rows, member)
        report = {
            "images": len(rows),
            "members": int(member.sum()),
            "features": rows.shape[1],
        }
        return TrainedBlind(report, features, model)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the regression sees of an image: an embedding, then simple statistics of its cells."""

    space: Space
    config: BlindConfig

    def __call__(self, pixels: Tensor) -> Floats:
        """(N, D) of (N, 3, H, W) uint8 images, each from its image alone."""
        cells = self.config.cells
        if not len(pixels):
            return np.empty((0, 1))
        simple = in_blocks(pixels, self.config.batch, lambda block: statistics(block, cells))
        return torch.cat([self.space(pixels), simple], 1).double().numpy()


@dataclass(slots=True, eq=False)
class TrainedBlind:
    """A fitted regression.

    Attributes:
        report: what it has learnt from.
        features: of images.
        model: scikit-learn's.
    """

    report: Mapping[str, Any]
    features: Features
    model: Pipeline

    def score(self, images: ImageSet) -> Tensor:
        """(N,) log-odds of being a member."""
        rows = torch.from_numpy(self.features(images.pixels))
        return in_blocks(rows, self.features.config.batch, self._odds)

    def _odds(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.model.decision_function(rows.numpy()))


def statistics(pixels: Tensor, cells: int) -> Tensor:
    """(N, 7 cells²) mean and spread of each colour, and mean edge, in cells of the image.

    Cells at the rim show frames, marks and backgrounds; edges show compression and blur.

    Args:
        pixels: (N, 3, H, W) uint8.
        cells: per side.
    """
    x = pixels.float().div(255)
    mean = F.adaptive_avg_pool2d(x, cells)
    spread = (F.adaptive_avg_pool2d(x.square(), cells) - mean.square()).clamp(min=0).sqrt()
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = x.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edge = F.adaptive_avg_pool2d(F.conv2d(grey, kernel[None, None]).abs(), cells)
    return torch.cat([mean, spread, edge], 1).flatten(1)
