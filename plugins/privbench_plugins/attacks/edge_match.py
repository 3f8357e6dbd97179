"""`edge-match`: symmetric truncated chamfer distance between edge maps, for all pairs at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from privbench.types import AttackerView, ImageSet, Scorer, TrainedAttack
from privbench_plugins.attacks.alignment import shrink
from privbench_plugins.attacks.edges import EdgeMatchConfig
from privbench_plugins.attacks.naive import validation_people
from privbench_plugins.attacks.through import edges
from privbench_plugins.attacks.validation import Fusion, quality

_BLOCK = 256
"""Maps on each side of a matrix product: 256 of 128 x 128 float32 are 16 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Edges, and how far they are.

    Attributes:
        edges: (N, H, W) float32, 1 on an edge and 0 elsewhere.
        far: (N, H, W) float32 Euclidean distance to the nearest edge, in tolerances, at most 1.
    """

    edges: Tensor
    far: Tensor

    def __len__(self) -> int:
        return len(self.edges)

    def block(self, start: int) -> Maps:
        """The next few."""
        rows = slice(start, start + _BLOCK)
        return Maps(self.edges[rows], self.far[rows])


def edge_maps(images: ImageSet, config: EdgeMatchConfig, device: torch.device) -> Maps:
    """Extract edges and measure the distance to them."""
    height, width = images.pixels.shape[2:]
    scale = config.side / min(height, width)
    pixels = images.pixels
    if scale < 1:
        pixels = shrink(pixels, round(height * scale), round(width * scale))
    lines = edges(pixels, config.threshold)
    far = np.empty(lines.shape, np.float32)
    for row, line in enumerate(lines):
        away = cv2.distanceTransform(255 - line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        far[row] = np.minimum(away / config.tolerance, 1)
    far[~lines.any((1, 2))] = 1
    return Maps(
        torch.from_numpy(lines).to(device).float().div_(255), torch.from_numpy(far).to(device)
    )


def similarity(probes: Maps, gallery: Maps, shift: int) -> Tensor:
    """Minus the symmetric truncated chamfer distance, at each pair's best shift.

    The directed distance of A to B is the mean over edge pixels of A of the distance to B's
    nearest edge, cut off at the tolerance (Barrow et al. 1977; Borgefors 1988): the product of
    A's edges with B's distance field. Both directions are averaged. Edge pixels within `shift` of
    the border do not count, so that no move leaves the image. A map without edges is at the
    largest distance from everything.

    Args:
        probes: N maps.
        gallery: G maps of the same shape.
        shift: a probe may move by up to this many pixels, each way.

    Returns:
        (N, G) float32 in [-1, 0], on the CPU.
    """
    out = torch.zeros(len(probes), len(gallery))
    for i, j in product(range(0, len(probes), _BLOCK), range(0, len(gallery), _BLOCK)):
        out[i : i + _BLOCK, j : j + _BLOCK] = _block(probes.block(i), gallery.block(j), shift)
    return out


def _block(probes: Maps, gallery: Maps, shift: int) -> Tensor:
    mine, none = _shares(probes.edges, shift)
    theirs, nothing = _shares(gallery.edges, shift)
    best = mine.new_full((len(probes), len(gallery)), 2.0)
    for dy, dx in product(range(-shift, shift + 1), repeat=2):
        there = mine @ _window(gallery.far, shift, dy, dx).T
        back = _window(probes.far, shift, -dy, -dx) @ theirs.T
        best = torch.minimum(best, there + back)
    best = torch.where(none[:, None] | nothing[None], 2.0, best)
    return best.div_(-2).cpu()


def _shares(edges: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """(N, P) weights of edge pixels, of sum 1; (N,) where there are none."""
    flat = _window(edges, shift, 0, 0)
    count = flat.sum(1)
    return flat / count.clamp_min(1)[:, None], count == 0


def _window(maps: Tensor, shift: int, dy: int, dx: int) -> Tensor:
    """(N, P): all but a border of `shift` pixels, seen `dy` lower and `dx` further right."""
    height, width = maps.shape[1:]
    rows = slice(shift + dy, height - shift + dy)
    columns = slice(shift + dx, width - shift + dx)
    return maps[:, rows, columns].flatten(1)


class EdgeMatch:
    """Nothing is trained; only the fusion is chosen."""

    def __init__(self, config: EdgeMatchConfig) -> None:
        self.config = config

    def train(self, view: AttackerView) -> TrainedAttack:
        """Choose the fusion: edges of clear validation photos against each other's.

        Raises:
            PluginError: there are too few people or photos to choose on.
        """
        column = validation_people(view.validation)
        maps = edge_maps(view.validation, self.config, view.device)
        scores = similarity(maps, maps, self.config.shift)
        fusions: tuple[Fusion, ...] = ("mean", "max")
        asked = self.config.fusion
        found = {f: quality(scores, column, f) for f in (fusions if asked == "auto" else (asked,))}
        fusion = max(found, key=lambda f: (found[f].rank1, -found[f].log_rank))
        report = {
            "validation": asdict(found[fusion]) | {"probes": len(column)},
            "validation_people": int(column.max()) + 1,
            "chance": 1 / (int(column.max()) + 1),
        }
        return TrainedEdgeMatch(fusion, report, self.config, view.device)


@dataclass(slots=True, eq=False)
class TrainedEdgeMatch:
    """The fusion, chosen."""

    fusion: Fusion
    report: Mapping[str, Any]
    config: EdgeMatchConfig
    device: torch.device

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Scorer:
        """Extract the references' edges."""
        return EdgeScorer(self, edge_maps(gallery, self.config, self.device))


@dataclass(frozen=True, slots=True, eq=False)
class EdgeScorer:
    """An enrolled gallery."""

    trained: TrainedEdgeMatch
    gallery: Maps

    def score(self, probes: ImageSet) -> Tensor:
        """(N, G) in [-1, 0], 0 where the edges are the same."""
        config = self.trained.config
        return similarity(
            edge_maps(probes, config, self.trained.device), self.gallery, config.shift
        )
