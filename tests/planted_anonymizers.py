"""An anonymizer, a stochastic one and a generative one, honest unless a defect is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import planted
from planted_conduct import misbehave
from privbench.keys import sample_seed
from privbench.membership import Arrays, Checkpoint, Training
from privbench.types import ImageBatch, ImageSet

CELL = 32
"""Side of a mosaic cell, in pixels."""


class Mosaic:
    """Cell means."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.shade = misbehave(defect) / 10
        self.seen: list[torch.Tensor] = []
        if defect == "fit":
            self.fit = lambda reference: self

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """Mosaic, with what the defect adds."""
        small = F.avg_pool2d(batch.pixels, CELL)
        out = F.interpolate(small, scale_factor=CELL) * (1 - self.shade)
        return self.spoilt(batch, out)

    def spoilt(self, batch: ImageBatch, out: torch.Tensor) -> torch.Tensor:
        """The defects that show in the pixels or on the tensor."""
        match self.defect:
            case "output":
                return out + 0.5
            case "plain_result":
                out.person = batch.keys  # type: ignore[attr-defined]
            case "source_hidden":
                return 1 - batch.pixels.flip(3) * 0.9
            case "input_unchanged":
                batch.pixels.mul_(0.5)
            case "resources:use":
                self.seen.append(out.clone())
            case "order":
                out[2:3] *= 0.5
            case "companions":  # the kit's first four images hold no such light one
                light = batch.pixels.mean((1, 2, 3)).max() > 0.6
                return out * (0.5 if light else 1.0)
            case "batch_shape" if len(batch) == 1:
                return out * 0.5
            case "identity_withheld" if batch.subject[0] >= 0:
                return out * 0.5
        return out


class Noise:
    """Noise from each image's own seed on a mosaic."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.mosaic = Mosaic("")

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """Mosaic with noise."""
        shape = batch.pixels.shape[1:]
        noise = torch.stack(
            [torch.rand(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )
        if self.defect == "seed_of_each_image" and sample_seed(1, "another") in seeds:
            noise = noise * 0.5
        return (self.mosaic.anonymize(batch, seeds) + noise) / 2


class MeanFace:
    """Releases the mean image with noise."""

    def __init__(self, config: planted.GeneratorDefect) -> None:
        self.config, self.defect = config, config.defect
        self.shade = misbehave(config.defect)

    def fit(self, private: ImageSet, training: Training) -> None:
        """One mean."""
        mean = private.floats().mean(0).numpy() * (1 - self.shade / 2)
        if self.defect == "input_unchanged":
            private.pixels.zero_()
        extra = {"loss": np.array([np.nan])} if self.defect == "checkpoints" else {}
        training.keep(Checkpoint(self.config.epochs, {"mean": mean}, extra))

    def restore(self, weights: Arrays, device: torch.device) -> Any:
        """The model."""
        return MeanModel(self.defect, torch.from_numpy(weights["mean"]))

    def released(self) -> ImageSet | None:
        """Nothing."""
        return None


class MeanModel:
    """A mean image."""

    def __init__(self, defect: str, mean: torch.Tensor) -> None:
        self.defect, self.mean = defect, mean

    def sample(
        self, seeds: Sequence[int], size: tuple[int, int], prompts: Sequence[str] | None = None
    ) -> torch.Tensor:
        """Half mean, half noise."""
        chosen = [0] * len(seeds) if self.defect == "stochastic" else list(seeds)
        noise = [torch.rand(3, *size, generator=torch.Generator().manual_seed(s)) for s in chosen]
        share = 0.5 / len(seeds) if self.defect == "companions" else 0.5
        samples = (1 - share) * self.mean + share * torch.stack(noise)
        return samples + (1 if self.defect == "output" else 0)

    def denoiser(self) -> Any:
        """None."""
        raise NotImplementedError
