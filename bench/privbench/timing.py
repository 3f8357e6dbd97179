"""Stage timing: device-synchronised samples, peak memory, device fingerprint."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from privbench.errors import ConfigError
from privbench.types import Timing


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, else the CPU.

    Raises:
        ConfigError: torch knows no such device.
    """
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError:
            raise ConfigError(
                f"There is no device {name!r}. Expected auto, cpu, cuda, cuda:1, ..."
            ) from None
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fingerprint(device: torch.device) -> dict[str, str]:
    """What must be equal for two timings to be compared."""
    facts = {"torch": torch.__version__, "platform": platform.platform(terse=True)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return facts | {
            "name": properties.name,
            "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "cuda": torch.version.cuda or "",
            "driver": _driver(),
        }
    return facts | {"name": _cpu_model(), "threads": str(torch.get_num_threads())}


def same_threads(count: int) -> None:
    """In a worker process: compute with as many threads as the process that asks."""
    if count != torch.get_num_threads():
        torch.set_num_threads(count)


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    if not version.exists():
        return ""
    words = version.read_text().splitlines()[0].split()
    return next((w for w in words if w[:1].isdigit() and "." in w), "")


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished: without it a GPU timing is 30 times too fast."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Start a new peak measurement (GPU only)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_bytes(device: torch.device) -> int:
    """Peak allocated since `reset_peak` (GPU), or the process's resident set now (CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


@contextmanager
def stopwatch(device: torch.device) -> Iterator[list[float]]:
    """Time a block, synchronised with the device; the seconds are appended to the list.

    >>> with stopwatch(torch.device("cpu")) as seconds:
    ...     _ = sum(range(10))
    >>> len(seconds)
    1
    """
    samples: list[float] = []
    synchronize(device)
    start = time.perf_counter()
    yield samples
    synchronize(device)
    samples.append(time.perf_counter() - start)


def summarize(timing: Timing) -> dict[str, Any]:
    """Median and p95 of milliseconds per image, and images/s, after warm-up.

    Batches are padded to one shape, so a batch's time is divided by that shape. Where every
    sample is warm-up (a single batch), all are used and `warmup` says 0.
    """
    skip = timing.warmup if len(timing.seconds) > timing.warmup else 0
    seconds = np.array(timing.seconds[skip:])
    if not len(seconds):
        return {}
    each = seconds / timing.batch_size * 1e3
    return {
        "median_ms_per_image": float(np.median(each)),
        "p95_ms_per_image": float(np.quantile(each, 0.95)),
        "images_per_second": float(1e3 / each.mean()),
        "samples": len(seconds),
        "warmup": skip,
    }


def to_json(timing: Timing) -> dict[str, Any]:
    """A timing as the record stores it: every sample, and the summary."""
    return {
        "stage": timing.stage,
        "seconds": list(timing.seconds),
        "images": list(timing.images),
        "warmup": timing.warmup,
        "batch_size": timing.batch_size,
        "at_once": timing.at_once or timing.batch_size,
        "resolution": list(timing.resolution),
        "peak_bytes": timing.peak_bytes,
        "device": dict(timing.device),
        "summary": summarize(timing),
    }
