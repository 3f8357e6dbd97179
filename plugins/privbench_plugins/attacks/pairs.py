"""Batches of (clear, anonymized) views for contrastive training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from privbench.types import ImageSet, Ints
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.tiny_encoder.augment import erase, jitter, warp
from privbench_plugins.tiny_encoder.net import resize


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """N photos with what the anonymizer made of them.

    Attributes:
        clear: (N, 3, H, W) uint8, on the device that trains.
        anonymized: (N, 3, H, W) uint8, row by row the same photos.
        rows: rows of each person.
    """

    clear: Tensor
    anonymized: Tensor
    rows: tuple[Ints, ...]


def shrink(images: ImageSet, side: int, device: torch.device) -> Tensor:
    """(N, 3, H, W) uint8 on `device`, at most about four thirds of `side` tall and wide."""
    limit = max(4 * side // 3, 1)
    if max(images.pixels.shape[2:]) <= limit:
        return images.pixels.to(device)
    small = [
        resize(block.to(device).float(), limit).round_().clamp_(0, 255).to(torch.uint8)
        for block in torch.split(images.pixels, 64)
    ]
    return torch.cat(small) if small else images.pixels.to(device)


def make_pairs(clear: ImageSet, anonymized: ImageSet, side: int, device: torch.device) -> Pairs:
    """Hold both sets in memory, as bytes."""
    people = np.unique(clear.subject)
    rows = tuple(np.flatnonzero(clear.subject == person) for person in people)
    return Pairs(shrink(clear, side, device), shrink(anonymized, side, device), rows)


def choose(pairs: Pairs, config: ContrastiveConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Photos of one batch and the group of each; views of one group attract each other.

    `positives="identity"` draws people, then photos of each; `positives="photo"` draws photos
    from all, and other photos of the same person are negatives, as in the paper.

    Returns:
        (n,) rows and (n,) groups, n at most `config.batch`.
    """
    if config.positives == "photo":
        n = len(pairs.clear)
        rows = torch.randperm(n, generator=generator)[: config.batch]
        return rows, rows
    people = max(2, config.batch // config.per_identity)
    who = torch.randperm(len(pairs.rows), generator=generator)[:people].tolist()
    picked, groups = [], []
    for person in who:
        own = pairs.rows[person]
        order = torch.randperm(len(own), generator=generator)[: config.per_identity]
        picked.append(torch.from_numpy(own)[order])
        groups.append(torch.full((len(order),), person))
    return torch.cat(picked), torch.cat(groups)


def augmented(pixels: Tensor, config: ContrastiveConfig, side: int, generator: Generator) -> Tensor:
    """(n, 3, H, W) uint8 to (n, 3, side, side) float in [0, 1], randomly changed."""
    moved = warp(
        pixels.float().div_(255),
        generator,
        side,
        config.scale,
        config.shift,
        config.degrees,
        config.flip,
    )
    changed = jitter(moved, generator, config.jitter, config.grey)
    return erase(changed, generator, config.erase)


def batch(
    pairs: Pairs, config: ContrastiveConfig, side: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One training batch: clear views (n, 3, side, side), anonymized views, groups (2n,)."""
    generator = Generator().manual_seed(seed)
    rows, groups = choose(pairs, config, generator)
    rows = rows.to(pairs.clear.device)
    clear = augmented(pairs.clear[rows], config, side, generator)
    anonymized = augmented(pairs.anonymized[rows], config, side, generator)
    return clear, anonymized, torch.cat([groups, groups]).to(pairs.clear.device)
