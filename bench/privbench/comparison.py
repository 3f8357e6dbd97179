"""Photo-level scores of a trained attack, which sees neither names nor order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import stage_seed
from privbench.plan import VALIDATION, Resolved
from privbench.release import joined
from privbench.session import Session, blame
from privbench.types import UNKNOWN, DrawScorer, ImageSet, Ints, TrainedAttack

Draws = Callable[[str], Sequence[ImageSet]]
"""A part to what the attacker holds of it: its released draws, or reconstructions of it."""


def score(
    session: Session, plugin: Resolved, trained: TrainedAttack, draws: Draws, adaptive: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Photo-level scores in the split's order (`privbench.evidence.Scores` says which), and what
    the scorers noted about probes and each gallery.

    Args:
        draws: one set of each part for every draw; of the cross-gallery the first counts.
        adaptive: the attacker has `draws` of attacker-validation; one who has not can fix a
            threshold on clear photographs only.
    """
    compare = Comparison.of(session, plugin, trained)
    probes, held_out = draws("probes"), draws(VALIDATION)
    everyone = [joined([p, s]) for p, s in zip(probes, draws("non-mated"), strict=True)]
    cross = draws("cross-gallery")[0]
    validation, n = session.part(VALIDATION), len(probes[0])
    clear = compare(everyone, session.part("gallery"), False, "gallery")  # enrols it once
    anonymized = compare(everyone, cross, True, "cross")
    arrays = {
        "gallery": clear[:n],
        "cross": anonymized[:n],
        "source": compare.pairwise(probes, session.part("probes")),
        "non-mated": clear[n:],
        "non-mated-cross": anonymized[n:],
        "validation": compare(held_out, validation, False),
        "validation-cross": compare(held_out, held_out[0], True),
    }
    if not adaptive:
        arrays["validation-clear"] = compare([validation], validation, False)
    return arrays, compare.facts


@dataclass(frozen=True, slots=True)
class Scored:
    """An attack's photo-level scores and how they came about.

    Attributes:
        arrays: stored one part each; the first is what `privbench.evidence.Scores` describes.
        fusion: how references of one person combine.
        report: JSON-able facts.
        queries: images that the oracle was asked for.
        times: what, seconds, images.
    """

    arrays: tuple[Mapping[str, np.ndarray], ...]
    fusion: str
    report: Mapping[str, Any]
    queries: int
    times: tuple[tuple[str, float, int], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of an attack that sees neither names nor order, and what its scorers noted."""

    plugin: Resolved
    trained: TrainedAttack
    rng: np.random.Generator
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session, plugin: Resolved, trained: TrainedAttack) -> Comparison:
        """One whose order depends on the run's seed alone."""
        seed = stage_seed(session.plan.study.seed, "shuffle")
        return cls(plugin, trained, np.random.default_rng(seed))

    def __call__(
        self, draws: Sequence[ImageSet], gallery: ImageSet, anonymized: bool, name: str = ""
    ) -> np.ndarray:
        """(N, G) scores of N probes, each in one draw or several, against a labelled gallery.

        Args:
            name: under which to keep the scorer's facts; "" keeps none.
        """
        rows, columns = self.rng.permutation(len(draws[0])), self.rng.permutation(len(gallery))
        people = np.unique(gallery.subject)
        labels = self.rng.permutation(len(people))[np.searchsorted(people, gallery.subject)]
        shown = neutral(gallery.take(columns), "gallery", labels[columns])
        hidden = [neutral(probes.take(rows), "probe") for probes in draws]
        with blame(self.plugin, "scoring"), torch.inference_mode():
            scorer = self.trained.enroll(shown, anonymized)
            if len(hidden) > 1 and isinstance(scorer, DrawScorer):
                scores: object = scorer.score_draws(hidden)
            elif len(hidden) > 1:
                scores = torch.stack([scorer.score(probes) for probes in hidden]).mean(0)
            else:
                scores = scorer.score(hidden[0])
        if name and (noted := getattr(scorer, "facts", None)):
            self.facts[name] = dict(noted)
        return _unshuffled(self.plugin, scores, rows, columns)

    def pairwise(self, draws: Sequence[ImageSet], sources: ImageSet) -> np.ndarray:
        """(N,) score of each probe against its own source photo, which is enrolled clear."""
        own = np.empty(len(sources), np.float32)
        alone = replace(sources, subject=np.arange(len(sources)))
        for start in range(0, len(sources), 1024):  # blockwise: only the diagonal is wanted
            rows = np.arange(start, min(start + 1024, len(sources)))
            own[rows] = self([d.take(rows) for d in draws], alone.take(rows), False).diagonal()
        return own


def neutral(images: ImageSet, prefix: str, labels: Ints | None = None) -> ImageSet:
    """The same pixels with keys and labels that tell nothing."""
    n = len(images)
    subject = np.full(n, UNKNOWN) if labels is None else labels
    return ImageSet(images.pixels, subject, tuple(f"{prefix}-{i}" for i in range(n)))


def _unshuffled(plugin: Resolved, scores: object, rows: Ints, columns: Ints) -> np.ndarray:
    """Check an attack's scores and put them back in order."""
    shape = (len(rows), len(columns))
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != shape:
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise PluginError(f"The attack {plugin.id} must return scores of shape {shape}; got {got}.")
    values = scores.detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise PluginError(f"The attack {plugin.id} returned scores that are NaN or infinite.")
    ordered = np.empty_like(values)
    ordered[np.ix_(rows, columns)] = values
    return ordered
