"""What gray-box attacks on membership share: how a released model is asked, and who asks it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.errors import PluginError
from privbench.membership import Denoiser, MembershipView
from privbench.progress import Reporter
from privbench.types import ImageSet

VISIBLE: Final = 1e-4
"""Least signal share of a level at which a model is asked: below it an image cannot be seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Images of one block as the released model sees them.

    Attributes:
        denoiser: the model.
        latents: (N, C, h, w) float32 of the images.
        seeds: N, one per image: all that is random about it comes from there.
    """

    denoiser: Denoiser
    latents: Tensor
    seeds: Sequence[int]

    def level(self, share: float) -> int:
        """The noise level at a share of all T, or the last at which something can be seen."""
        levels = len(self.denoiser.alphas)
        last = int((self.denoiser.alphas >= VISIBLE).sum()) - 1
        return max(0, min(round(share * levels), last))

    def noise(self, draws: int) -> Tensor:
        """(N, draws, C, h, w) standard normal; each image's own."""
        shape = (draws, *self.latents.shape[1:])
        made = [torch.randn(shape, generator=_generator(seed)) for seed in self.seeds]
        return torch.stack(made).to(self.latents.device)

    def noised(self, noise: Tensor, level: int) -> Tensor:
        """(N, C, h, w) latents with (N, C, h, w) noise at a level."""
        alpha = float(self.denoiser.alphas[level])
        return math.sqrt(alpha) * self.latents + math.sqrt(1 - alpha) * noise

    def predict(self, noisy: Tensor, levels: Sequence[int]) -> Tensor:
        """(N, L, C, h, w) predicted noise of (N, L, C, h, w), column by column at its level."""
        columns = torch.tensor(levels, device=noisy.device).repeat(len(noisy))
        return self.denoiser.predict(noisy.flatten(0, 1), columns).view_as(noisy)

    def ddim(self, noisy: Tensor, here: int, there: int) -> Tensor:
        """A deterministic step (DDIM, Song et al. 2021) to another level, up or down.

        Args:
            noisy: (N, C, h, w) at the level `here`.
            here: where the noise is predicted.
            there: the level of the result.
        """
        noise = self.predict(noisy[:, None], [here])[:, 0]
        known, wanted = (float(self.denoiser.alphas[level]) for level in (here, there))
        clean = (noisy - math.sqrt(1 - known) * noise) / math.sqrt(known)
        return math.sqrt(wanted) * clean + math.sqrt(1 - wanted) * noise


class Errors(Protocol):
    """How badly a model knows images; worse means less likely members."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the F errors."""
        ...

    @property
    def evaluations(self) -> int:
        """Noise predictions that each image costs."""
        ...

    def of(self, probe: Probe) -> Tensor:
        """(N, F) float32; row i depends on image i alone."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Errors of any images under a released model.

    Attributes:
        denoiser: the model.
        errors: what is measured.
        batch: images at once.
        seed: of the run.
        reporter: progress.
    """

    denoiser: Denoiser
    errors: tuple[Errors, ...]
    batch: int
    seed: int
    reporter: Reporter

    @classmethod
    def of(cls, errors: tuple[Errors, ...], batch: int, view: MembershipView) -> Questions:
        """For an attacker's view.

        Raises:
            PluginError: there is no model to ask.
        """
        if view.denoiser is None:
            raise PluginError(
                "This attack has the released model predict noise (gray-box access), but only "
                "images were released here. Choose an attack that is black-box."
            )
        return cls(view.denoiser, errors, batch, view.seed, view.reporter)

    @torch.no_grad()
    def __call__(self, images: ImageSet) -> Tensor:
        """(N, F) float32 on the CPU, in blocks of one shape: only their errors are kept."""
        rows = []
        with self.reporter.task("predicting noise", len(images)) as task:
            for block in torch.split(images.pixels, self.batch):
                rows.append(self._block(block).cpu())
                task.advance(len(block))
        return torch.cat(rows)

    def _block(self, pixels: Tensor) -> Tensor:
        filled = F.pad(pixels, (0,) * 7 + (self.batch - len(pixels),))
        seeds = [noise_seed(image, self.seed) for image in filled]
        probe = Probe(self.denoiser, self.denoiser.encode(filled), seeds)
        return torch.cat([errors.of(probe) for errors in self.errors], 1)[: len(pixels)]

    def report(self) -> Mapping[str, Any]:
        """What is asked, for the record."""
        return {
            "errors": [name for errors in self.errors for name in errors.names],
            "evaluations_per_image": sum(errors.evaluations for errors in self.errors),
            "noise_levels": len(self.denoiser.alphas),
            "threads": torch.get_num_threads(),
        }


def noise_seed(image: Tensor, seed: int) -> int:
    """63 bits from a (3, H, W) uint8 image and the run's seed."""
    content = f"{seed}/".encode() + image.numpy().tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(slots=True, eq=False)
class TrainedError:
    """Scores by an error itself: no other image is needed.

    Attributes:
        questions: what the model is asked.
        report: what was asked.
    """

    questions: Questions
    report: Mapping[str, Any]

    def score(self, images: ImageSet) -> Tensor:
        """(N,) minus the mean of the errors."""
        return -self.questions(images).mean(1)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorAttack:
    """An attack whose score is an error of the released model.

    Attributes:
        errors: what is measured.
        batch: images at once.
    """

    errors: Errors
    batch: int

    def train(self, view: MembershipView) -> TrainedError:
        """Nothing is learnt.

        Raises:
            PluginError: there is no model to ask.
        """
        questions = Questions.of((self.errors,), self.batch, view)
        return TrainedError(questions, questions.report())
