"""Thumbnails compared after whitening, as a privbench attack.

The attacker has photographs of other people, and the anonymizer to try on them. Both together
show in which directions images of one person differ; these are scaled down (within-class covariance
normalisation), so that what is left tells people apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from privbench import Config, PluginSpec, PrivbenchError, Tags, hookimpl
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from privbench.types import AttackerView, Floats, ImageSet

PRIVBENCH_API = 1


class ThumbnailConfig(Config):
    """Settings: each has a default and a description."""

    side: int = Field(default=16, ge=4, le=64, description="Side of the thumbnails, in pixels.")


@dataclass(frozen=True, slots=True)
class ThumbnailAttack:
    """Learns how images of one person differ, from the attacker's own people.

    Attributes:
        side: of the thumbnails, in pixels.
    """

    side: int

    def train(self, view: AttackerView) -> TrainedThumbnails:
        """Learn from clear images and what the anonymizer makes of them.

        Raises:
            PrivbenchError: there is no oracle.
        """
        import numpy as np
        from sklearn.covariance import LedoitWolf

        if view.oracle is None:
            raise PrivbenchError("thumbnails needs the oracle of the adaptive threat model.")
        clear = thumbnails(view.train, self.side)
        released = thumbnails(view.oracle(view.train), self.side)
        middle = clear.mean(0), released.mean(0)
        rows = np.concatenate([clear - middle[0], released - middle[1]])
        person = np.tile(np.unique(view.train.subject, return_inverse=True)[1], 2)
        means = np.stack([rows[person == i].mean(0) for i in range(person.max() + 1)])
        within = LedoitWolf(assume_centered=True).fit(rows - means[person])
        report = {"people": len(means), "images": len(clear), "shrinkage": within.shrinkage_}
        return TrainedThumbnails(self.side, *middle, np.linalg.cholesky(within.precision_), report)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedThumbnails:
    """The trained attack.

    Attributes:
        side: of the thumbnails, in pixels.
        clear: (D,) mean of clear thumbnails.
        released: (D,) mean of released thumbnails.
        whitening: (D, D) under which a person's images differ alike in all directions.
        report: facts for the record.
        fusion: how scores against several references of one person combine.
    """

    side: int
    clear: Floats
    released: Floats
    whitening: Floats
    report: Mapping[str, Any]
    fusion: Literal["max", "mean"] = "mean"

    def enroll(self, gallery: ImageSet, anonymized: bool) -> ThumbnailScorer:
        """Remember the references, clear photographs or released images."""
        middle = self.released if anonymized else self.clear
        return ThumbnailScorer(self, self.embed(gallery, middle))

    def embed(self, images: ImageSet, middle: Floats) -> Floats:
        """(N, D) whitened thumbnails of length one."""
        import numpy as np

        rows = (thumbnails(images, self.side) - middle) @ self.whitening
        embedded: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
        return embedded


@dataclass(frozen=True, slots=True, eq=False)
class ThumbnailScorer:
    """An enrolled gallery.

    Attributes:
        trained: the attack.
        references: (G, D) embeddings.
    """

    trained: TrainedThumbnails
    references: Floats

    def score(self, probes: ImageSet) -> torch.Tensor:
        """(N, G) cosine similarity."""
        import torch

        return torch.from_numpy(
            self.trained.embed(probes, self.trained.released) @ self.references.T
        )


def thumbnails(images: ImageSet, side: int) -> Floats:
    """(N, 3 * side * side) float64 in [0, 1]."""
    from torch.nn import functional

    small = functional.interpolate(images.floats(), size=(side, side), mode="area")
    rows: Floats = small.flatten(1).double().numpy()
    return rows


def build(config: ThumbnailConfig) -> ThumbnailAttack:
    """Build the attack; heavy libraries are imported from here on, not before."""
    return ThumbnailAttack(config.side)


SPEC = PluginSpec(
    kind="attack",
    id="privbench-thumbnails/thumbnails",
    version=1,
    summary="Thumbnails compared after whitening by how images of one person differ.",
    build=build,
    config=ThumbnailConfig,
    tags=Tags(knowledge="adaptive"),
)


@hookimpl
def privbench_plugins() -> Iterable[PluginSpec]:
    """The plugins of this package."""
    return [SPEC]
