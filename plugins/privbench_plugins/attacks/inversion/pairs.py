"""What an inversion attack learns from: its own photos and what the anonymizer makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from privbench.errors import PluginError
from privbench.types import AttackerView, ImageSet, Ints, Oracle, quantize
from privbench_plugins.tiny_encoder.augment import jitter, warp

VALIDATION_SHARE = 4
"""At most one in so many queries goes to validation photos."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """N photos and K releases of each.

    Attributes:
        clear: (N, 3, H, W) uint8 on the CPU.
        released: (K, N, 3, H, W) uint8 on the CPU.
        subject: (N,) identity of each photo.
    """

    clear: Tensor
    released: Tensor
    subject: Ints

    def __len__(self) -> int:
        return len(self.clear)

    @property
    def queries(self) -> int:
        """Images that the oracle was asked for."""
        return self.released.shape[0] * self.released.shape[1]


def ask(view: AttackerView, queries: int) -> tuple[Pairs, Pairs]:
    """Pairs to train on and pairs to choose on, within a budget of oracle queries.

    With 0 every photo of the attacker is asked for once. With a budget a quarter of it, at most,
    goes to validation photos and the rest to training photos: each photo once, person by person;
    if some budget is left, photos mirrored, then slightly turned, moved and recoloured anew.
    Each of `view.draws` draws counts.

    Raises:
        PluginError: no oracle, or too few photos or queries to train and to choose on.
    """
    oracle = _checked(view)
    photos = len(view.train) + len(view.validation)
    budget = queries // view.draws if queries else photos
    held_out = min(len(view.validation), budget // VALIDATION_SHARE)
    held_out = held_out if queries else len(view.validation)
    if held_out < 4 or budget - held_out < 4:
        raise PluginError(
            f"An inversion attack needs at least 16 queries for each of the {view.draws} released "
            f"draws; got a budget of {queries} queries and {photos} photos."
        )
    train = enlarged(view.train, budget - held_out, view.seed)
    validation = view.validation.take(in_turns(view.validation.subject, view.seed)[:held_out])
    return _asked(oracle, train, view.draws), _asked(oracle, validation, view.draws)


def _checked(view: AttackerView) -> Oracle:
    if view.oracle is None:
        raise PluginError(
            "An inversion attack trains on (clear, anonymized) pairs, so it needs the oracle of "
            "the adaptive threat model; the view has none. Use an attack without queries instead."
        )
    return view.oracle


def _asked(oracle: Oracle, images: ImageSet, draws: int) -> Pairs:
    released = torch.stack([oracle(images, draw=k).pixels for k in range(draws)])
    return Pairs(images.pixels, released, images.subject)


def in_turns(subject: Ints, seed: int) -> Ints:
    """(N,) rows in random order, one photo of each person before anyone's second: a small budget
    sees many people."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(subject))
    person = subject[shuffled]
    order = np.argsort(person, kind="stable")
    first = np.searchsorted(person[order], person[order])
    turn = np.empty(len(subject), dtype=np.int64)
    turn[order] = np.arange(len(subject)) - first
    rows: Ints = shuffled[np.argsort(turn, kind="stable")]
    return rows


def enlarged(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` images: photos first, then their mirror images, then random variants of them."""
    n = len(images)
    rounds = -(-count // n)
    rows = in_turns(images.subject, seed)
    made = [images.take(rows[: min(count, n)])]
    for turn in range(1, rounds):
        chosen = images.take(rows[: min(count - turn * n, n)])
        pixels = chosen.pixels.flip(3) if turn == 1 else _varied(chosen.pixels, seed + turn)
        keys = tuple(f"{key}~{turn}" for key in chosen.keys)
        made.append(replace(chosen, pixels=pixels, keys=keys))
    return ImageSet(
        torch.cat([m.pixels for m in made]),
        np.concatenate([m.subject for m in made]),
        tuple(key for m in made for key in m.keys),
    )


def _varied(pixels: Tensor, seed: int) -> Tensor:
    """(N, 3, H, W) uint8, each turned, moved, zoomed and recoloured a little."""
    generator = Generator().manual_seed(seed % 2**63)
    height, width = pixels.shape[2:]
    side = max(height, width)
    blocks = []
    for block in torch.split(pixels, 256):
        moved = warp(block.float().div_(255), generator, side, 0.05, 0.03, 4.0)
        blocks.append(quantize(jitter(moved, generator, 0.15, 0.0)))
    varied = torch.cat(blocks)
    if (height, width) != (side, side):
        varied = quantize(
            torch.nn.functional.interpolate(
                varied.float().div_(255), (height, width), mode="bilinear", antialias=True
            )
        )
    return varied
