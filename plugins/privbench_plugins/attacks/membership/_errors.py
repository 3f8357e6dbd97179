"""Errors of a diffusion model that are smaller on what it was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from privbench_plugins.attacks.membership._graybox import Probe


@dataclass(frozen=True, slots=True)
class Denoising:
    """The training loss itself (Matsumoto et al. 2023, Carlini et al. 2023).

    Attributes:
        levels: shares of all noise levels, one error for each.
        repeats: draws of noise over which an error is averaged.
    """

    levels: tuple[float, ...]
    repeats: int

    @property
    def names(self) -> tuple[str, ...]:
        """See `Errors.names`."""
        return tuple(f"loss@{share:g}" for share in self.levels)

    @property
    def evaluations(self) -> int:
        """See `Errors.evaluations`."""
        return len(self.levels) * self.repeats

    def of(self, probe: Probe) -> Tensor:
        """(N, levels) mean squared errors of the predicted noise, all levels at once."""
        levels = [probe.level(share) for share in self.levels for _ in range(self.repeats)]
        noise = probe.noise(len(levels))
        noisy = [probe.noised(noise[:, i], level) for i, level in enumerate(levels)]
        predicted = probe.predict(torch.stack(noisy, 1), levels)
        squared = (predicted - noise).square().flatten(2).mean(2)
        return squared.view(len(noise), -1, self.repeats).mean(2)


@dataclass(frozen=True, slots=True)
class StepError:
    """The t-error of SecMI (Duan et al. 2023), as in their statistic SecMI-stat.

    An image is inverted by deterministic steps to a level, taken one step further and brought
    back; the squared distance between the two is small where the model knows the image.

    Attributes:
        level: share of all noise levels at which it is measured.
        steps: of the inversion, all of one length.
    """

    level: float
    steps: int

    @property
    def names(self) -> tuple[str, ...]:
        """See `Errors.names`."""
        return (f"secmi@{self.level:g}",)

    @property
    def evaluations(self) -> int:
        """See `Errors.evaluations`."""
        return self.steps + 2

    def of(self, probe: Probe) -> Tensor:
        """(N, 1) mean squared distances."""
        *path, further = (
            probe.level(self.level * step / self.steps) for step in range(self.steps + 2)
        )
        inverted = probe.latents
        for here, there in pairwise(path):
            inverted = probe.ddim(inverted, here, there)
        back = probe.ddim(probe.ddim(inverted, path[-1], further), further, path[-1])
        return (back - inverted).square().flatten(1).mean(1, keepdim=True)


@dataclass(frozen=True, slots=True)
class ProximalError:
    """The error of PIA (Kong et al. 2024): the noise that the model sees in the clean image is
    added to it; a model that knows the image finds the same noise again.

    Attributes:
        level: share of all noise levels at which it is added.
        norm: p of the l_p norm.
        normalised: whether the noise is scaled to a standard normal's mean absolute value first
            (PIAN).
    """

    level: float
    norm: float
    normalised: bool

    @property
    def names(self) -> tuple[str, ...]:
        """See `Errors.names`."""
        return (f"{'pian' if self.normalised else 'pia'}@{self.level:g}",)

    @property
    def evaluations(self) -> int:
        """See `Errors.evaluations`."""
        return 2

    def of(self, probe: Probe) -> Tensor:
        """(N, 1) norms of the difference."""
        noise = probe.predict(probe.latents[:, None], [0])
        if self.normalised:
            mean = noise.abs().mean((1, 2, 3, 4), keepdim=True)
            # A model that sees no noise at all must not divide by zero.
            noise = noise / mean.clamp_min(1e-12) * math.sqrt(2 / math.pi)
        level = probe.level(self.level)
        found = probe.predict(probe.noised(noise[:, 0], level)[:, None], [level])
        apart: Tensor = torch.linalg.vector_norm((found - noise).flatten(2), ord=self.norm, dim=2)
        return apart
