"""`mia-cdi`: errors of several kinds, for the inference about whole sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from privbench.errors import PluginError
from privbench.membership import MembershipView
from privbench.types import ImageSet
from privbench_plugins.attacks.membership._errors import Denoising, ProximalError, StepError
from privbench_plugins.attacks.membership._graybox import Questions
from privbench_plugins.attacks.membership.cdi import CdiConfig


@dataclass(slots=True, eq=False)
class TrainedCdi:
    """Features, and how they vary over images that are no members.

    Attributes:
        questions: what the model is asked.
        mean: (F,) float64 of each feature there.
        scale: (F,) float64 standard deviation; 1 where a feature is constant.
        report: all of it, for the record.
    """

    questions: Questions
    mean: Tensor
    scale: Tensor
    report: Mapping[str, Any]

    def score(self, images: ImageSet) -> Tensor:
        """(N, 1 + F): the mean of the standardised features, then the features."""
        features = -self.questions(images)
        standardised = (features - self.mean) / self.scale
        return torch.cat([standardised.mean(1, keepdim=True).float(), features], 1)


class Cdi:
    """Collects what single-image attacks say of an image (Dubiński et al. 2025, CDI)."""

    def __init__(self, config: CdiConfig) -> None:
        self.config = config

    def train(self, view: MembershipView) -> TrainedCdi:
        """Measure the features of the attacker's own non-members.

        Raises:
            PluginError: there is no model to ask, or no photo to measure.
        """
        config = self.config
        errors = (
            Denoising(config.levels, config.repeats),
            StepError(config.step_level, config.steps),
            ProximalError(config.proximal_level, config.norm, config.normalised),
        )
        questions = Questions.of(errors, config.batch, view)
        if not len(view.validation):
            raise PluginError("mia-cdi standardises by attacker-validation photos; got none.")
        scaler = StandardScaler().fit(-questions(view.validation).double().numpy())
        report = {
            **questions.report(),
            "mean": scaler.mean_.tolist(),
            "scale": scaler.scale_.tolist(),
        }
        mean, scale = torch.from_numpy(scaler.mean_), torch.from_numpy(scaler.scale_)
        return TrainedCdi(questions, mean, scale, report)
