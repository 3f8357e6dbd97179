"""The largest piece of work that fits into a device's memory: found by halving, remembered."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AT_ONCE = 2**22
"""Pixels that an autoencoder takes at once: 4 images of 1024, 16 of 512, 256 of 128.

Its activations at full size, not the UNet's, are what a large batch runs out of memory on.
"""

_EXHAUSTED = ("ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""How cuBLAS, cuDNN and the CPU allocator say it; they raise a plain RuntimeError."""


class Fit:
    """How many rows fit, for each device.

    What a device could not hold is forgotten with this object: nothing outlives it, because a
    neighbour on a shared GPU may have gone by the next run.
    """

    def __init__(self, asked: int) -> None:
        self._asked = asked
        self._found: dict[str, int] = {}

    def on(self, device: torch.device) -> int:
        """Rows to try at once on a device."""
        return self._found.get(str(device), self._asked)

    def halve(self, device: torch.device) -> None:
        """Fewer from now on."""
        self._found[str(device)] = max(1, self.on(device) // 2)


def in_pieces(
    total: int, fit: Fit, device: torch.device, compute: Callable[[int, int], Tensor]
) -> Tensor:
    """`total` rows, as many at once as fit.

    Args:
        total: number of rows, at least 1.
        fit: where the piece size is kept.
        device: where `compute` works.
        compute: (start, size) -> the rows from `start` on, at most `size` of them.

    Raises:
        torch.OutOfMemoryError: one row alone does not fit.
    """
    made: list[Tensor] = []
    start = 0
    while start < total:
        size = fit.on(device)
        piece = _attempt(compute, start, size)
        if piece is not None:
            made.append(piece)
            start += size
            continue
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise torch.OutOfMemoryError(f"One row does not fit into the memory of {device}.")
        fit.halve(device)
    return made[0] if len(made) == 1 else torch.cat(made)


def _attempt(compute: Callable[[int, int], Tensor], start: int, size: int) -> Tensor | None:
    """The rows, or None where memory ran out.

    On return the failed attempt's tensors are free again: the exception, whose frames hold
    them, is gone.
    """
    try:
        return compute(start, size)
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:
        if any(words in str(error) for words in _EXHAUSTED):
            return None
        raise
