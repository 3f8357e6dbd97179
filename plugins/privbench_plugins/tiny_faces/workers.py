"""Data-parallel workers: processes of one thread each that average their gradients.

On a CPU this beats one process of as many threads by far: such processes meet once in a
step, threads after each operation. On other devices there is one worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn


@dataclass(frozen=True)
class Workers:
    """The group of workers as one of them sees it."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker is the one that writes and reports."""
        return self.rank == 0

    def average(self, parameters: Sequence[nn.Parameter], value: float) -> float:
        """Replace gradients by their average over the workers; return that of `value`.

        The value travels with the gradients: times that all workers must agree on, so that
        they stop and save at the same step, cost no message of their own.
        """
        if self.count == 1:
            return value
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([value])])
        distributed.all_reduce(flat)
        flat /= self.count
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        return float(flat[-1])


ALONE: Final = Workers()
"""The group of one."""


def run_workers(work: Callable[[Workers], None], count: int) -> None:
    """Call `work` in `count` processes (in this one if it is only one) and wait for them."""
    if count == 1:
        work(ALONE)
        return
    with TemporaryDirectory() as folder:
        spawn(_start, (count, Path(folder) / "meeting", work), nprocs=count)  # type: ignore[no-untyped-call]


def _start(rank: int, count: int, meeting: Path, work: Callable[[Workers], None]) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count
    )
    try:
        work(Workers(rank, count))
    finally:
        distributed.destroy_process_group()
