"""`naive-recogniser`: recognisers that know nothing of the anonymizer, and which is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import PluginError
from privbench.types import AttackerView, ImageSet, Scorer, TrainedAttack
from privbench_plugins.attacks.alignment import Faces
from privbench_plugins.attacks.recogniser_files import candidates
from privbench_plugins.attacks.recogniser_models import Recogniser, load
from privbench_plugins.attacks.recognisers import RecogniserConfig
from privbench_plugins.attacks.validation import Fusion, Quality, quality


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One recogniser with settings, and how it does on attacker-validation.

    Attributes:
        name: as in the settings.
        recogniser: loaded.
        mirror: embeddings average over the mirrored crop.
        fusion: how scores against several references combine.
        quality: clear photos against clear photos, across photos.
        undetected: validation photos without a detected face; None where nothing detects.
    """

    name: str
    recogniser: Recogniser
    mirror: bool
    fusion: Fusion
    quality: Quality
    undetected: int | None

    @property
    def rank(self) -> tuple[float, float, float]:
        """Larger is better: first ranks, then mean log-rank, then mean average precision."""
        q = self.quality
        return q.rank1, -q.log_rank, q.mean_average_precision


class NaiveRecogniser:
    """Uses the recogniser that does best on the attacker's own clear photos."""

    def __init__(self, config: RecogniserConfig) -> None:
        self.config = config

    def train(self, view: AttackerView) -> TrainedAttack:
        """Choose on attacker-validation; no training and no query.

        Raises:
            PluginError: validation cannot tell recognisers apart.
            ModelError: a recogniser cannot be loaded.
            PluginLoadError: an extra is missing.
        """
        column = validation_people(view.validation)
        faces = Faces(view.validation.pixels, self.config.doublings)
        best: dict[str, Candidate] = {}
        names = candidates(self.config)
        with view.reporter.task("naive-recogniser: validation", len(names), unit="models") as task:
            for name in names:
                tried = self._settings(name, load(name, self.config, view.device), faces, column)
                best[name] = max(tried, key=lambda c: c.rank)
                task.advance()
        chosen = max(best.values(), key=lambda c: c.rank)
        report = {
            "recogniser": chosen.name,
            "candidates": {name: _facts(candidate) for name, candidate in best.items()},
            "validation_people": int(column.max()) + 1,
            "validation_photos": len(column),
            "chance": 1 / (int(column.max()) + 1),
        }
        return TrainedRecogniser(
            chosen.fusion, report, chosen.recogniser, chosen.mirror, self.config.doublings
        )

    def _settings(
        self, name: str, recogniser: Recogniser, faces: Faces, column: Tensor
    ) -> Iterator[Candidate]:
        """One recogniser with every permitted setting; the simpler ones, which win ties, first."""
        config, chips = self.config, recogniser.align(faces)
        plain = recogniser.embed(chips.pixels)
        for mirror in {"auto": (False, True), "off": (False,), "on": (True,)}[config.mirror]:
            rows = _both(recogniser, chips.pixels, plain) if mirror else plain
            scores = rows @ rows.T
            fusions: tuple[Fusion, ...] = ("mean", "max")
            for fusion in fusions if config.fusion == "auto" else (config.fusion,):
                found = quality(scores, column, fusion)
                yield Candidate(name, recogniser, mirror, fusion, found, chips.undetected)


def validation_people(validation: ImageSet) -> Tensor:
    """(V,) int64 person 0..P-1 of each validation photo.

    Raises:
        PluginError: fewer than two people, or nobody with two photos: nothing can be chosen.
    """
    people, column, photos = np.unique(validation.subject, return_inverse=True, return_counts=True)
    if len(people) < 2 or photos.max() < 2:
        raise PluginError(
            "Choosing needs at least two attacker-validation identities with two photos or more "
            f"each; got {len(people)} identities with at most {photos.max(initial=0)}."
        )
    return torch.from_numpy(column)


def _facts(candidate: Candidate) -> dict[str, Any]:
    settings = {"mirror": candidate.mirror, "fusion": candidate.fusion}
    return settings | asdict(candidate.quality) | {"undetected": candidate.undetected}


def _both(recogniser: Recogniser, chips: Tensor, plain: Tensor) -> Tensor:
    """(N, D) rows of length one: the mean of a crop's embedding and its mirror's."""
    return F.normalize(plain + recogniser.embed(chips.flip(3)))


@dataclass(slots=True, eq=False)
class TrainedRecogniser:
    """The chosen recogniser.

    Attributes:
        fusion: how several references of one person combine.
        report: every candidate's validation quality and settings.
        recogniser: the chosen one.
        mirror: embeddings average over the mirrored crop.
        doublings: of the detector.
        known: embedding of each image met, and whether its face was found, by the image's hash: a
            gallery is enrolled for every anonymizer, and a probe is scored against several.
    """

    fusion: Fusion
    report: Mapping[str, Any]
    recogniser: Recogniser
    mirror: bool
    doublings: int
    known: dict[bytes, tuple[Tensor, bool | None]] = field(default_factory=dict)

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Scorer:
        """Embed the references; clear or anonymized, all is one to it."""
        rows, undetected = self.embed(gallery)
        facts = {"references": len(rows), "references_undetected": undetected}
        return RecogniserScorer(self, rows, {"recogniser": self.report["recogniser"]} | facts)

    def embed(self, images: ImageSet) -> tuple[Tensor, int | None]:
        """(N, D) rows of length one, and in how many images no face was found."""
        if not len(images):
            return torch.zeros(0, 1), None
        hashes = [blake2b(p.numpy().tobytes(), digest_size=16).digest() for p in images.pixels]
        new = {h: i for i, h in enumerate(hashes) if h not in self.known}
        if new:
            rows, found = self._embedded(images.pixels[list(new.values())])
            seen = [None] * len(rows) if found is None else found.tolist()
            self.known |= dict(zip(new, zip(rows, seen, strict=True), strict=True))
        faces = [self.known[h][1] for h in hashes]
        undetected = None if None in faces else faces.count(False)
        return torch.stack([self.known[h][0] for h in hashes]), undetected

    def _embedded(self, pixels: Tensor) -> tuple[Tensor, NDArray[np.bool_] | None]:
        chips = self.recogniser.align(Faces(pixels, self.doublings))
        plain = self.recogniser.embed(chips.pixels)
        rows = _both(self.recogniser, chips.pixels, plain) if self.mirror else plain
        return rows, chips.found


@dataclass(frozen=True, slots=True, eq=False)
class RecogniserScorer:
    """An enrolled gallery of (G, D) embeddings.

    Attributes:
        facts: images without a detected face, among references and among the probes scored last;
            they were scored all the same, by the middle of the image.
    """

    trained: TrainedRecogniser
    gallery: Tensor
    facts: dict[str, Any]

    def score(self, probes: ImageSet) -> Tensor:
        """(N, G) cosine similarity."""
        if not len(probes) or not len(self.gallery):
            return torch.zeros(len(probes), len(self.gallery))
        rows, undetected = self.trained.embed(probes)
        self.facts.update(probes=len(rows), probes_undetected=undetected)
        return rows @ self.gallery.T
