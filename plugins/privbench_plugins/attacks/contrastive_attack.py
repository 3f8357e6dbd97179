"""`contrastive-reid`: training, what validation chooses, and the trained attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from privbench.errors import PluginError
from privbench.types import AttackerView, ImageSet, Scorer, TrainedAttack
from privbench_plugins.attacks import pairs as data
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.embedding import Cohort, Embedder, enroll, nearness, use_bfloat16
from privbench_plugins.attacks.losses import contrastive_loss
from privbench_plugins.attacks.start import Towers, create
from privbench_plugins.attacks.validation import Fusion, Quality, quality
from privbench_plugins.tiny_encoder.ema import Ema

_T = TypeVar("_T")
_FUSIONS: Mapping[str, Fusion] = {"mean": "mean", "max": "max"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What scoring depends on besides the weights."""

    fusion: Fusion
    mirror: bool
    calibrate: bool


@dataclass(slots=True, eq=False)
class TrainedContrastive:
    """The adapted attack.

    Attributes:
        fusion: how several references of one person combine.
        report: what was chosen and the history it was chosen from.
        embedder: adapted towers.
        mirror: embeddings average over the mirror image.
        cohort: for calibration, or None.
    """

    fusion: Fusion
    report: Mapping[str, Any]
    embedder: Embedder
    mirror: bool
    cohort: Cohort | None

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Scorer:
        """Embed the references."""
        return enroll(self.embedder, gallery, anonymized, self.mirror, self.cohort)


class ContrastiveReid:
    """Adapts an encoder to one anonymizer with the attacker's own photos."""

    def __init__(self, config: ContrastiveConfig) -> None:
        self.config = config

    def train(self, view: AttackerView) -> TrainedAttack:
        """Anonymize the attacker's photos, adapt the encoder, choose on validation.

        Raises:
            PluginError: there is no oracle, or too few photos to train or to choose on.
        """
        train, validation = _queried(view)
        config, device = self.config, view.device
        towers = create(config, view.seed % 2**63).to(device).eval()
        half = use_bfloat16(config.dtype, device)
        embedder = Embedder(towers, device, half, config.embed_batch)
        side = _side(towers, config)
        held_out = data.make_pairs(*validation, side, device)
        column = torch.from_numpy(np.unique(validation[0].subject, return_inverse=True)[1])
        judge = Judge(embedder, held_out, column.to(device))
        own = data.make_pairs(*train, side, device)
        history = _adapt(config, view, towers, own, judge, half)
        cohort = _cohort(embedder, own, config)
        choice = judge.choose(config, cohort)
        chosen = max(history, key=lambda entry: entry["mean_average_precision"])
        report = {
            "chosen_step": chosen["step"],
            "history": history,
            "choice": asdict(choice.setting),
            "validation": asdict(choice.quality) | {"probes": len(column)},
            "validation_people": len(held_out.rows),
            "chance": 1 / len(held_out.rows),
            "pairs": len(own.clear),
            "people": len(own.rows),
            "parameters": sum(p.numel() for p in towers.parameters()),
            "dtype": "bfloat16" if half else "float32",
            "threads": torch.get_num_threads(),
        }
        setting = choice.setting
        kept = cohort(setting.mirror) if setting.calibrate else None
        return TrainedContrastive(setting.fusion, report, embedder, setting.mirror, kept)


def _queried(view: AttackerView) -> tuple[tuple[ImageSet, ImageSet], tuple[ImageSet, ImageSet]]:
    """(clear, anonymized) images for training and for validation; each is asked for once."""
    if view.oracle is None:
        raise PluginError(
            "contrastive-reid trains on (clear, anonymized) pairs, so it needs the oracle of the "
            "adaptive threat model; the view has none. Use an attack without queries instead."
        )
    people, photos = np.unique(view.validation.subject, return_counts=True)
    if len(np.unique(view.train.subject)) < 2 or len(people) < 2 or photos.max() < 2:
        raise PluginError(
            "contrastive-reid needs at least two attacker-train identities and two "
            "attacker-validation identities, the latter with two photos or more each."
        )
    return (view.train, view.oracle(view.train)), (view.validation, view.oracle(view.validation))


def _side(towers: Towers, config: ContrastiveConfig) -> int:
    """Pixels per side that the network works on."""
    shape = getattr(towers.clear, "config", None)
    return int(getattr(shape, "side", config.side))


Cohorts = Callable[[bool], Cohort]


def _cohort(embedder: Embedder, own: data.Pairs, config: ContrastiveConfig) -> Cohorts:
    """The attacker-train embeddings, with or without mirror images; each made once."""
    made: dict[bool, Cohort] = {}

    def get(mirror: bool) -> Cohort:
        if mirror not in made:
            view = embedder.both if mirror else embedder
            made[mirror] = Cohort(view(own.clear, False), view(own.anonymized, True), config.cohort)
        return made[mirror]

    return get


def _adapt(
    config: ContrastiveConfig,
    view: AttackerView,
    towers: Towers,
    own: data.Pairs,
    judge: Judge,
    half: bool,
) -> list[dict[str, float]]:
    """Train `towers` in place and leave the weights that validation likes best in it.

    Returns:
        One entry per judged step; step 0 is the start, so the result is never worse than it.
    """
    average = Ema(towers, config.average)
    start = _entry(0, math.nan, judge.quick())
    history, best = [start], _state(average)
    optimizer = torch.optim.AdamW(
        towers.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    stops = _stops(config.steps, config.checkpoints)
    losses: list[float] = []
    with view.reporter.task("contrastive-reid: training", config.steps, unit="steps") as task:
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _shape(step, config.steps)
            losses.append(update(config, view.seed, step, towers, own, optimizer, half))
            average.update()
            task.advance()
            if step + 1 in stops:
                live = {key: value.clone() for key, value in towers.state_dict().items()}
                average.copy_to(towers)
                entry = _entry(step + 1, float(np.mean(losses)), judge.quick())
                losses = []
                if entry["mean_average_precision"] > max(
                    e["mean_average_precision"] for e in history
                ):
                    best = _state(average)
                history.append(entry)
                towers.load_state_dict(live)
    towers.load_state_dict(best, strict=False)
    towers.eval()
    return history


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
    side = _side(towers, config)
    clear, anonymized, groups = data.batch(own, config, side, (seed * 1_000_003 + step) % 2**63)
    towers.train()
    with torch.autocast(clear.device.type, torch.bfloat16, enabled=half):
        rows = towers.pairs(clear, anonymized)
    loss = contrastive_loss(rows, groups[:, None] == groups[None], config.temperature)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(towers.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """Settings and how they do on validation."""

    setting: Choice
    quality: Quality


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Attacker-validation: the only images that choices may look at."""

    embedder: Embedder
    held_out: data.Pairs
    column: Tensor

    def scores(self, mirror: bool, cohort: Cohort | None) -> Tensor:
        """(N, N): anonymized against clear validation photos."""
        self.embedder.towers.eval()
        view = self.embedder.both if mirror else self.embedder
        probes = view(self.held_out.anonymized, True)
        gallery = view(self.held_out.clear, False)
        scores = probes @ gallery.T
        if cohort is None:
            return scores
        mine = nearness(probes, cohort.clear, cohort.nearest)
        theirs = nearness(gallery, cohort.anonymized, cohort.nearest)
        return scores - 0.5 * (mine[:, None] + theirs[None])

    def quick(self) -> Quality:
        """Quality at plain settings, by which checkpoints are compared."""
        return quality(self.scores(False, None), self.column, "mean")

    def choose(self, config: ContrastiveConfig, cohorts: Cohorts) -> Chosen:
        """The best permitted settings: most first ranks, then smallest mean log-rank.

        On a tie the simpler settings win (they are tried first).
        """
        best: Chosen | None = None
        for mirror in _options(config.mirror, {"off": False, "on": True}):
            for calibrate in _options(config.calibration, {"none": False, "cohort": True}):
                scores = self.scores(mirror, cohorts(mirror) if calibrate else None)
                for fusion in _options(config.fusion, _FUSIONS):
                    found = quality(scores, self.column, fusion)
                    if best is None or _better(found, best.quality):
                        best = Chosen(Choice(fusion, mirror, calibrate), found)
        assert best is not None  # noqa: S101 - every option list has at least one entry
        return best


def _options(setting: str, known: Mapping[str, _T]) -> Sequence[_T]:
    return tuple(known.values()) if setting == "auto" else (known[setting],)


def _better(found: Quality, best: Quality) -> bool:
    return (found.rank1, -found.log_rank) > (best.rank1, -best.log_rank)
