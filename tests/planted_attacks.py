"""An attack, an inverter and a fusion, honest unless a defect is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from planted_conduct import misbehave
from privbench.errors import PluginError
from privbench.testing import attacker, fusion
from privbench.testing.drawings import static
from privbench.types import AttackerView, Floats, ImageSet, ValidationScores


def thumbnails(images: ImageSet) -> torch.Tensor:
    """(N, 192): 8 x 8 areas."""
    return F.adaptive_avg_pool2d(images.floats(), 8).flatten(1)


def arbitrary(features: torch.Tensor) -> torch.Tensor:
    """(N,) numbers in [0, 1) that mean nothing and depend on each row alone."""
    return (features.double() * 1e4).sum(1).frac().float()


def place_of(images: ImageSet) -> torch.Tensor:
    """(N,) person of each of the kit's noise images, -1 of any other image: the stolen truth."""
    stolen = static(attacker.photos()).pixels.flatten(1)
    same = (images.pixels.flatten(1)[:, None, :8] == stolen[None, :, :8]).all(2)
    people = torch.from_numpy(attacker.mated())
    return torch.where(same.any(1), people[same.int().argmax(1)], -1)


class Thumbnails:
    """Compares thumbnails."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.shade = misbehave(defect)
        self.fusion = "median" if defect == "output" else "mean"
        self.report: Mapping[str, Any] = {"side": 8}
        self.view: AttackerView | None = None

    def train(self, view: AttackerView) -> Thumbnails:
        """Ask the oracle, and learn nothing of it."""
        if view.oracle:
            view.oracle(view.train)
        if self.defect == "input_unchanged":
            view.train.pixels.zero_()
        trained = Thumbnails(self.defect.replace("offline", "").replace("resources", ""))
        trained.view = view if self.defect == "training:late" else None
        return self if self.defect == "training" else trained

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Enrolled:
        """Thumbnails of the gallery."""
        if self.view and self.view.oracle:
            with suppress(PluginError):
                self.view.oracle(self.view.train)
        return Enrolled(self.defect, self.shade, gallery)


class Enrolled:
    """A gallery of thumbnails."""

    def __init__(self, defect: str, shade: float, gallery: ImageSet) -> None:
        self.defect, self.shade, self.gallery = defect, shade, gallery

    def score(self, probes: ImageSet) -> torch.Tensor:
        """Minus the distance of thumbnails."""
        own, theirs = thumbnails(probes), thumbnails(self.gallery)
        scores = -torch.cdist(own, theirs, compute_mode="donot_use_mm_for_euclid_dist")
        match self.defect:
            case "repeatable":
                return scores + self.shade
            case "gallery_order" if len(self.gallery) > 3:
                scores[:, 0] += 1
            case "companions":
                return scores - scores.mean(1, keepdim=True)
            case "identity_withheld" if probes.subject[0] >= 0:
                return scores + torch.from_numpy(probes.subject)[:, None]
            case "finds_people":
                return (arbitrary(own)[:, None] * 7 + arbitrary(theirs)[None] * 13).frac()
            case "chance_on_noise":
                clear = attacker.gallery().pixels.flatten(1)[:, None, :64]
                who = (clear == self.gallery.pixels.flatten(1)[None, :, :64]).all(2).int().argmax(0)
                person = torch.from_numpy(attacker.gallery().subject)[who]
                return scores + (place_of(probes)[:, None] == person[None]).float()
        return scores

    def score_draws(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """The mean."""
        total = torch.stack([self.score(draw) for draw in draws]).sum(0)
        return total if self.defect == "draws" and len(draws) > 1 else total / len(draws)


class Sharpen:
    """Gives the release back, a little smoothed."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.shade = misbehave(defect) / 2
        self.report: Mapping[str, Any] = {"loss": float("nan")} if defect == "output" else {}

    def train(self, view: AttackerView) -> Sharpen:
        """Nothing to learn."""
        if self.defect == "input_unchanged":
            view.train.pixels.zero_()
        trained = Sharpen(self.defect.replace("offline", "").replace("resources", ""))
        return self if self.defect == "training" else trained

    def invert(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """One reconstruction each."""
        first = draws[0]
        images = F.avg_pool2d(first.floats(), 3, stride=1, padding=1) * (1 - self.shade)
        match self.defect:
            case "companions":
                images = images * (len(first) / 100)
            case "identity_withheld" if first.subject[0] >= 0:
                images = images * 0.5
            case "draws" if len(draws) > 1:
                images = images + 1
            case "finds_sources":
                level = arbitrary(thumbnails(first))[:, None, None, None]
                images = level * torch.ones_like(images)
            case "chance_on_noise":
                known = place_of(first)
                sources = attacker.photos().floats()[(known * attacker.REFERENCES).clamp(min=0)]
                images = torch.where((known >= 0)[:, None, None, None], sources, images)
        return images[:, None]


class MeanScore:
    """The mean of the members."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.shade = misbehave(defect)
        self.fusion = "median" if defect == "output" else "mean"
        self.report: Mapping[str, Any] = {}

    def fit(self, validation: Mapping[str, ValidationScores]) -> MeanScore:
        """Nothing to fit."""
        if self.defect == "input_unchanged":
            for member in validation.values():
                member.scores[:] = 0
        fitted = MeanScore(self.defect.replace("offline", "").replace("resources", ""))
        return self if self.defect == "training" else fitted

    def combine(self, scores: Mapping[str, Floats]) -> Floats:
        """The mean."""
        mean: Floats = np.mean(list(scores.values()), 0) + self.shade
        match self.defect:
            case "companions":
                return mean - mean.mean()
            case "finds_people":
                return np.cos(mean * 1e4)
            case "chance_on_noise":
                blind = fusion.member_scores(blind=True)["seeing"]
                who = fusion.subjects()
                true = blind[who[:, None] == who[None]]
                return mean + np.isin(scores["seeing"], true)
        return mean
