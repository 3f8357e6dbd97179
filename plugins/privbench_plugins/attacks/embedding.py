"""Embedding images in fixed-shape batches, and scoring embeddings against a gallery."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.types import ImageSet, Scorer
from privbench_plugins.attacks.start import Towers

BLOCK = 4096


def use_bfloat16(dtype: str, device: torch.device) -> bool:
    """Whether convolutions run in bfloat16; `auto` asks the hardware."""
    if dtype != "auto":
        return dtype == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True, slots=True, eq=False)
class Embedder:
    """Towers with all that an embedding depends on.

    Attributes:
        towers: in evaluation mode.
        device: where they are.
        bfloat16: precision of the convolutions.
        batch: images at once; the last batch is padded to it, so that an image's embedding
            does not depend on how many others there are.
    """

    towers: Towers
    device: torch.device
    bfloat16: bool
    batch: int

    @torch.no_grad()
    def __call__(self, pixels: Tensor, anonymized: bool, mirror: bool = False) -> Tensor:
        """(N, 3, H, W) uint8 to (N, D) float32 rows of length one; mirrored left to right on
        request."""
        rows = [
            self._block(block, anonymized, mirror)
            for block in torch.split(pixels, self.batch)
            if len(block)
        ]
        return torch.cat(rows) if rows else torch.zeros(0, 1, device=self.device)

    def _block(self, pixels: Tensor, anonymized: bool, mirror: bool) -> Tensor:
        n = len(pixels)
        x = pixels.to(self.device).float().div_(255)
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.batch - n))
        if mirror:
            x = x.flip(3)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            rows: Tensor = self.towers(x, anonymized)
        return rows[:n]

    def both(self, pixels: Tensor, anonymized: bool) -> Tensor:
        """(N, D) rows of length one: the mean of an image's embedding and its mirror's."""
        plain, mirrored = self(pixels, anonymized), self(pixels, anonymized, mirror=True)
        return F.normalize(plain + mirrored)


def nearness(rows: Tensor, cohort: Tensor, nearest: int) -> Tensor:
    """(N,) mean cosine of each row with its `nearest` most similar cohort rows."""
    k = min(nearest, len(cohort))
    parts = [(block @ cohort.T).topk(k, dim=1).values.mean(1) for block in torch.split(rows, BLOCK)]
    return torch.cat(parts) if parts else rows.new_zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Embeddings of the attacker-train images: strangers to every probe and reference.

    A cosine is lowered by half of what probe and reference score against their nearest
    strangers (symmetric adaptive score normalisation without the scale; the same form as
    CSLS, Conneau et al. 2018, equation 7).
    """

    clear: Tensor
    anonymized: Tensor
    nearest: int


@dataclass(frozen=True, slots=True, eq=False)
class CosineScorer:
    """An enrolled gallery.

    Attributes:
        embedder: the trained towers.
        mirror: embeddings average over the mirror image.
        gallery: (G, D) embeddings.
        anonymized: the gallery holds released images.
        cohort: for calibration, or None.
    """

    embedder: Embedder
    mirror: bool
    gallery: Tensor
    anonymized: bool
    cohort: Cohort | None

    def score(self, probes: ImageSet) -> Tensor:
        """(N, G) float32 similarity on the CPU, computed in blocks of probes."""
        return self.score_draws([probes])

    def score_draws(self, draws: Sequence[ImageSet]) -> Tensor:
        """(N, G) similarity of probes that were released several times; as `score` for one."""
        rows = embed_draws(self.embedder, (draw.pixels for draw in draws), self.mirror)
        if not len(self.gallery) or not len(rows):
            return torch.zeros(len(rows), len(self.gallery))
        blocks = [(block @ self.gallery.T).cpu() for block in torch.split(rows, BLOCK)]
        scores = torch.cat(blocks)
        if self.cohort is None:
            return scores
        return scores - offsets(rows, self.gallery, self.anonymized, self.cohort).cpu()


def offsets(probes: Tensor, gallery: Tensor, anonymized: bool, cohort: Cohort) -> Tensor:
    """(N, G) by which calibration lowers the cosines of N probes with G references.

    Args:
        probes: (N, D) embeddings of released images.
        gallery: (G, D) embeddings of the references.
        anonymized: the references are released images.
        cohort: the strangers.
    """
    strangers = cohort.anonymized if anonymized else cohort.clear
    mine = nearness(probes, strangers, cohort.nearest)
    theirs = nearness(gallery, cohort.anonymized, cohort.nearest)
    return 0.5 * (mine[:, None] + theirs[None])


def embed(embedder: Embedder, pixels: Tensor, anonymized: bool, mirror: bool) -> Tensor:
    """(N, D) embeddings of (N, 3, H, W) uint8 images."""
    return (embedder.both if mirror else embedder)(pixels, anonymized)


def embed_draws(embedder: Embedder, draws: Iterable[Tensor], mirror: bool) -> Tensor:
    """(N, D) embeddings of K releases of the same photos, (N, 3, H, W) uint8 each.

    The mean over the draws, of length one again: what the draws do not share averages out.
    """
    rows = [embed(embedder, pixels, anonymized=True, mirror=mirror) for pixels in draws]
    return rows[0] if len(rows) == 1 else F.normalize(torch.stack(rows).mean(0), dim=1)


def enroll(
    embedder: Embedder, gallery: ImageSet, anonymized: bool, mirror: bool, cohort: Cohort | None
) -> Scorer:
    """Embed a gallery."""
    rows = embed(embedder, gallery.pixels, anonymized, mirror)
    return CosineScorer(embedder, mirror, rows, anonymized, cohort)
