"""What an attacker has in the kit: people of its own, an oracle, and people to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import canonical_json
from privbench.progress import Silent
from privbench.testing.check import Workbench, require
from privbench.testing.drawings import portraits, withheld
from privbench.types import AttackerView, ImageSet

PEOPLE = 12
"""People to find; as many to train on."""

REFERENCES = 2
"""Photos of each person in the gallery, and as many probes."""

SEED = 20_261
"""What an attack gets as its seed."""

CPU = torch.device("cpu")

ReleaseImages = Callable[[ImageSet], ImageSet]
"""An anonymizer, as far as the kit's attackers meet one."""


def unmodified(images: ImageSet) -> ImageSet:
    """No anonymization."""
    return images


class KitOracle:
    """The anonymizer as an attacker may ask it, until training is over."""

    def __init__(self, release: ReleaseImages) -> None:
        self._release = release
        self.queries, self.late, self.open = 0, 0, True

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        if not self.open:
            self.late += len(images)
            raise PluginError("queries are over when training is")
        self.queries += len(images)
        return self._release(images)


@dataclass(frozen=True)
class Trained:
    """A trained attack with what it was given.

    Attributes:
        attack: what `build` made.
        trained: what `train` returned.
        view: what it was trained on; its own copies.
        given: those sets as they were.
    """

    attack: Any
    trained: Any
    view: AttackerView
    given: tuple[ImageSet, ...]

    @property
    def oracle(self) -> KitOracle | None:
        """The one that it could ask."""
        oracle = self.view.oracle
        return oracle if isinstance(oracle, KitOracle) else None


def train(bench: Workbench, release: ReleaseImages) -> Trained:
    """Build an attack with its smoke settings and train it as the harness does."""
    knowledge = bench.spec.tags.knowledge
    own, validation = copied(people(100)), copied(people(200, PEOPLE // 2))
    view = AttackerView(
        train=own,
        validation=validation,
        oracle=KitOracle(release) if knowledge == "adaptive" else None,
        seed=SEED,
        device=CPU,
        reporter=Silent(),
    )
    attack = bench.spec.build(bench.config)
    trained = attack.train(view)
    return Trained(attack, trained, view, (people(100), people(200, PEOPLE // 2)))


@cache
def people(first: int, count: int = PEOPLE) -> ImageSet:
    """People of an attacker, in 4 photos each."""
    return portraits(range(first, first + count), range(1, 5))


@cache
def gallery() -> ImageSet:
    """The people to find, labelled 0 to PEOPLE - 1, person by person."""
    photos = portraits(range(300, 300 + PEOPLE), range(1, 1 + REFERENCES))
    return replace(withheld(photos, "gallery"), subject=photos.subject - 300)


@cache
def photos() -> ImageSet:
    """Other photos of the same people in the same order: sources of the probes."""
    return portraits(range(300, 300 + PEOPLE), range(1 + REFERENCES, 1 + 2 * REFERENCES))


def mated() -> np.ndarray:
    """(N,) gallery label of each of `photos`."""
    return photos().subject - 300


def probes(release: ReleaseImages) -> ImageSet:
    """What was released for `photos`; nothing but pixels tells who they are."""
    return copied(withheld(release(photos()), "probe"))


def copied(images: ImageSet) -> ImageSet:
    """The same images in memory of their own: who writes to them spoils no other check."""
    return replace(images, pixels=images.pixels.clone(), subject=images.subject.copy())


def same_images(a: ImageSet, b: ImageSet) -> bool:
    """Whether two sets hold the same pixels, subjects and ids."""
    return (
        torch.equal(a.pixels, b.pixels)
        and np.array_equal(a.subject, b.subject)
        and a.keys == b.keys
    )


def require_report(bench: Workbench, report: object) -> None:
    """What an attack says about itself can go into a record.

    Raises:
        PluginError: it cannot.
    """
    require(isinstance(report, Mapping), bench, f"report must be a mapping; got {report!r}")
    try:
        canonical_json(dict(report))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{bench.spec.id}: report must be plain JSON without NaN; {error}."
        ) from None


def require_trained(bench: Workbench, made: Trained) -> None:
    """`train` returned another object, wrote to nothing, and queries are over.

    Raises:
        PluginError: it did not.
    """
    require(made.trained is not made.attack, bench, "train must return a new object")
    late = made.oracle.late if made.oracle else 0
    require(not late, bench, f"it asked the oracle for {late} image(s) after training was over")
