"""Batches of paired views, (clear, anonymized) or both anonymized, for contrastive training."""

from __future__ import annotations

from collections.abc import Iterable
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
        anonymized: (K, N, 3, H, W) uint8, K draws of the same photos, row by row.
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


def make_pairs(
    clear: ImageSet, draws: Iterable[ImageSet], side: int, device: torch.device
) -> Pairs:
    """Hold the photos and their K releases in memory, as bytes of about the network's size."""
    people = np.unique(clear.subject)
    rows = tuple(np.flatnonzero(clear.subject == person) for person in people)
    anonymized = torch.stack([shrink(draw, side, device) for draw in draws])
    return Pairs(shrink(clear, side, device), anonymized, rows)


def choose(
    pairs: Pairs, config: ContrastiveConfig, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Photos of one batch and the group of each; views of one group attract each other.

    `positives="identity"` draws people, then photos of each; `positives="photo"` draws photos
    from all, and other photos of the same person are negatives, as in the paper. The second
    view is of the same photo, except in pairs of releases of one person: there it is of another
    photo of that person, where there is one.

    Returns:
        (n,) rows of the first view, (n,) rows of the second and (n,) groups, n at most
        `config.batch`.
    """
    if config.positives == "photo":
        n = len(pairs.clear)
        rows = torch.randperm(n, generator=generator)[: config.batch]
        return rows, rows, rows
    people = max(2, config.batch // config.per_identity)
    who = torch.randperm(len(pairs.rows), generator=generator)[:people].tolist()
    first, second, groups = [], [], []
    for person in who:
        own = torch.from_numpy(pairs.rows[person])
        own = own[torch.randperm(len(own), generator=generator)]
        n = min(len(own), config.per_identity)
        turn = min(n, len(own) - 1) if config.pairs == "anonymized" else 0
        first.append(own[:n])
        second.append(own.roll(-turn)[:n])
        groups.append(torch.full((n,), person))
    return torch.cat(first), torch.cat(second), torch.cat(groups)


def two_draws(draws: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two different draws, (n,) each, for every photo; draw 0 twice where there is but one."""
    if draws == 1:
        return torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    first = torch.randint(draws, (n,), generator=generator)
    return first, (first + torch.randint(1, draws, (n,), generator=generator)) % draws


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
    """One training batch: first and second views (n, 3, side, side) each, groups (2n,)."""
    generator, device = Generator().manual_seed(seed), pairs.clear.device
    rows, others, groups = choose(pairs, config, generator)
    draw, another = two_draws(len(pairs.anonymized), len(rows), generator)
    released = pairs.anonymized[draw.to(device), others.to(device)]
    source = (
        pairs.clear[rows.to(device)]
        if config.pairs == "clear-anonymized"
        else pairs.anonymized[another.to(device), rows.to(device)]
    )
    first = augmented(source, config, side, generator)
    second = augmented(released, config, side, generator)
    return first, second, torch.cat([groups, groups]).to(device)
