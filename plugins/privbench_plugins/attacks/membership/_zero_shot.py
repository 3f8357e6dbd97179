"""Membership by two mean embeddings: the baseline beside a trained classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from privbench.membership import MembershipView
from privbench.types import ImageSet
from privbench_plugins.attacks.membership._embedders import Space, load_embedding
from privbench_plugins.attacks.membership._negatives import negatives_of
from privbench_plugins.attacks.membership.zero_shot import ZeroShotConfig


class ZeroShot:
    """See `ZeroShotConfig`."""

    def __init__(self, config: ZeroShotConfig) -> None:
        self.config = config

    def train(self, view: MembershipView) -> TrainedZeroShot:
        """Average embeddings; nothing is learnt.

        Raises:
            PluginError: there are too few images.
            ModelError: the embedder cannot be read.
        """
        negatives = negatives_of(view, self.config.negatives)
        space = load_embedding(self.config.backbone, self.config.batch, view.device)
        positive, negative = (centre(space(x.pixels)) for x in (view.samples, negatives))
        report = {
            "positives": len(view.samples),
            "negatives": len(negatives),
            "cosine_of_means": float(positive @ negative),
        }
        return TrainedZeroShot(report, space, positive - negative)


@dataclass(slots=True, eq=False)
class TrainedZeroShot:
    """A direction.

    Attributes:
        report: how many images it is from, and how alike their means are.
        space: embeds images.
        direction: (D,) difference of two rows of length one.
    """

    report: Mapping[str, Any]
    space: Space
    direction: Tensor

    def score(self, images: ImageSet) -> Tensor:
        """(N,) cosine with the mean of the target's samples, less that with the negatives'."""
        return (self.space(images.pixels) * self.direction).sum(1)


def centre(rows: Tensor) -> Tensor:
    """(D,) mean of (N, D) rows, of length one."""
    return F.normalize(rows.mean(0), dim=0)
