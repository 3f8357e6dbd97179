"""Contrastive training of `contrastive-reid`, step by step; it can pause and go on."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from privbench.progress import Task
from privbench_plugins.attacks import pairs as data
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.judge import Judge
from privbench_plugins.attacks.losses import contrastive_loss
from privbench_plugins.attacks.start import Towers
from privbench_plugins.attacks.validation import Quality
from privbench_plugins.tiny_encoder.ema import Ema


class Training:
    """One training of the judge's towers, in place.

    Attributes:
        config: its settings.
        judge: holds the towers, and looks at them after some steps.
        done: steps taken.
        history: one entry per judged step; step 0 is the start, so that what `finish` leaves
            is never worse than it on validation.
    """

    def __init__(self, config: ContrastiveConfig, seed: int, own: data.Pairs, judge: Judge) -> None:
        self.config, self.judge, self.done = config, judge, 0
        self._seed, self._own, self._towers = seed, own, judge.embedder.towers
        self._average = Ema(self._towers, config.average)
        self.history = [_entry(0, math.nan, judge.quick())]
        self._best = _state(self._average)
        self._optimizer = torch.optim.AdamW(
            self._towers.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self._losses: list[float] = []

    @property
    def precision(self) -> float:
        """Mean average precision on validation when last judged."""
        return self.history[-1]["mean_average_precision"]

    def advance(self, stop: int, task: Task) -> None:
        """Take steps until `stop` are done, and judge there; the schedule is of all steps."""
        config = self.config
        stops = _stops(config.steps, config.checkpoints) | {stop}
        while self.done < stop:
            for group in self._optimizer.param_groups:
                group["lr"] = config.learning_rate * _shape(self.done, config.steps)
            half = self.judge.embedder.bfloat16
            self._losses.append(
                update(
                    config, self._seed, self.done, self._towers, self._own, self._optimizer, half
                )
            )
            self._average.update()
            self.done += 1
            task.advance()
            if self.done in stops:
                self._look()

    def _look(self) -> None:
        """Judge the averaged weights, keep them if they are the best, and go on from the live."""
        live = {key: value.clone() for key, value in self._towers.state_dict().items()}
        self._average.copy_to(self._towers)
        entry = _entry(self.done, float(np.mean(self._losses)), self.judge.quick())
        if entry["mean_average_precision"] > best_entry(self.history)["mean_average_precision"]:
            self._best = _state(self._average)
        self.history.append(entry)
        self._losses = []
        self._towers.load_state_dict(live)

    def finish(self) -> None:
        """Leave the weights that validation likes best in the towers."""
        self._towers.load_state_dict(self._best, strict=False)
        self._towers.eval()


def best_entry(history: list[dict[str, float]]) -> dict[str, float]:
    """The first entry of highest mean average precision."""
    return max(history, key=lambda entry: entry["mean_average_precision"])


def update(
    config: ContrastiveConfig,
    seed: int,
    step: int,
    towers: Towers,
    own: data.Pairs,
    optimizer: torch.optim.Optimizer,
    half: bool,
) -> float:
    """One optimiser step; all its randomness comes from (seed, step)."""
    side = side_of(towers, config)
    first, second, groups = data.batch(own, config, side, (seed * 1_000_003 + step) % 2**63)
    towers.train()
    with torch.autocast(first.device.type, torch.bfloat16, enabled=half):
        rows = towers.pairs(first, second)
    together = groups[:, None] == groups[None]
    loss = contrastive_loss(rows, together, config.temperature, config.hardness)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(towers.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


def side_of(towers: Towers, config: ContrastiveConfig) -> int:
    """Pixels per side that the network works on."""
    shape = getattr(towers.clear, "config", None)
    return int(getattr(shape, "side", config.side))


def _shape(step: int, steps: int) -> float:
    """Learning rate relative to its peak: linear rise over a tenth, then half a cosine."""
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _stops(steps: int, checkpoints: int) -> frozenset[int]:
    """After which steps validation looks, evenly spaced, the last one included."""
    return frozenset(max(1, round(steps * (i + 1) / checkpoints)) for i in range(checkpoints))


def _state(average: Ema) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in average.average.items()}


def _entry(step: int, loss: float, found: Quality) -> dict[str, float]:
    entry: dict[str, float] = {"step": step} | asdict(found)
    return entry if math.isnan(loss) else entry | {"loss": loss}
