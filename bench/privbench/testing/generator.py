"""What a generative anonymizer does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import canonical_json, sample_seed
from privbench.membership import Checkpoint, TargetModel, Training
from privbench.progress import Silent
from privbench.spec import GeneratorConfig, PluginSpec
from privbench.testing import conduct
from privbench.testing.attacker import CPU, SEED, copied, same_images
from privbench.testing.bench import Results, UsableBench
from privbench.testing.check import require
from privbench.testing.drawings import SIZE, portraits
from privbench.types import ImageSet

SAMPLES = 2
"""Images that are sampled."""

BETWEEN_SHAPES = 1 / 255
"""How far samples may move with the shape of a batch: one grey level."""


def checks(spec: PluginSpec) -> list[Callable[[GeneratorBench], None]]:
    """The checks of a generative anonymizer."""
    return [
        check_recipe,
        check_checkpoints,
        check_input_unchanged,
        *conduct.CHECKS,
        check_output,
        check_companions,
        check_stochastic,
    ]


@dataclass(frozen=True)
class Trained:
    """A trained model with what it came from."""

    model: TargetModel
    kept: tuple[Checkpoint, ...]
    private: ImageSet


class GeneratorBench(UsableBench):
    """A generative anonymizer, with a few images to protect."""

    def make(self) -> Trained:
        """Trained with the smoke settings, as the harness does it."""
        kept: list[Checkpoint] = []
        private = copied(self.private)
        training = Training(SEED, CPU, Silent(), None, kept.append)
        self.spec.build(self.config).fit(private, training)
        wanted = self.settings.checkpoint()
        weights = {point.epoch: point.weights for point in kept}
        if wanted not in weights:
            raise PluginError(
                f"{self.spec.id}: it is to release epoch {wanted}, and kept {sorted(weights)}."
            )
        model = self.spec.build(self.config).restore(weights[wanted], CPU)
        if model is None:
            raise PluginError(f"{self.spec.id}: restore must return a model for smoke settings.")
        return Trained(model, tuple(kept), private)

    def use(self, made: Trained) -> Results:
        """Samples."""
        return {"samples": self.sample(made, self.seeds)}

    def sample(self, made: Trained, seeds: list[int]) -> torch.Tensor:
        """Sample, as the harness does it."""
        with torch.inference_mode():
            return made.model.sample(seeds, (SIZE, SIZE)).cpu()

    @property
    def seeds(self) -> list[int]:
        """One 63-bit seed a sample."""
        return [sample_seed(0, f"sample-{i}") for i in range(SAMPLES)]

    @cached_property
    def private(self) -> ImageSet:
        """Images to protect, one a person."""
        images = portraits(range(8), range(1, 2))
        return replace(images, subject=np.arange(8))

    @property
    def settings(self) -> GeneratorConfig:
        """The smoke settings."""
        if not isinstance(self.config, GeneratorConfig):
            raise PluginError(f"{self.spec.id}: config must be a GeneratorConfig.")
        return self.config


def check_recipe(bench: GeneratorBench) -> None:
    """What training depends on is plain data; the released epoch is kept; an attacker's own model
    has the same recipe, and the base model is one that was never trained.
    """
    settings = bench.settings
    recipe = dict(settings.recipe())
    try:
        canonical_json(recipe)
    except (TypeError, ValueError) as error:
        raise PluginError(f"{bench.spec.id}: recipe must be plain JSON; {error}.") from None
    require(
        settings.checkpoint() in settings.released_epochs(),
        bench,
        f"the released epoch {settings.checkpoint()} is not among those that one training keeps: "
        f"{settings.released_epochs()}",
    )
    require(
        dict(settings.own().recipe()) == recipe,
        bench,
        "an attacker's own model must have the same recipe",
    )
    require(settings.base().checkpoint() == 0, bench, "the base model must be that of epoch 0")


def check_checkpoints(bench: GeneratorBench) -> None:
    """Training keeps a checkpoint at every epoch that may be released, with plain arrays and
    finite weights.
    """
    kept = bench.made.kept
    for point in kept:
        for name, array in {**point.weights, **point.resume}.items():
            require(
                isinstance(array, np.ndarray) and array.dtype != object,
                bench,
                f"{name} of epoch {point.epoch} must be a plain array; got {type(array).__name__}",
            )
            finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
            require(finite, bench, f"{name} of epoch {point.epoch} holds NaN or infinity")


def check_input_unchanged(bench: GeneratorBench) -> None:
    """Training writes to no image, subject or id."""
    require(same_images(bench.made.private, bench.private), bench, "training changed the images")


def check_output(bench: GeneratorBench) -> None:
    """Samples have the size asked for and finite floats in [0, 1]."""
    samples = bench.first["samples"]
    shape = (SAMPLES, 3, SIZE, SIZE)
    got = tuple(samples.shape)
    require(got == shape, bench, f"samples must have shape {shape}; got {got}")
    require(samples.is_floating_point(), bench, f"expected floats; got {samples.dtype}")
    require(bool(samples.isfinite().all()), bench, "samples hold NaN or infinity")
    low, high = float(samples.min()), float(samples.max())
    require(low >= 0 and high <= 1, bench, f"expected values in [0, 1]; got [{low:g}, {high:g}]")


def check_companions(bench: GeneratorBench) -> None:
    """A sample depends on its own seed alone: alone it comes out as among others, within one grey
    level.
    """
    alone = bench.sample(bench.made, bench.seeds[-1:])
    gap = float((alone - bench.first["samples"][-1:]).abs().max())
    require(
        gap <= BETWEEN_SHAPES,
        bench,
        f"a sample alone differs from the same among others by {gap:.4f} "
        f"(at most {BETWEEN_SHAPES:.4f})",
    )


def check_stochastic(bench: GeneratorBench) -> None:
    """Another seed gives another sample."""
    samples = bench.first["samples"]
    require(not torch.equal(samples[0], samples[1]), bench, "two seeds gave the same sample")
