"""The attack of Holme et al. (VISAPP 2025): who is like what the target generates is a member."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from privbench.membership import MembershipView
from privbench.progress import Task
from privbench.types import UNKNOWN, ImageSet
from privbench_plugins.attacks.alignment import shrink
from privbench_plugins.attacks.embedding import use_bfloat16
from privbench_plugins.attacks.membership._blocks import in_blocks
from privbench_plugins.attacks.membership._classifier import Classifier, create
from privbench_plugins.attacks.membership._negatives import negatives_of
from privbench_plugins.attacks.membership.generated import GeneratedConfig

HELD_OUT = 0.1
"""Share of positives and of negatives that choose the epoch and teach nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Images with their class.

    Attributes:
        pixels: (N, 3, S, S) uint8 on the CPU.
        label: (N,) int64, 1 for samples of the target.
    """

    pixels: Tensor
    label: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One attack model.

    Attributes:
        network: on `device`.
        device: where to compute.
        batch: images scored at once.
    """

    network: Classifier
    device: torch.device
    batch: int

    def scores(self, pixels: Tensor) -> Tensor:
        """(N, 2) float32 of (N, 3, S, S) uint8, on `device`."""
        rows: Tensor = self.network(pixels.to(self.device))
        return rows

    @torch.no_grad()
    def log_odds(self, pixels: Tensor) -> Tensor:
        """(N,) of being a sample of the target; each from its image alone."""
        self.network.eval()
        return in_blocks(pixels, self.batch, lambda x: self.scores(x).diff(dim=1)[:, 0])


class GeneratedImages:
    """See `GeneratedConfig`."""

    def __init__(self, config: GeneratedConfig) -> None:
        self.config = config

    def train(self, view: MembershipView) -> TrainedGenerated:
        """Train each attack model, and keep its epoch of lowest held-out cross-entropy.

        Raises:
            PluginError: there are too few images.
            ModelError: the start cannot be read.
        """
        config = self.config
        negatives = negatives_of(view, config.negatives)
        train, held_out = split(view.samples, negatives, config.side, view.seed)
        with view.reporter.task("mia-generated", config.seeds * config.epochs, "epochs") as task:
            runs = [fit(config, train, held_out, view, n, task) for n in range(config.seeds)]
        models = [model for model, _ in runs]
        report = {
            "seeds": [found for _, found in runs],
            "train": _counts(train),
            "held_out": _counts(held_out),
            "parameters": sum(p.numel() for p in models[0].network.parameters()),
            "dtype": "bfloat16" if models[0].network.rounded else "float32",
            "threads": torch.get_num_threads(),
        }
        return TrainedGenerated(report, models, config.side)


@dataclass(slots=True, eq=False)
class TrainedGenerated:
    """Several attack models.

    Attributes:
        report: of each, what was chosen and from what.
        models: in evaluation mode.
        side: pixels that they see.
    """

    report: Mapping[str, Any]
    models: list[Model]
    side: int

    def score(self, images: ImageSet) -> Tensor:
        """(N,) mean log-odds of being a sample of the target."""
        pixels = shrink(images.pixels, self.side, self.side)
        return torch.stack([model.log_odds(pixels) for model in self.models]).mean(0)


def split(
    positives: ImageSet, negatives: ImageSet, side: int, seed: int
) -> tuple[Labelled, Labelled]:
    """Both classes, resized alike, to train on and to choose on."""
    held = np.concatenate([held_out(images, seed) for images in (positives, negatives)])
    pixels = torch.cat([shrink(images.pixels, side, side) for images in (positives, negatives)])
    label = torch.zeros(len(held), dtype=torch.int64)
    label[: len(positives)] = 1
    rows = torch.from_numpy(held)
    return Labelled(pixels[~rows], label[~rows]), Labelled(pixels[rows], label[rows])


def held_out(images: ImageSet, seed: int) -> NDArray[np.bool_]:
    """(N,) bool: a tenth, one at least, by the hash of their numbers; all images of a person are on
    one side, or at least one image where there is one person."""
    known = bool((images.subject != UNKNOWN).all()) and len(np.unique(images.subject)) > 1
    unit = images.subject if known else np.arange(len(images))
    names = np.unique(unit)
    order = sorted(names, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).digest())
    return np.isin(unit, order[: max(1, round(HELD_OUT * len(names)))])


def fit(
    config: GeneratedConfig,
    train: Labelled,
    held_out: Labelled,
    view: MembershipView,
    number: int,
    task: Task,
) -> tuple[Model, dict[str, Any]]:
    """Attack model `number` after its best epoch, and what that was chosen from."""
    seed = (view.seed * 1_000_003 + number) % 2**63
    half = use_bfloat16(config.dtype, view.device)
    network = create(config, seed, half).to(view.device)
    model = Model(network, view.device, config.score_batch)
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    best, history = copy.deepcopy(network.state_dict()), []
    for epoch in range(1, config.epochs + 1):
        losses = [
            update(model, optimizer, *batch) for batch in batches(train, config.batch, generator)
        ]
        history.append({"epoch": epoch, "loss": float(np.mean(losses))} | judge(model, held_out))
        if best_entry(history) is history[-1]:
            best = copy.deepcopy(network.state_dict())
        task.advance()
    network.load_state_dict(best)
    return model, {"chosen_epoch": best_entry(history)["epoch"], "history": history}


def batches(
    train: Labelled, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each image once in random order, every second one mirrored; a rest of less than half a batch
    is left out where there is more, as its statistics would be poor."""
    order = torch.randperm(len(train.label), generator=generator)
    for rows in torch.split(order, size):
        if len(rows) < min(size, len(order)) / 2:
            continue
        mirrored = torch.rand(len(rows), generator=generator) < 0.5
        pixels = train.pixels[rows]
        pixels[mirrored] = pixels[mirrored].flip(3)
        yield pixels, train.label[rows]


def update(model: Model, optimizer: torch.optim.Optimizer, pixels: Tensor, label: Tensor) -> float:
    """One step of Adam on the cross-entropy."""
    model.network.train()
    loss = F.cross_entropy(model.scores(pixels), label.to(model.device))
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()
    return float(loss.detach())


def judge(model: Model, held_out: Labelled) -> dict[str, float]:
    """Cross-entropy and area under the ROC curve on the held-out images."""
    odds = model.log_odds(held_out.pixels).double()
    loss = F.binary_cross_entropy_with_logits(odds, held_out.label.double())
    return {
        "held_out_cross_entropy": float(loss),
        "held_out_auc": float(roc_auc_score(held_out.label, odds)),
    }


def best_entry(history: list[dict[str, float]]) -> dict[str, float]:
    """The first entry of lowest held-out cross-entropy."""
    return min(history, key=lambda entry: entry["held_out_cross_entropy"])


def _counts(images: Labelled) -> dict[str, int]:
    positives = int(images.label.sum())
    return {"positives": positives, "negatives": len(images.label) - positives}
