"""The kit's generative model: one that knows the images it was trained on by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from privbench.membership import MembershipView, Own
from privbench.progress import Silent
from privbench.testing.attacker import CPU, SEED, copied
from privbench.testing.drawings import portraits
from privbench.types import UNKNOWN, Floats, ImageSet

MEMBERS = 20
"""Members, as many others, and as many images in each of an attacker's own sets."""

COPIES = 8
"""How often a model that knows its images by heart releases each of them."""

LATENT = 16
"""Height and width of the latents: images made smaller."""


@cache
def photos(first: int) -> ImageSet:
    """One photo each of MEMBERS people."""
    return portraits(range(first, first + MEMBERS), range(1, 2))


def _alphas() -> Floats:
    kept: Floats = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)).astype(np.float64)
    return kept


@dataclass(eq=False)
class Memory:
    """A target that releases its training images, slightly noised.

    Attributes:
        known: what it was trained on.
        alphas: (1000,) the linear schedule of DDPM.
    """

    known: ImageSet
    alphas: Floats = field(default_factory=_alphas)

    def samples(self, seed: int) -> ImageSet:
        """Each training image COPIES times, with noise of 1 % of the range."""
        generator = torch.Generator().manual_seed(seed)
        images = self.known.pixels.repeat(COPIES, 1, 1, 1)
        noise = torch.randn(images.shape, generator=generator) * 2.55
        pixels = (images + noise).round().clamp(0, 255).to(torch.uint8)
        count = len(pixels)
        names = tuple(f"sample-{seed}-{i}" for i in range(count))
        return ImageSet(pixels, np.full(count, UNKNOWN), names)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> ImageSet:
        """Training images, whatever was asked for."""
        rows = [seed % len(self.known) for seed in seeds]
        names = tuple(f"answer-{i}" for i in range(len(rows)))
        return ImageSet(self.known.pixels[rows], np.full(len(rows), UNKNOWN), names)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, LATENT, LATENT) in [-1, 1]."""
        return F.interpolate(pixels.float(), (LATENT, LATENT), mode="area") / 127.5 - 1

    def predict(self, noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """The noise, as the best denoiser of the training images finds it.

        Of an image drawn among finitely many, the posterior mean given its noisy version is their
        average, weighted by how likely each is to be behind it.
        """
        alpha = torch.from_numpy(self.alphas)[levels].view(-1, 1)
        flat, memory = noisy.double().flatten(1), self.encode(self.known.pixels).double().flatten(1)
        squares = (flat[:, None] - alpha.sqrt()[:, None] * memory[None]).square().sum(2)
        weights = torch.softmax(-squares / (2 * (1 - alpha)), 1)
        found = (flat - alpha.sqrt() * (weights @ memory)) / (1 - alpha).sqrt()
        return found.view_as(noisy).to(noisy.dtype)


def view(knowledge: str | None, trained_on: ImageSet) -> MembershipView:
    """What an attacker on a target has that was trained on some images."""
    target = Memory(trained_on)
    auxiliary, validation = copied(photos(600)), copied(photos(700))

    def own(kind: Own) -> ImageSet:
        return Memory(auxiliary if kind == "generated" else photos(800)).samples(1)

    return MembershipView(
        samples=target.samples(0),
        auxiliary=auxiliary,
        validation=validation,
        own=own,
        generate=None if knowledge == "none" else target.generate,
        denoiser=target if knowledge == "gray-box" else None,
        seed=SEED,
        device=CPU,
        reporter=Silent(),
    )
