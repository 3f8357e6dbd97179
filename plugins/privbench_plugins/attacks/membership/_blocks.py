"""Work on images in batches of one shape, and what identifies an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def in_blocks(rows: Tensor, batch: int, work: Callable[[Tensor], Tensor]) -> Tensor:
    """`work` on (N, ...) rows, `batch` at once, on the CPU: a row must not see how many others
    there are.

    Args:
        rows: N of them.
        batch: how many `work` gets; the last block is filled up with zeros.
        work: (batch, ...) to (batch, ...).
    """
    missing = [0] * (2 * rows.ndim - 1)
    done = [
        work(F.pad(block, (*missing, batch - len(block))))[: len(block)].cpu()
        for block in torch.split(rows, batch)
        if len(block)
    ]
    return torch.cat(done) if done else torch.zeros(0)


def image_seed(image: Tensor, number: int, seed: int) -> int:
    """63 bits from a (3, H, W) uint8 image, a number and the run's seed: the place of an image
    among others must not matter."""
    content = f"{seed}/{number}/".encode() + image.numpy().tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1
