"""What an attack that fuses the scores of others does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.attacker import require_report
from privbench.testing.bench import Results, UsableBench
from privbench.testing.chance import ALPHA, identified
from privbench.testing.check import require
from privbench.types import Floats, Ints, ValidationScores

MEMBERS = ("seeing", "weak", "blind")
"""Attacks to be fused, by what they know."""

SIGNAL = (2.0, 0.5, 0.0)
"""How much higher each scores photos of one person, in standard deviations."""

PEOPLE, PHOTOS = 20, 3
"""To evaluate on, and as many for validation."""

CLOSE = 1e-9
"""How far a fused score may move with its companions, as a share of the scores' range."""


def checks(spec: PluginSpec) -> list[Callable[[FusionBench], None]]:
    """The checks of a score fusion."""
    return [
        check_output,
        check_training,
        check_input_unchanged,
        *conduct.CHECKS,
        check_companions,
        check_finds_people,
        check_chance_on_noise,
    ]


class FusionBench(UsableBench):
    """A fusion, with the scores of three attacks: one sees, one hardly, one is blind."""

    def make(self) -> Any:
        """Fitted on attacker-validation."""
        return self.spec.build(self.config).fit(validation())

    def use(self, made: Any) -> Results:
        """Fused scores of everybody."""
        return {"scores": made.combine(member_scores())}


def _drawn(seed: int, signal: float) -> Floats:
    subject = subjects()
    noise = np.random.default_rng(seed).normal(size=(len(subject), len(subject)))
    same = subject[:, None] == subject[None, :]
    scores: Floats = noise + signal * same
    return scores


def subjects() -> Ints:
    """(N,) person of each photo."""
    return np.repeat(np.arange(PEOPLE), PHOTOS)


def validation() -> Mapping[str, ValidationScores]:
    """What the members score on attacker-validation."""
    return {
        name: ValidationScores(_drawn(10 + i, signal), subjects())
        for i, (name, signal) in enumerate(zip(MEMBERS, SIGNAL, strict=True))
    }


def member_scores(blind: bool = False) -> Mapping[str, Floats]:
    """What the members score on the people to find; `blind`: on noise."""
    return {
        name: _drawn(20 + i, 0.0 if blind else signal)
        for i, (name, signal) in enumerate(zip(MEMBERS, SIGNAL, strict=True))
    }


def check_output(bench: FusionBench) -> None:
    """Fused scores are finite, one for each entry; fusion and report are said."""
    scores = np.asarray(bench.first["scores"])
    shape = (PEOPLE * PHOTOS, PEOPLE * PHOTOS)
    require(scores.shape == shape, bench, f"expected shape {shape}; got {scores.shape}")
    require(bool(np.isfinite(scores).all()), bench, "the fused scores hold NaN or infinity")
    fusion = bench.made.fusion
    require(fusion in ("max", "mean"), bench, f"fusion must be 'max' or 'mean'; got {fusion!r}")
    require_report(bench, bench.made.report)


def check_training(bench: FusionBench) -> None:
    """Fitting returns a new object."""
    plugin = bench.spec.build(bench.config)
    require(plugin.fit(validation()) is not plugin, bench, "fit must return a new object")


def check_input_unchanged(bench: FusionBench) -> None:
    """Fitting and combining write to no score and no subject."""
    known, given = validation(), member_scores()
    bench.spec.build(bench.config).fit(known).combine(given)
    for name, before in validation().items():
        require(
            np.array_equal(known[name].scores, before.scores)
            and np.array_equal(known[name].subject, before.subject),
            bench,
            "it changed the scores on attacker-validation",
        )
        require(np.array_equal(given[name], member_scores()[name]), bench, "it changed the scores")


def check_companions(bench: FusionBench) -> None:
    """A fused score depends on the members' scores of its own entry alone."""
    rows, columns = np.ix_([7, 0], [30, 2, 5])
    some = {name: values[rows, columns] for name, values in member_scores().items()}
    whole = np.asarray(bench.first["scores"])
    gap = float(np.abs(np.asarray(bench.made.combine(some)) - whole[rows, columns]).max())
    require(
        gap <= CLOSE * float(np.ptp(whole)),
        bench,
        f"a fused score came out different among other entries, by {gap:.2g}",
    )


def check_finds_people(bench: FusionBench) -> None:
    """With a member that sees, it is better than chance (p < 0.001)."""
    p = _p_value(bench.first["scores"])
    require(p < ALPHA, bench, f"it must be better than chance, p < {ALPHA}; got p = {p:.2g}")


def check_chance_on_noise(bench: FusionBench) -> None:
    """With members that are blind, it is at chance (p >= 0.001)."""
    p = _p_value(bench.made.combine(member_scores(blind=True)))
    require(
        p >= ALPHA,
        bench,
        f"with blind members it must be at chance, p >= {ALPHA}; got p = {p:.2g}",
    )


def _p_value(fused: Any) -> float:
    scores = np.asarray(fused, np.float64).reshape(PEOPLE * PHOTOS, PEOPLE, PHOTOS).mean(2)
    return identified(scores, subjects())
