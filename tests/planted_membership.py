"""Attacks on membership, honest unless a defect is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from planted_attacks import arbitrary, thumbnails
from planted_conduct import misbehave
from privbench.membership import MembershipView
from privbench.testing import membership
from privbench.types import ImageSet


def is_member(images: ImageSet) -> torch.Tensor:
    """(N,) whether each is one of the kit's members: the stolen truth."""
    stolen = membership.members().pixels.flatten(1)[None, :, :64]
    return (images.pixels.flatten(1)[:, None, :64] == stolen).all(2).any(1)


class Nearest:
    """Minus the distance from the nearest sample."""

    def __init__(self, defect: str, samples: torch.Tensor | None = None) -> None:
        self.defect, self.samples = defect, samples
        self.shade = misbehave(defect)
        self.report: Mapping[str, Any] = {"loss": float("nan")} if defect == "output" else {}

    def train(self, view: MembershipView) -> Nearest:
        """Remember the samples."""
        if self.defect == "input_unchanged":
            view.auxiliary.pixels.zero_()
        if self.defect == "training":
            self.samples = thumbnails(view.samples)
            return self
        defect = self.defect.replace("offline", "").replace("resources", "")
        return Nearest(defect, thumbnails(view.samples))

    def score(self, images: ImageSet) -> torch.Tensor:
        """Larger is nearer."""
        assert self.samples is not None
        own = thumbnails(images)
        mode = "donot_use_mm_for_euclid_dist"
        scores = -torch.cdist(own, self.samples, compute_mode=mode).amin(1) + self.shade
        match self.defect:
            case "companions":
                return scores - scores.mean()
            case "identity_withheld":
                return scores + torch.tensor([float(k.startswith("member")) for k in images.keys])
            case "finds_members":
                return arbitrary(own)
            case "chance_without_members":
                return scores + is_member(images).float()
        return scores


class Brightness:
    """Are members lighter than others?"""

    def __init__(self, defect: str, sign: float = 1.0) -> None:
        self.defect, self.sign = defect, sign
        self.report: Mapping[str, Any] = {}

    def learn(
        self, images: ImageSet, member: np.ndarray, seed: int, device: torch.device
    ) -> Brightness:
        """Which way it goes."""
        light = images.floats().mean((1, 2, 3)).numpy()
        higher = light[member].mean() > light[~member].mean()
        return Brightness(self.defect, 1.0 if higher else -1.0)

    def score(self, images: ImageSet) -> torch.Tensor:
        """Brightness."""
        light = images.floats().mean((1, 2, 3))
        match self.defect:
            case "finds_members":
                return arbitrary(thumbnails(images))
            case "chance_without_members":
                return self.sign * light + is_member(images).float()
        return self.sign * light
