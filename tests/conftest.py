"""Shared fixtures. Two cores are enough for everything here."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for the network fails at once
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # for the commands that tests run


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    import torch

    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1) // workers))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Steps of milliseconds: a second thread costs more in waiting than it brings."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_faces(folder: Path, identities: int = 28, images: int = 4, size: int = 32) -> Path:
    """Labelled images in the shipped data set's format: a colour and a bar per identity."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows: dict[str, list[object]] = {"key": [], "subject": [], "population": [], "image": []}
    for person in range(identities):
        look = np.random.default_rng(1000 + person)
        base, bar = look.integers(40, 215, 3), look.integers(4, size - 8, 2)
        for shot in range(images):
            pixels = np.full((size, size, 3), base) + rng.normal(0, 6, (size, size, 3))
            x, y = bar + rng.integers(-1, 2, 2)
            pixels[y : y + 5] = 255 - base
            pixels[:, x : x + 3] = look.integers(0, 255) if shot == 0 else 20
            buffer = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
            rows["key"].append(f"p{person:03d}-{shot}")
            rows["subject"].append(person)
            rows["population"].append(("wild", "campus-a", "campus-b")[person % 3])
            rows["image"].append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pa.table(rows), folder / "faces.parquet")
    return folder


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 28 people x 4 images of 32 px, enough for the `smoke` protocol."""
    return write_faces(tmp_path_factory.mktemp("faces"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what each benchmark found beside its times: ratios from the same run."""
    session = getattr(config, "_benchmarksession", None)
    for bench in session.benchmarks if session else ():
        if bench.extra_info:
            facts = ", ".join(f"{k} {v}" for k, v in bench.extra_info.items())
            terminalreporter.write_line(f"{bench.name}: {facts}")
