"""Cost and memory of matching against large galleries.

Skipped by `make test`, run by `make bench`; a million images by
`pytest tests/test_bench_large.py -m study -s` (on a busy machine with OMP_WAIT_POLICY=passive).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.metrics import roc_curve

from privbench import large
from privbench.large import average_precision, by_subject, detection_rate, expected_hits
from privbench.progress import PlainLines
from privbench.types import Floats, Ints

WIDTH, PER = 512, 5


def embeddings(probes: int, gallery: int) -> tuple[Floats, Ints, Floats, Ints]:
    """Random faces, `PER` images a person; half of the probes are mated."""
    rng = np.random.default_rng(0)
    people = gallery // PER
    faces = rng.standard_normal((probes + gallery, WIDTH), dtype=np.float32)
    return (
        faces[:probes],
        rng.integers(0, 2 * people, probes),
        faces[probes:].astype(np.float16),
        np.arange(gallery) // PER,
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """CPU time then is work, not threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """Least CPU time of a call."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("images", [10_000, 100_000])
def test_cost_against_the_product_alone(benchmark: BenchmarkFixture, images: int) -> None:
    """Counting everything costs less than three times the bare matrix product, at any size."""
    probes, asked, gallery, enrolled = embeddings(2_048, images)
    benchmark.pedantic(large.match, args=(probes, asked, by_subject(gallery, enrolled)), rounds=3)
    one, other = torch.from_numpy(probes), torch.from_numpy(gallery).float()

    def product() -> None:
        for part in other.split(large.GALLERY):
            torch.mm(one, part.T)

    bare, ours = seconds(product), benchmark.stats.stats.min
    pairs = len(probes) * images
    benchmark.extra_info["ns_per_comparison"] = round(ours / pairs * 1e9, 2)
    benchmark.extra_info["ratio_to_product"] = round(ours / bare, 2)
    assert ours < 3 * bare


def by_sorting(probes: Floats, asked: Ints, gallery: Floats, enrolled: Ints) -> list[Floats]:
    """Rank-1, AP and ROC as one would write them, with every score in memory."""
    one, other = (
        torch.nn.functional.normalize(torch.from_numpy(x).float()) for x in (probes, gallery)
    )
    scores = one @ other.T
    own = torch.from_numpy(asked)[:, None] == torch.from_numpy(enrolled)
    ranked = own.gather(1, scores.argsort(dim=1, descending=True)).double()
    precision = ranked.cumsum(1) / torch.arange(1, len(enrolled) + 1)
    ap = (precision * ranked).sum(1) / ranked.sum(1)
    fpr, tpr, _ = roc_curve(own.numpy().ravel(), scores.numpy().ravel())
    return [ranked[:, 0].numpy(), ap.numpy(), fpr, tpr]


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.usefixtures("one_thread")
def test_against_sorting_every_score(benchmark: BenchmarkFixture) -> None:
    """At 1,000 x 20,000, where all scores still fit, at least five times as fast; same AP."""
    data = embeddings(1_000, 20_000)
    probes, asked, gallery, enrolled = data
    stream = by_subject(gallery, enrolled)
    found = benchmark.pedantic(large.match, args=(probes, asked, stream), rounds=3, warmup_rounds=1)
    sorting = seconds(lambda: by_sorting(*data), rounds=1)
    rank1, ap, _, _ = by_sorting(*data)
    mated = found.mated
    assert expected_hits(found, np.array([1]))[mated, 0] == pytest.approx(rank1[mated])
    np.testing.assert_allclose(average_precision(found)[mated], ap[mated], rtol=0.01)
    ratio = sorting / benchmark.stats.stats.min
    benchmark.extra_info["sorting_seconds"] = round(sorting, 2)
    benchmark.extra_info["ratio"] = round(ratio, 2)
    assert ratio >= 5


MATED, STRANGERS, IMAGES = 5_000, 5_000, 1_000_000


def planted(path: Path) -> tuple[Floats, Ints, Ints, Ints]:
    """Write a gallery of a million images in which the rank of every probe is known.

    Probe i has two mates, at cosines of about .6 and .5, and i % 5 decoys at .8, one of a person
    each; everyone else is random, which at 512 features stays below .3.

    Returns:
        Probes, their subjects, the gallery's subjects in the order of the file, and the decoys.
    """
    rng = np.random.default_rng(0)

    def random(n: int) -> Floats:
        x = rng.standard_normal((n, WIDTH), dtype=np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def near(faces: Floats, cosine: float) -> Floats:
        other = random(len(faces))
        other -= (other * faces).sum(1, keepdims=True) * faces
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        return cosine * faces + np.sqrt(1 - cosine**2) * other

    probes, decoys = random(MATED + STRANGERS), np.arange(MATED) % 5
    mated = probes[:MATED]
    special = np.concatenate(
        [near(mated, 0.6), near(mated, 0.5), near(np.repeat(mated, decoys, axis=0), 0.8)]
    )
    rest = IMAGES - len(special)
    alone = MATED + np.arange(decoys.sum())  # a decoy is of a person of its own
    others = alone[-1] + 1 + np.arange(rest) // PER
    names = np.concatenate([np.arange(MATED), np.arange(MATED), alone, others])
    place = rng.permutation(IMAGES)
    file = np.lib.format.open_memmap(path, "w+", np.float16, (IMAGES, WIDTH))
    file[place[: len(special)]] = special
    for rows in np.array_split(place[len(special) :], 100):
        file[rows] = random(len(rows))
    file.flush()
    enrolled = np.empty(IMAGES, np.int64)
    enrolled[place] = names
    asked = np.concatenate([np.arange(MATED), names.max() + 1 + np.arange(STRANGERS)])
    return probes, asked, enrolled, decoys


@pytest.mark.study
@pytest.mark.timeout(3600)
def test_a_million_images(tmp_path: Path) -> None:
    """10,000 probes against 1,000,000 x 512: planted ranks come out, in less than 3 GB."""
    probes, asked, enrolled, decoys = planted(tmp_path / "gallery.npy")
    np.savez(tmp_path / "rest.npz", probes=probes, asked=asked, enrolled=enrolled, decoys=decoys)
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True)
    facts = json.loads((tmp_path / "facts.json").read_text())
    print(facts)
    assert facts["peak_bytes"] <= 3e9


def measured(folder: Path) -> None:
    """The subprocess: match, check, and write seconds and peak memory."""
    gallery = np.load(folder / "gallery.npy", mmap_mode="r")
    with np.load(folder / "rest.npz") as held:
        probes, asked, enrolled, decoys = (
            held[k] for k in ("probes", "asked", "enrolled", "decoys")
        )
    start, cpu = time.perf_counter(), time.process_time()
    found = large.match(
        probes, asked, by_subject(gallery, enrolled), reporter=PlainLines(sys.stderr, 30)
    )
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    mated = found.mated
    assert (mated == (np.arange(len(asked)) < MATED)).all()
    np.testing.assert_array_equal(found.people_above[mated], decoys)
    np.testing.assert_array_equal(found.above, np.repeat(decoys, 2))
    assert not found.tied.any()
    ap = (1 / (decoys + 1) + 2 / (decoys + 2)) / 2
    np.testing.assert_allclose(average_precision(found)[mated], ap)
    hit = expected_hits(found, np.array([1]))[:, 0]
    score = np.where(mated, found.best, found.top)
    rate = detection_rate(mated, score, hit, np.ones((1, len(asked))), 0.01)
    assert rate[0] == (decoys == 0).mean()
    assert found.impostors.sum() + len(found.probe) == len(asked) * IMAGES
    # The process's own peak: getrusage would count the parent that forked it, too.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    facts = {"seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak,
             "threads": torch.get_num_threads()}  # fmt: skip
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    measured(Path(sys.argv[1]))
