"""What a process holds: threads, open files, children, memory."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

HELD = 512 * 1024
"""How much more memory may be held, in bytes: interpreter caches move by less, the kit's smallest
batch of images is larger."""


@dataclass(frozen=True)
class Held:
    """What this process holds at one moment.

    Attributes:
        threads: Python threads that run.
        files: open file descriptors.
        children: processes it has started, and theirs, that are not gone.
        memory: bytes allocated since `traced` began and not freed: in tensors that Python can
            reach, and what Python and numpy asked for.
        cuda: bytes in tensors on GPUs.
    """

    threads: int
    files: int
    children: int
    memory: int
    cuda: int

    @classmethod
    def now(cls) -> Held:
        """After a collection of garbage."""
        gc.collect()
        process = psutil.Process()
        gpus = range(torch.cuda.device_count())
        return cls(
            sum(thread.is_alive() for thread in threading.enumerate()),
            process.num_fds(),
            len(process.children(recursive=True)),
            _tensors() + tracemalloc.get_traced_memory()[0],
            sum(torch.cuda.memory_allocated(gpu) for gpu in gpus),
        )

    def more_than(self, before: Held) -> str:
        """What is held beyond what was held before; "" where it is nothing."""
        grown = [
            f"{count} {what}"
            for count, what in (
                (self.threads - before.threads, "thread(s)"),
                (self.files - before.files, "open file(s)"),
                (self.children - before.children, "child process(es)"),
            )
            if count > 0
        ]
        for now, then, where in (
            (self.memory, before.memory, "memory"),
            (self.cuda, before.cuda, "GPU memory"),
        ):
            if now - then > HELD:
                grown.append(f"{(now - then) / 1024:.0f} KiB of {where}")
        return ", ".join(grown)


@contextmanager
def traced() -> Iterator[None]:
    """Count what is allocated from here on: what is there already is set aside."""
    already = tracemalloc.is_tracing()
    gc.freeze()  # thousands of objects of libraries that no collection need visit again
    if not already:
        tracemalloc.start()
    try:
        yield
    finally:
        if not already:
            tracemalloc.stop()
        gc.unfreeze()


def _tensors() -> int:
    """Bytes of the storages on the CPU behind all tensors; each counts once."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.layout is torch.strided:
            storage = thing.untyped_storage()
            if storage.device.type == "cpu":
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
