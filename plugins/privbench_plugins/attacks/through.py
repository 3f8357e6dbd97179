"""An attack that sees images only through something: edges, the silhouette, the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privbench.types import (
    Anonymizer,
    Attack,
    AttackerView,
    DrawScorer,
    ImageSet,
    Oracle,
    Scorer,
    TrainedAttack,
    quantize,
)
from privbench_plugins.attacks.validation import Fusion
from privbench_plugins.conditions import CANNY_HIGH, CANNY_LOW, canny

Look = Callable[[ImageSet], ImageSet]
"""Images to the same images, row by row, as the attack sees them."""

_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Through:
    """Another attack, which sees images through a look.

    Attributes:
        inner: the attack.
        prepare: what it trains on, made of the whole view.
        clear: how it sees clear references.
        released: how it sees released images.
    """

    inner: Attack
    prepare: Callable[[AttackerView], AttackerView]
    clear: Look
    released: Look

    def train(self, view: AttackerView) -> TrainedAttack:
        """Train the inner attack on what it may see.

        Raises:
            PluginError: the inner attack cannot be trained on it.
        """
        trained = self.inner.train(self.prepare(view))
        return TrainedThrough(trained.fusion, trained.report, trained, self.clear, self.released)


@dataclass(slots=True, eq=False)
class TrainedThrough:
    """The inner attack, trained; `fusion` and `report` are its own."""

    fusion: Fusion
    report: Mapping[str, Any]
    inner: TrainedAttack
    clear: Look
    released: Look

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Scorer:
        """Enrol what is seen of the gallery."""
        seen = self.released(gallery) if anonymized else self.clear(gallery)
        inner = self.inner.enroll(seen, anonymized)
        if isinstance(inner, DrawScorer):
            return DrawScorerThrough(inner, self.released)
        return ScorerThrough(inner, self.released)


@dataclass(frozen=True, slots=True, eq=False)
class ScorerThrough:
    """Scores what is seen of the probes."""

    inner: Scorer
    look: Look

    def score(self, probes: ImageSet) -> Tensor:
        """(N, G)."""
        return self.inner.score(self.look(probes))


@dataclass(frozen=True, slots=True, eq=False)
class DrawScorerThrough:
    """`ScorerThrough` for a scorer that knows what to do with several draws."""

    inner: Any  # both a Scorer and a DrawScorer
    look: Look

    def score(self, probes: ImageSet) -> Tensor:
        """(N, G)."""
        scores: Tensor = self.inner.score(self.look(probes))
        return scores

    def score_draws(self, draws: Sequence[ImageSet]) -> Tensor:
        """(N, G)."""
        scores: Tensor = self.inner.score_draws([self.look(images) for images in draws])
        return scores


# --- edges in the anonymizer's stead -----------------------------------------------------------


def edge_surrogate(inner: Attack, thresholds: Sequence[float]) -> Through:
    """An adaptive attack without its queries: edge extraction answers in the oracle's place.

    The black-box attack of Lorenz et al. 2025 as its abstract states it: what a conditioned
    anonymizer keeps are edges, so whoever can match edge maps with photos can match its releases,
    once their edges are extracted, too.

    Args:
        inner: learns from (clear, answer) pairs.
        thresholds: factors on canny's thresholds; the first one counts outside of training.
    """

    def prepare(view: AttackerView) -> AttackerView:
        return replace(view, oracle=EdgeOracle(frozenset(view.train.keys), tuple(thresholds)))

    def released(images: ImageSet) -> ImageSet:
        return drawn(images, edges(images.pixels, thresholds[0]))

    return Through(inner, prepare, lambda images: images, released)


@dataclass(frozen=True, slots=True, eq=False)
class EdgeOracle:
    """Answers with edge maps. The anonymizer is never asked.

    Attributes:
        train: keys of training photos, which take turns with the thresholds.
        thresholds: factors on canny's thresholds.
    """

    train: frozenset[str]
    thresholds: tuple[float, ...]

    @property
    def queries(self) -> int:
        """None, ever."""
        return 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`; a draw moves on to the next threshold."""
        turn = np.arange(len(images)) + draw
        known = np.array([key in self.train for key in images.keys], dtype=bool)
        turn = np.where(known, turn % len(self.thresholds), 0)
        maps = np.empty((len(images), *images.pixels.shape[2:]), np.uint8)
        for index in np.unique(turn):
            rows = np.flatnonzero(turn == index)
            maps[rows] = edges(images.pixels[torch.from_numpy(rows)], self.thresholds[index])
        return drawn(images, maps)


def edges(pixels: Tensor, threshold: float) -> NDArray[np.uint8]:
    """(N, 3, H, W) uint8 RGB to (N, H, W) uint8, 255 on an edge: the canny of the anonymizers
    at `threshold` times its usual thresholds."""
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return canny(images, threshold * CANNY_LOW, threshold * CANNY_HIGH)


def drawn(images: ImageSet, maps: NDArray[np.uint8]) -> ImageSet:
    """(N, H, W) maps in place of the pixels."""
    grey = torch.from_numpy(maps)[:, None].repeat(1, 3, 1, 1)
    return ImageSet(grey, images.subject, images.keys)


# --- one signal alone --------------------------------------------------------------------------


def one_signal(inner: Attack, signal: Anonymizer) -> Through:
    """An adaptive attack for which both clear and released images go through `signal` first.

    Args:
        inner: learns from (clear, answer) pairs; sees what `signal` leaves of both.
        signal: a diagnostic anonymizer; deterministic.
    """

    def look(images: ImageSet) -> ImageSet:
        if not len(images):
            return images
        parts = [
            quantize(signal.anonymize(images.take(rows).batch(), [0] * len(rows)))
            for rows in np.array_split(np.arange(len(images)), range(_BATCH, len(images), _BATCH))
        ]
        return ImageSet(torch.cat(parts), images.subject, images.keys)

    def prepare(view: AttackerView) -> AttackerView:
        seen = replace(view, train=look(view.train), validation=look(view.validation))
        if view.oracle is None:
            return seen
        both = (view.train, view.validation)
        originals = ImageSet(
            torch.cat([part.pixels for part in both]),
            np.concatenate([part.subject for part in both]),
            tuple(key for part in both for key in part.keys),
        )
        return replace(seen, oracle=LookingOracle(view.oracle, originals, look))

    return Through(inner, prepare, look, look)


@dataclass(frozen=True, slots=True, eq=False)
class LookingOracle:
    """Asks the real oracle for the photos themselves, and shows what is seen of its answers.

    Attributes:
        oracle: the anonymizer's.
        originals: the attacker's photos as they were before the look, known by their keys.
        look: what is seen of the answers.
    """

    oracle: Oracle
    originals: ImageSet
    look: Look

    @property
    def queries(self) -> int:
        """Those of the real one."""
        return self.oracle.queries

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        row = {key: index for index, key in enumerate(self.originals.keys)}
        asked = self.originals.take([row[key] for key in images.keys])
        return self.look(self.oracle(asked, draw))
