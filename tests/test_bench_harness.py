"""What the harness costs: run by `make bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from privbench.api import make_study, plan_study
from privbench.keys import sample_seed
from privbench.progress import Silent
from privbench.release import anonymize
from privbench.session import Session
from privbench.store import Store

MAX_OVERHEAD = 0.03


def test_harness_overhead(benchmark: Any, tmp_path: Path) -> None:
    """An anonymize step (decode, pad, seed, check, quantize, hash, write) costs at most 3 % more
    than a bare batched loop over images already in memory."""
    study = make_study(["controlnet-canny"], ["random-guess"], protocol="quick")
    plan = plan_study(study)
    cell = plan.cells[0]
    size = cell.anonymizer.batch_size
    session = Session(plan, Store(str(tmp_path / "warm")), torch.device("cpu"), Silent())
    images = session.part("cross-gallery")
    plugin = session.build(cell.anonymizer)
    seeds = [sample_seed(0, k) for k in images.keys]
    whole = len(images) // size * size

    def bare() -> float:
        start = time.perf_counter()
        for i in range(0, whole, size):
            chunk = images.take(range(i, i + size))
            with torch.inference_mode():
                plugin.anonymize(chunk.batch(), seeds[i : i + size])
        return (time.perf_counter() - start) / whole

    def harness(place: str) -> float:
        session.store = Store(str(tmp_path / place))
        start = time.perf_counter()
        anonymize(session, cell, "cross-gallery")
        return (time.perf_counter() - start) / (-(-len(images) // size) * size)

    bare()  # warm-up
    pairs = [(bare(), harness(f"store-{i}")) for i in range(3)]
    ratio = min(h for _, h in pairs) / min(b for b, _ in pairs)
    benchmark.extra_info["overhead"] = round(ratio - 1, 4)
    benchmark.pedantic(lambda: None, rounds=1)
    assert ratio <= 1 + MAX_OVERHEAD


@pytest.mark.parametrize("words", ["--help", "list"])
def test_start(benchmark: Any, words: str) -> None:
    """`privbench --help` and `privbench list` as whole processes."""

    def start() -> None:
        subprocess.run(
            [sys.executable, "-m", "privbench.cli", words], capture_output=True, check=True
        )

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.min < 0.3


def test_plan_of_a_finished_run(benchmark: Any, tmp_path: Path) -> None:
    """Resolving a study (hash data, weights and code; split; keys), as every run does first."""
    study = make_study(["controlnet-canny"], ["contrastive-reid"], protocol="standard")
    benchmark.pedantic(lambda: plan_study(study), rounds=3, warmup_rounds=1)
    assert benchmark.stats.stats.min < 10
