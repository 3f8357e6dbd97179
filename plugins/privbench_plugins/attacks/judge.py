"""The judge of `contrastive-reid`: all that is chosen is chosen by it, on attacker-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.embedding import Cohort, Embedder, embed, embed_draws, offsets
from privbench_plugins.attacks.pairs import Pairs
from privbench_plugins.attacks.validation import Fusion, Quality, quality

_T = TypeVar("_T")
_FUSIONS: Mapping[str, Fusion] = {"mean": "mean", "max": "max"}

Cohorts = Callable[[bool], Cohort]


@dataclass(frozen=True, slots=True)
class Choice:
    """What scoring depends on besides the weights."""

    fusion: Fusion
    mirror: bool
    calibrate: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """Settings and how they do on validation."""

    setting: Choice
    quality: Quality


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Attacker-validation: the only images that choices may look at.

    Attributes:
        embedder: the towers to be judged.
        held_out: V validation photos and their K releases.
        column: (V,) person 0..P-1 of each photo.
        anonymized: references are released images (the first draw) rather than the photos.
    """

    embedder: Embedder
    held_out: Pairs
    column: Tensor
    anonymized: bool = False

    def scores(self, mirror: bool, cohort: Cohort | None) -> Tensor:
        """(V, V): validation photos as released probes (all draws) against them as references."""
        self.embedder.towers.eval()
        probes = embed_draws(self.embedder, self.held_out.anonymized, mirror)
        references = self.held_out.anonymized[0] if self.anonymized else self.held_out.clear
        gallery = embed(self.embedder, references, self.anonymized, mirror)
        scores = probes @ gallery.T
        if cohort is None:
            return scores
        return scores - offsets(probes, gallery, self.anonymized, cohort)

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


def cohorts_of(embedder: Embedder, own: Pairs, nearest: int) -> Cohorts:
    """The attacker-train embeddings, with or without mirror images; each made once."""
    made: dict[bool, Cohort] = {}

    def get(mirror: bool) -> Cohort:
        if mirror not in made:
            clear = embed(embedder, own.clear, anonymized=False, mirror=mirror)
            made[mirror] = Cohort(clear, embed_draws(embedder, own.anonymized, mirror), nearest)
        return made[mirror]

    return get


def _options(setting: str, known: Mapping[str, _T]) -> Sequence[_T]:
    return tuple(known.values()) if setting == "auto" else (known[setting],)


def _better(found: Quality, best: Quality) -> bool:
    return (found.rank1, -found.log_rank) > (best.rank1, -best.log_rank)
