"""What an inversion attack does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.attacker import (
    Trained,
    mated,
    photos,
    probes,
    require_report,
    require_trained,
    same_images,
    train,
    unmodified,
)
from privbench.testing.bench import Results, UsableBench
from privbench.testing.chance import ALPHA, identified
from privbench.testing.check import require
from privbench.testing.drawings import static
from privbench.types import ImageSet

BETWEEN_SHAPES = 2 / 255
"""How far reconstructions may move with the shape of a batch: two grey levels. Solvers and searches
repeat what libraries round differently by shape."""


def checks(spec: PluginSpec) -> list[Callable[[InverterBench], None]]:
    """The checks of an inversion attack."""
    return [
        check_output,
        check_training,
        check_input_unchanged,
        *conduct.CHECKS,
        check_companions,
        check_identity_withheld,
        check_draws,
        *([check_finds_sources] if spec.tags.control != "negative" else []),
        check_chance_on_noise,
    ]


class InverterBench(UsableBench):
    """An inverter, with releases to invert."""

    def make(self) -> Trained:
        """Trained by an attacker whose anonymizer changes nothing."""
        return train(self, unmodified)

    def use(self, made: Trained) -> Results:
        """Reconstructions."""
        return {"reconstructions": invert(made, self.probes)}

    @cached_property
    def probes(self) -> ImageSet:
        """Of a release that changes nothing."""
        return probes(unmodified)

    @property
    def inverted(self) -> torch.Tensor:
        """(N, R, 3, H, W)."""
        found: torch.Tensor = self.first["reconstructions"]
        return found


def invert(made: Trained, *draws: ImageSet) -> torch.Tensor:
    """Invert, as the harness does it."""
    with torch.inference_mode():
        inverted: torch.Tensor = made.trained.invert(draws)
    return inverted.cpu() if isinstance(inverted, torch.Tensor) else inverted


def nearness(inverted: torch.Tensor) -> np.ndarray:
    """(N, N): minus the distance of each best reconstruction from each source."""
    near: np.ndarray = -torch.cdist(
        inverted[:, 0].flatten(1).double(), photos().floats().flatten(1).double()
    ).numpy()
    return near


def check_output(bench: InverterBench) -> None:
    """Reconstructions are finite images in [0, 1], one or more of each release."""
    _require_images(bench, bench.inverted)
    require_report(bench, bench.made.trained.report)


def check_training(bench: InverterBench) -> None:
    """Training returns a new object."""
    require_trained(bench, bench.made)


def check_input_unchanged(bench: InverterBench) -> None:
    """Training and inverting write to no image, subject or id."""
    view = bench.made.view
    for now, before in zip((view.train, view.validation), bench.made.given, strict=True):
        require(same_images(now, before), bench, "training changed the attacker's photos")
    shown = probes(unmodified)
    invert(bench.made, shown)
    require(same_images(shown, probes(unmodified)), bench, "it changed the releases")


def check_companions(bench: InverterBench) -> None:
    """A reconstruction depends on its release alone, not on what else is inverted."""
    few = [5, 0]
    again = invert(bench.made, bench.probes.take(few))
    _close(bench, again, bench.inverted[few], "among other releases")


def check_identity_withheld(bench: InverterBench) -> None:
    """Ids and subjects do not influence the reconstructions: only pixels do."""
    names = tuple(f"person-{i}-{place}" for place, i in enumerate(mated()))
    known = replace(bench.probes, subject=mated(), keys=names)
    again = invert(bench.made, known)
    _close(bench, again, bench.inverted, "when releases said who they are")


def check_draws(bench: InverterBench) -> None:
    """Several draws of the same photographs are inverted too: one or more images of each."""
    two = invert(bench.made, bench.probes, probes(unmodified))
    _require_images(bench, two)


def check_finds_sources(bench: InverterBench) -> None:
    """Of unmodified images, reconstructions are nearer to their own sources than chance
    (p < 0.001).
    """
    p = identified(nearness(bench.inverted), np.arange(len(photos())))
    require(
        p < ALPHA,
        bench,
        f"of unmodified images, reconstructions must be nearer to their own sources than chance, "
        f"p < {ALPHA}; got p = {p:.2g}",
    )


def check_chance_on_noise(bench: InverterBench) -> None:
    """Of noise, reconstructions are no nearer to their own sources than chance (p >= 0.001)."""
    inverted = invert(train(bench, static), probes(static))
    p = identified(nearness(inverted), np.arange(len(photos())))
    require(
        p >= ALPHA,
        bench,
        f"of noise, reconstructions must be no nearer to their own sources than chance, "
        f"p >= {ALPHA}; got p = {p:.2g}: it knows more than pixels",
    )


def _require_images(bench: InverterBench, images: torch.Tensor) -> None:
    require(
        isinstance(images, torch.Tensor),
        bench,
        f"reconstructions must be a tensor; got {type(images).__name__}",
    )
    n, size = len(photos()), tuple(photos().pixels.shape[1:])
    shape = tuple(images.shape)
    require(
        len(shape) == 5 and shape[0] == n and shape[1] >= 1 and shape[2:] == size,
        bench,
        f"reconstructions must have shape ({n}, R, {', '.join(map(str, size))}); got {shape}",
    )
    require(images.is_floating_point(), bench, f"expected floats; got {images.dtype}")
    require(bool(images.isfinite().all()), bench, "reconstructions hold NaN or infinity")
    low, high = float(images.min()), float(images.max())
    require(low >= 0 and high <= 1, bench, f"expected values in [0, 1]; got [{low:g}, {high:g}]")


def _close(bench: InverterBench, got: torch.Tensor, expected: torch.Tensor, when: str) -> None:
    require(got.shape == expected.shape, bench, f"their number changed {when}")
    gap = float((got - expected).abs().max())
    require(
        gap <= BETWEEN_SHAPES,
        bench,
        f"reconstructions came out different {when}, by {gap:.4f} (at most {BETWEEN_SHAPES:.4f})",
    )
