"""`contrastive-reid`: queries, training and choices put together, and the trained attack."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.types import AttackerView, ImageSet, Oracle, Scorer, TrainedAttack
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.embedding import Cohort, Embedder, enroll, use_bfloat16
from privbench_plugins.attacks.judge import Judge, cohorts_of
from privbench_plugins.attacks.pairs import make_pairs
from privbench_plugins.attacks.search import grid, halving, rungs, total
from privbench_plugins.attacks.start import create
from privbench_plugins.attacks.training import Training, best_entry, side_of
from privbench_plugins.attacks.validation import Fusion


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
        oracle = _checked(view)
        config, device = self.config, view.device
        towers = create(config, view.seed % 2**63).to(device).eval()
        half = use_bfloat16(config.dtype, device)
        side = side_of(towers, config)
        own = make_pairs(view.train, _draws(oracle, view.train, view.draws), side, device)
        held_out = make_pairs(
            view.validation, _draws(oracle, view.validation, view.draws), side, device
        )
        column = torch.from_numpy(np.unique(view.validation.subject, return_inverse=True)[1])
        embedder = Embedder(towers, device, half, config.embed_batch)
        judge = Judge(embedder, held_out, column.to(device), config.pairs == "anonymized")

        def start(candidate: ContrastiveConfig) -> Training:
            own_towers = replace(embedder, towers=copy.deepcopy(towers))
            return Training(candidate, view.seed, own, replace(judge, embedder=own_towers))

        candidates, plan = grid(config), rungs(config.search, config.steps)
        with view.reporter.task("contrastive-reid: training", total(plan), unit="steps") as task:
            training, compared = halving(candidates, start, plan, task)
        training.finish()
        judge, embedder = training.judge, training.judge.embedder
        cohorts = cohorts_of(embedder, own, config.cohort)
        choice = judge.choose(config, cohorts)
        report = {
            "chosen_step": best_entry(training.history)["step"],
            "history": training.history,
            "choice": asdict(choice.setting),
            "validation": asdict(choice.quality) | {"probes": len(column)},
            "validation_people": len(held_out.rows),
            "chance": 1 / len(held_out.rows),
            "pairs": len(own.clear),
            "people": len(own.rows),
            "draws": view.draws,
            "candidates": compared,
            "steps": total(plan),
            "parameters": sum(p.numel() for p in embedder.towers.parameters()),
            "dtype": "bfloat16" if half else "float32",
            "threads": torch.get_num_threads(),
        }
        setting = choice.setting
        kept = cohorts(setting.mirror) if setting.calibrate else None
        return TrainedContrastive(setting.fusion, report, embedder, setting.mirror, kept)


def _checked(view: AttackerView) -> Oracle:
    """The view's oracle, if the view is enough to train and to choose on."""
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
    return view.oracle


def _draws(oracle: Oracle, images: ImageSet, draws: int) -> Iterator[ImageSet]:
    """The photos anonymized once for each draw; each is asked for when it is needed."""
    return (oracle(images, draw=k) for k in range(draws))
