"""Speed of opening, reading and aligning photographs against plain loops over files.

Skipped by `make test`, run by `make bench`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from pytest_benchmark.fixture import BenchmarkFixture

from privbench.registry import load_registry, make_config
from privbench_plugins.datasets._align import similarity, template, warp

FILES, SIDE, WARPED = 2_000, 128, 16
MOST_OVER_LOOP = 1.5

# CPU time on one torch thread, not wall time: the ratio then holds on a machine that is busy with
# something else. That decoding uses all cores is not counted.
pytestmark = [
    pytest.mark.benchmark(timer=time.process_time),
    pytest.mark.usefixtures("_one_thread"),
]


@pytest.fixture(scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def data(path: Path) -> Any:
    """The folder as a data set."""
    spec = load_registry().get("dataset", "folder").spec
    return spec.build(make_config(spec, {"path": str(path)}))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 JPEGs of 178 x 218, the size of CelebA's, of 200 people."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(FILES):
        folder = root / f"p{i // 10:03d}"
        folder.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (28, 23, 3), dtype=np.uint8))
        small.resize((178, 218), Image.Resampling.BICUBIC).save(
            folder / f"{i % 10}.jpg", quality=90
        )
    return root


def best(function: Callable[[], object], rounds: int = 3) -> float:
    """Least seconds of CPU time."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def read_all(root: Path) -> None:
    """Hash and decode every file, as one would write it."""
    for path in sorted(root.rglob("*.jpg")):
        content = path.read_bytes()
        sha256(content).hexdigest()
        np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


def square_all(root: Path, count: int) -> np.ndarray:
    """Centred squares of the first files, as one would write it."""
    paths = sorted(root.rglob("*.jpg"))[:count]
    return np.stack(
        [
            np.asarray(ImageOps.fit(Image.open(path), (SIDE, SIDE), Image.Resampling.BILINEAR))
            for path in paths
        ]
    )


def test_opening_checks_every_file_at_the_price_of_a_loop(
    benchmark: BenchmarkFixture, photos: Path
) -> None:
    """Reading, hashing, decoding and judging 2,000 files costs no more than half as much again
    as a plain loop that hashes and decodes them."""
    benchmark.pedantic(data, args=(photos,), rounds=3, warmup_rounds=1)
    ratio = best(lambda: read_all(photos)) / benchmark.stats.stats.min
    benchmark.extra_info["files"] = FILES
    benchmark.extra_info["loop/ours"] = round(ratio, 2)
    assert ratio >= 1 / MOST_OVER_LOOP


def test_reading_a_part_against_a_loop(benchmark: BenchmarkFixture, photos: Path) -> None:
    """500 squares of 128, with the check that no file has changed."""
    count = 500
    found, rows = data(photos), np.arange(count)
    benchmark.pedantic(found.pixels, args=(rows,), rounds=3, warmup_rounds=1)
    ratio = best(lambda: square_all(photos, count)) / benchmark.stats.stats.min
    benchmark.extra_info["loop/ours"] = round(ratio, 2)
    assert ratio >= 1 / MOST_OVER_LOOP


def test_one_warp_against_one_for_each_image(benchmark: BenchmarkFixture) -> None:
    """Similarities and one sampling of a block at once, against singular values and the same
    sampling for one image after the other."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (WARPED, 3, 218, 178), dtype=np.uint8))
    target = template(SIDE)
    points = (target * 1.2 + 20 + rng.normal(0, 2, (WARPED, 5, 2))).astype(np.float32)

    def ours() -> torch.Tensor:
        return warp(pixels, similarity(points, target), SIDE)

    def loop() -> list[torch.Tensor]:
        out = []
        for image, source in zip(pixels, points, strict=True):
            m, n = source.mean(0), target.mean(0)
            u, d, v = np.linalg.svd((target - n).T @ (source - m) / 5)
            scale = d.sum() / ((source - m) ** 2).sum(1).mean()
            inverse = np.linalg.inv(scale * u @ v)
            fine = (np.arange(2 * SIDE) + 0.5) / 2 - 0.5
            at = np.stack(np.meshgrid(fine, fine), -1) - (n - scale * u @ v @ m)
            grid = 2 * (at @ inverse.T + 0.5) / np.array([178, 218]) - 1
            sampled = F.grid_sample(
                image[None].float(), torch.from_numpy(grid[None]).float(),
                padding_mode="border", align_corners=False,
            )  # fmt: skip
            out.append(F.avg_pool2d(sampled, 2).round().to(torch.uint8))
        return out

    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    assert (torch.cat(loop()).int() - ours().int()).abs().float().mean() < 0.1
    ratio = best(loop) / benchmark.stats.stats.min
    benchmark.extra_info["loop/ours"] = round(ratio, 2)
    assert ratio >= 1 / MOST_OVER_LOOP
