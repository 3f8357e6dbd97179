"""What an attack on membership does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from privbench.membership import MembershipView
from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.attacker import CPU, SEED, copied, require_report, same_images
from privbench.testing.bench import Results, UsableBench
from privbench.testing.chance import ALPHA, separated
from privbench.testing.check import require
from privbench.testing.drawings import withheld
from privbench.testing.target import MEMBERS, photos, view
from privbench.types import ImageSet

CLOSE = 1e-4
"""How far a score may move with the shape of a batch, as a share of the scores' range."""

TINT = 60
"""How much lighter the members are that a labelled baseline is shown, in grey levels."""


def checks(spec: PluginSpec) -> list[Callable[[MembershipBench], None]]:
    """The checks that an attack on membership gets by its tags."""
    return [
        check_output,
        check_training,
        check_input_unchanged,
        *conduct.CHECKS,
        check_companions,
        check_identity_withheld,
        *([check_finds_members] if spec.tags.control != "negative" else []),
        check_chance_without_members,
    ]


@dataclass(frozen=True)
class Trained:
    """A trained attack with what it was given."""

    attack: Any
    trained: Any
    given: tuple[ImageSet, ...]


class MembershipBench(UsableBench):
    """An attack on membership, with a target that knows its members by heart.

    A baseline that is shown labels gets members that are lighter than others instead.
    """

    def make(self) -> Trained:
        """Trained."""
        return self.train(members())

    def use(self, made: Trained) -> Results:
        """Scores of members and others."""
        return {"scores": score(made, self.queries)}

    def train(self, trained_on: ImageSet) -> Trained:
        """Trained for a target that was trained on some images."""
        attack = self.spec.build(self.config)
        if self.spec.tags.infers == "labels":
            shown, member = both(self.lighter(photos(900)), photos(920))
            return Trained(attack, attack.learn(shown, member, SEED, CPU), (shown,))
        given: MembershipView = view(self.spec.tags.knowledge, trained_on)
        return Trained(attack, attack.train(given), (given.auxiliary, given.validation))

    def lighter(self, images: ImageSet) -> ImageSet:
        """Members as a labelled baseline is to find them."""
        if self.spec.tags.infers != "labels":
            return images
        brighter = (images.pixels.int() + TINT).clamp(0, 255).to(torch.uint8)
        return replace(images, pixels=brighter)

    @property
    def queries(self) -> ImageSet:
        """Members and others, in turn, under neutral ids."""
        return queries(self.lighter(members()), others())


@cache
def members() -> ImageSet:
    """What the target was trained on."""
    return photos(400)


@cache
def others() -> ImageSet:
    """People whom it has not seen."""
    return photos(500)


def both(first: ImageSet, second: ImageSet) -> tuple[ImageSet, np.ndarray]:
    """Two sets in turn, and which rows are the first's."""
    order = np.arange(2 * len(first)).reshape(2, -1).T.reshape(-1)
    joined = ImageSet(
        torch.cat([first.pixels, second.pixels]),
        np.concatenate([first.subject, second.subject]),
        (*first.keys, *second.keys),
    )
    return joined.take(order), order < len(first)


def queries(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both, nothing but pixels saying who is who."""
    return withheld(both(first, second)[0], "query")


def score(made: Trained, images: ImageSet) -> torch.Tensor:
    """Score, as the harness does it."""
    with torch.inference_mode():
        scores: torch.Tensor = made.trained.score(images)
    return scores.cpu() if isinstance(scores, torch.Tensor) else scores


def p_value(scores: torch.Tensor) -> float:
    """Of the hypothesis that the scores know nothing of membership."""
    first = (scores if scores.ndim == 1 else scores[:, 0]).double().numpy()
    return separated(first, both(members(), others())[1])


def check_output(bench: MembershipBench) -> None:
    """Scores are finite floats, one an image, or one and features behind it; a report."""
    scores = bench.first["scores"]
    require(
        isinstance(scores, torch.Tensor),
        bench,
        f"scores must be a tensor; got {type(scores).__name__}",
    )
    shape = tuple(scores.shape)
    require(
        shape[:1] == (2 * MEMBERS,) and len(shape) in (1, 2) and shape[-1] > 0,
        bench,
        f"scores must have shape ({2 * MEMBERS},) or ({2 * MEMBERS}, 1 + F); got {shape}",
    )
    require(scores.is_floating_point(), bench, f"scores must be floats; got {scores.dtype}")
    require(bool(scores.isfinite().all()), bench, "scores hold NaN or infinity")
    require_report(bench, bench.made.trained.report)


def check_training(bench: MembershipBench) -> None:
    """Training returns a new object."""
    made = bench.made
    require(made.trained is not made.attack, bench, "train must return a new object")


def check_input_unchanged(bench: MembershipBench) -> None:
    """Training and scoring write to no image, subject or id."""
    for now, before in zip(bench.made.given, _as_given(bench), strict=True):
        require(same_images(now, before), bench, "training changed the images that it was given")
    shown, before = copied(bench.queries), copied(bench.queries)
    score(bench.made, shown)
    require(same_images(shown, before), bench, "it changed the queries")


def check_companions(bench: MembershipBench) -> None:
    """An image's score does not depend on what else is scored."""
    scores, few = bench.first["scores"], [5, 0, 2]
    _close(bench, score(bench.made, bench.queries.take(few)), scores[few], "among other images")
    backwards = list(range(2 * MEMBERS))[::-1]
    again = score(bench.made, bench.queries.take(backwards))
    _close(bench, again, scores[backwards], "when the order was reversed")


def check_identity_withheld(bench: MembershipBench) -> None:
    """Ids and subjects do not influence the scores: only pixels do."""
    known, member = both(bench.lighter(members()), others())
    names = tuple(f"{'member' if m else 'other'}-{i}" for i, m in enumerate(member))
    again = score(bench.made, replace(known, keys=names))
    _close(bench, again, bench.first["scores"], "when queries said who they are")


def check_finds_members(bench: MembershipBench) -> None:
    """Members of a target that knows them by heart are found better than chance (p < 0.001)."""
    p = p_value(bench.first["scores"])
    require(
        p < ALPHA,
        bench,
        f"with a target that knows its members by heart it must be better than chance, "
        f"p < {ALPHA}; got p = {p:.2g}",
    )


def check_chance_without_members(bench: MembershipBench) -> None:
    """Asked about people whom the target has never seen, it is at chance (p >= 0.001)."""
    if bench.spec.tags.infers == "labels":
        p = p_value(score(bench.made, queries(members(), others())))
    else:
        p = p_value(score(bench.train(photos(1000)), bench.queries))
    require(
        p >= ALPHA,
        bench,
        f"where there is no member it must be at chance, p >= {ALPHA}; got p = {p:.2g}: "
        "it knows more than pixels",
    )


def _as_given(bench: MembershipBench) -> tuple[ImageSet, ...]:
    if bench.spec.tags.infers == "labels":
        return (both(bench.lighter(photos(900)), photos(920))[0],)
    return photos(600), photos(700)


def _close(bench: MembershipBench, got: torch.Tensor, expected: torch.Tensor, when: str) -> None:
    require(got.shape == expected.shape, bench, f"scores changed their shape {when}")
    whole = bench.first["scores"]
    spread = (whole.amax(0) - whole.amin(0)).double()
    gap = (got.double() - expected.double()).abs().amax(0)
    require(
        bool((gap <= CLOSE * spread).all()),
        bench,
        f"scores came out different {when}, by {float(gap.max()):.2g}",
    )
