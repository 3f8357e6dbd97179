"""Membership inference: what a generative anonymizer is, what its attackers get, and what they
return.

The target is trained on the images to protect and releases samples. The attacker asks of an image
whether it was among them (Holme et al., VISAPP 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from privbench.progress import Reporter
from privbench.types import Floats, ImageSet

Arrays = Mapping[str, NDArray[Any]]

Own = Literal["generated", "base-model"]
"""Samples of an attacker's own: of a model trained on its auxiliary images by the target's recipe,
or of the model that was there before any training."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A training after whole epochs.

    Attributes:
        epoch: epochs done.
        weights: what the model of this epoch is made of; `Generator.restore` takes it.
        resume: what else must be known to go on, such as the optimiser's state.
        report: JSON-able facts of the training so far: losses, images per second.
    """

    epoch: int
    weights: Arrays
    resume: Arrays
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What fine-tuning gets from the harness.

    Attributes:
        seed: all randomness comes from it.
        device: where to compute.
        reporter: progress.
        start: where an interrupted training goes on; None at the beginning.
        keep: takes a checkpoint; it survives a kill. Called at every epoch whose model may be
            released, at the last one, and in between as often as seems right.
    """

    seed: int
    device: torch.device
    reporter: Reporter
    start: Checkpoint | None
    keep: Callable[[Checkpoint], None]


class Denoiser(Protocol):
    """Gray-box access to a released diffusion model.

    Attributes:
        alphas: (T,) float64 cumulative signal share of each noise level, descending (the
            alpha-bar of DDPM): noisy = sqrt(alphas[t]) latent + sqrt(1 - alphas[t]) noise.
    """

    alphas: Floats

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) float32 latents of (N, 3, H, W) uint8 images of any size."""
        ...

    def predict(self, noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) float32 predicted noise, under the prompt of the release.

        Args:
            noisy: (N, C, h, w) float32.
            levels: (N,) int64 in [0, T).
        """
        ...


class TargetModel(Protocol):
    """A trained generative model."""

    def sample(
        self, seeds: Sequence[int], size: tuple[int, int], prompts: Sequence[str] | None = None
    ) -> torch.Tensor:
        """Fresh images.

        Args:
            seeds: one 63-bit seed per image; all randomness of image i comes from `seeds[i]`.
            size: (height, width) in pixels.
            prompts: one per image; None: that of the release.

        Returns:
            (n, 3, H, W) float in [0, 1]; image i does not depend on the others.
        """
        ...

    def denoiser(self) -> Denoiser:
        """What a gray-box attacker may ask."""
        ...


class Generator(Protocol):
    """A generative anonymizer: trained on the images to protect, it releases samples.

    Its configuration (`GeneratorConfig`) says what training depends on. Where its `recipe` is
    empty, nothing is trained and `restore` is called with no weights: a model that exists already.
    """

    def fit(self, private: ImageSet, training: Training) -> None:
        """Train, from `training.start` on; the results are the checkpoints that are kept."""
        ...

    def restore(self, weights: Arrays, device: torch.device) -> TargetModel | None:
        """The model of one checkpoint; None where only released images are at hand."""
        ...

    def released(self) -> ImageSet | None:
        """Images that somebody else has released; None where the harness is to sample them."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MembershipView:
    """Everything that an attack on membership has before it meets a query.

    Attributes:
        samples: released by the target.
        auxiliary: the attacker's own photos, of another population; no members.
        validation: likewise, of other people: the only data on which to choose.
        own: samples of the attacker's own models, by kind, at the same prompt and settings; made
            when they are asked for. As many as `samples`.
        generate: (prompts, seeds) to images: counted answers of the target to prompts; None where
            there are only released images.
        denoiser: gray-box access; None below that threat model.
        seed: all randomness comes from it.
        device: where to compute.
        reporter: progress.
    """

    samples: ImageSet
    auxiliary: ImageSet
    validation: ImageSet
    own: Callable[[Own], ImageSet]
    generate: Callable[[Sequence[str], Sequence[int]], ImageSet] | None
    denoiser: Denoiser | None
    seed: int
    device: torch.device
    reporter: Reporter


class TrainedMembership(Protocol):
    """A trained attack on membership.

    Attributes:
        report: JSON-able facts for the record.
    """

    report: Mapping[str, Any]

    def score(self, images: ImageSet) -> torch.Tensor:
        """How likely each image is to be a member.

        Returns:
            (N,) float, larger is likelier; or (N, 1 + F): that score, then F features from which
            inference about a whole set learns. Row i must not depend on the other images.
        """
        ...


class MembershipAttack(Protocol):
    """An attack on membership (`Tags.infers = "queries"`)."""

    def train(self, view: MembershipView) -> TrainedMembership:
        """Return a new, trained attack; `self` is unchanged."""
        ...


@runtime_checkable
class LabelledBaseline(Protocol):
    """Can members and others be told apart without the target (`Tags.infers = "labels"`)?

    If so, a high score of an attack may be no membership at all (Das et al. 2024, blind
    baselines). The harness cross-fits it: nobody is scored by what their own images taught.
    """

    def learn(
        self, images: ImageSet, member: NDArray[np.bool_], seed: int, device: torch.device
    ) -> TrainedMembership:
        """Learn from people whose membership is known."""
        ...
