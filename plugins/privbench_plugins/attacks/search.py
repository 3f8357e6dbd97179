"""Settings of `contrastive-reid` that validation chooses: a small grid by successive halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from privbench.progress import Task
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.training import Training

TEMPERATURES = (1.0, 0.5, 2.0)
"""Factors on the temperature; the first value of each axis is what was set."""

STRENGTHS = (1.0, 0.5, 2.0)
"""Factors on every augmentation but mirroring, which has no strength."""

HARDNESSES = (0.0, 0.5)
"""What is added to the hardness."""


@dataclass(frozen=True, slots=True)
class Rung:
    """Where candidates are compared.

    Attributes:
        candidates: how many train up to here.
        step: after how many steps.
    """

    candidates: int
    step: int


def grid(config: ContrastiveConfig) -> tuple[ContrastiveConfig, ...]:
    """The `search` candidates: as set, then what differs in one respect, in two, in three."""
    axes = (TEMPERATURES, STRENGTHS, HARDNESSES)
    places = sorted(
        product(*(range(len(axis)) for axis in axes)), key=lambda at: sum(i > 0 for i in at)
    )
    return tuple(
        _changed(config, TEMPERATURES[t], STRENGTHS[s], HARDNESSES[h])
        for t, s, h in places[: config.search]
    )


def _changed(
    config: ContrastiveConfig, temperature: float, strength: float, hardness: float
) -> ContrastiveConfig:
    shares = {name: min(1.0, strength * getattr(config, name)) for name in ("grey", "erase")}
    ranges = {
        name: strength * getattr(config, name) for name in ("scale", "shift", "degrees", "jitter")
    }
    loss = {
        "temperature": temperature * config.temperature,
        "hardness": hardness + config.hardness,
    }
    return config.model_copy(update=shares | ranges | loss)


def rungs(candidates: int, steps: int) -> tuple[Rung, ...]:
    """Where the better half goes on, until one is left, which trains to the last step.

    The last two are compared after a quarter of the steps, the four before them after an
    eighth, and so on: a rung costs no more than half of a plain training. Source: successive
    halving, Jamieson and Talwalkar 2016, with a rate of two.

    >>> [(r.candidates, r.step) for r in rungs(6, 400)]
    [(6, 25), (3, 50), (2, 100), (1, 400)]
    """
    count = math.ceil(math.log2(candidates))
    halves = [math.ceil(candidates / 2**i) for i in range(count)]
    ends = [round(steps / 2 ** (count + 1 - i)) for i in range(count)]
    return (*map(Rung, halves, ends), Rung(1, steps))


def total(plan: Sequence[Rung]) -> int:
    """Steps that all candidates take together.

    >>> total(rungs(6, 400)), total(rungs(1, 400))
    (625, 400)
    """
    before = (0, *(rung.step for rung in plan))
    return sum(r.candidates * (r.step - b) for r, b in zip(plan, before, strict=False))


def halving(
    candidates: Sequence[ContrastiveConfig],
    start: Callable[[ContrastiveConfig], Training],
    plan: Sequence[Rung],
    task: Task,
) -> tuple[Training, list[Mapping[str, Any]]]:
    """Train all, drop the worse half by validation at each rung, train the winner to the end.

    On a tie the earlier candidate stays.

    Returns:
        The winner, trained; and for each candidate what it was, how far it trained and its
        validation quality when last compared.
    """
    running = {i: start(config) for i, config in enumerate(candidates)}
    notes: list[Mapping[str, Any]] = [{} for _ in candidates]
    for rung in plan:
        best = sorted(running, key=lambda i: -running[i].precision)[: rung.candidates]
        running = {i: running[i] for i in sorted(best)}
        for i, training in running.items():
            training.advance(rung.step, task)
            notes[i] = _note(training)
    (winner,) = running.values()
    return winner, notes


def _note(training: Training) -> Mapping[str, Any]:
    config = training.config
    settings = ("temperature", "hardness", "scale", "shift", "degrees", "jitter", "grey", "erase")
    return {
        **{name: getattr(config, name) for name in settings},
        "steps": training.done,
        "mean_average_precision": training.precision,
    }
