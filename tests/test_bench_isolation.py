"""What a process for the cells costs: run by `make bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from privbench.api import make_study, run_study
from privbench.isolate import Isolation, Worker
from privbench.progress import Silent


def test_one_cell(benchmark: Any, faces: Path, tmp_path: Path) -> None:
    """A run of one small cell: isolated it costs one start of the program more, which imports
    torch and plans the same study again; a second cell costs no more."""

    def seconds(place: str, count: int, isolation: Isolation | None) -> float:
        study = make_study(
            ["pixelate", "none"][:count], ["random-guess"], ["identification"], protocol="smoke",
            settings=[f"synthfaces.path={faces}"],
        )  # fmt: skip
        start = time.perf_counter()
        done, failures = run_study(
            study, store=str(tmp_path / place), records=None, isolate=isolation
        )
        assert (len(done), failures) == (count, [])
        return time.perf_counter() - start

    seconds("warm", 1, None)
    here = min(seconds(f"here-{i}", 1, None) for i in range(2))
    benchmark.pedantic(lambda: seconds("one", 1, Isolation()), rounds=1)
    two = seconds("two", 2, Isolation())
    benchmark.extra_info |= {"in process": round(here, 2), "two cells": round(two, 2)}
    assert benchmark.stats.stats.min - here < 15


def test_the_worker_itself(benchmark: Any) -> None:
    """Without what it imports: from the decision to start a process to its end."""

    def run() -> None:
        with Worker("mischief:open_light", {}, Isolation(), Silent()) as worker:
            worker.run("none")

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.min < 2
