"""Cross-photo identification with an encoder, on identities it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privbench_plugins.conditions import canny

Images = npt.NDArray[np.uint8]
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Rank1:
    """Share of probes whose person comes first, with what it must be compared to."""

    rank1: float
    mean_average_precision: float
    probes: int
    people: int
    chance: float


def edge_images(images: Images) -> Images:
    """(N, H, W, 3) RGB to its canny maps at the default thresholds, as RGB."""
    return np.repeat(canny(images)[..., None], 3, axis=3)


@torch.no_grad()
def embed(model: Embed, images: Images, batch: int = 128) -> Tensor:
    """(N, H, W, 3) uint8 to (N, D) embeddings, averaged over the image and its mirror."""
    rows = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2).float() / 255
        both = model(torch.cat([pixels, pixels.flip(3)])).float()
        rows.append(torch.nn.functional.normalize(both[: len(pixels)] + both[len(pixels) :]))
    return torch.cat(rows)


def cross_photo(probes: Tensor, gallery: Tensor, subject: npt.NDArray[np.int64]) -> Rank1:
    """Identify each probe among all people by the mean cosine with their *other* photos.

    Args:
        probes: (N, D) embeddings of view A of N photos.
        gallery: (N, D) embeddings of view B of the same photos, in the same order.
        subject: (N,) identity of each photo.
    """
    people, column = np.unique(subject, return_inverse=True)
    member = torch.nn.functional.one_hot(torch.from_numpy(column), len(people)).double()
    scores = (probes.double() @ gallery.double().T).fill_diagonal_(0)
    others = member.sum(0)[None] - member
    person = (scores @ member) / others.clamp_min(1)
    true = person.gather(1, torch.from_numpy(column)[:, None])
    rank = (person >= true).sum(1)  # a tie counts against the probe
    n = len(subject)
    return Rank1(
        float((rank == 1).double().mean()),
        float((1 / rank.double()).mean()),
        n,
        len(people),
        1 / len(people),
    )


def report(model: Embed, images: Images, subject: npt.NDArray[np.int64]) -> dict[str, Rank1]:
    """Clear against clear, edges against clear and edges against edges, all cross-photo."""
    clear, edges = embed(model, images), embed(model, edge_images(images))
    return {
        "clear-clear": cross_photo(clear, clear, subject),
        "edges-clear": cross_photo(edges, clear, subject),
        "edges-edges": cross_photo(edges, edges, subject),
    }
