"""Speed of the attacks. Skipped by `make test`, run by `make bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from privbench.types import ImageSet
from privbench_plugins.attacks import alignment, diagnostics, pairs
from privbench_plugins.attacks.alignment import Faces
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.edge_match import edge_maps, similarity
from privbench_plugins.attacks.edges import EdgeMatchConfig
from privbench_plugins.attacks.embedding import Embedder, use_bfloat16
from privbench_plugins.attacks.recogniser_models import load
from privbench_plugins.attacks.recognisers import RecogniserConfig
from privbench_plugins.attacks.start import create
from privbench_plugins.attacks.through import EdgeOracle
from privbench_plugins.attacks.training import update
from privbench_plugins.conditions import CANNY_HIGH, CANNY_LOW

CPU = torch.device("cpu")


def photos(count: int) -> ImageSet:
    """Noise of the embedded data set's size, six photos a person."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 128, 128), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, np.arange(count) // 6, tuple(map(str, range(count))))


@pytest.mark.benchmark(group="contrastive-reid")
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_training_step(benchmark: BenchmarkFixture, dtype: str) -> None:
    """One step of the default attack (64 photos, 128 views), augmentation included."""
    config = ContrastiveConfig(backbone="tiny", dtype=dtype)  # type: ignore[arg-type]
    towers = create(config, 0)
    own = pairs.make_pairs(photos(240), [photos(240)], config.side, CPU)
    optimizer = torch.optim.AdamW(towers.parameters(), 1e-3)
    half = use_bfloat16(dtype, CPU)
    benchmark(lambda: update(config, 0, 0, towers, own, optimizer, half))
    benchmark.extra_info["views/s"] = 2 * config.batch / benchmark.stats["mean"]


@pytest.mark.benchmark(group="contrastive-reid")
def test_embedding_beats_one_image_at_a_time(benchmark: BenchmarkFixture) -> None:
    """Batched embedding against the loop over images that one would write by hand."""
    config = ContrastiveConfig(backbone="tiny")
    embedder = Embedder(create(config, 0).eval(), CPU, use_bfloat16("auto", CPU), 64)
    pixels = photos(256).pixels
    benchmark(embedder, pixels, True)
    alone = replace(embedder, bfloat16=False, batch=1)
    start = time.perf_counter()
    alone(pixels, True)
    ratio = (time.perf_counter() - start) / benchmark.stats["mean"]
    benchmark.extra_info |= {"images/s": 256 / benchmark.stats["mean"], "times the loop": ratio}
    assert ratio > 1.5


def seconds(function: Callable[[], object]) -> float:
    """Processor time of one call: what else runs on the machine does not count."""
    start = time.process_time()
    function()
    return time.process_time() - start


def ratio(benchmark: BenchmarkFixture, ours: Callable[[], object], loop: float) -> float:
    """How many times faster `ours` is than a loop of so many seconds."""
    benchmark(ours)
    times = loop / min(seconds(ours) for _ in range(3))
    benchmark.extra_info["times the loop"] = times
    return times


@pytest.mark.benchmark(group="naive-recogniser")
def test_recogniser_beats_one_image_at_a_time(benchmark: BenchmarkFixture) -> None:
    """Alignment and embedding of a set against the same for each image on its own."""
    recogniser = load("tiny-encoder", RecogniserConfig(), CPU)
    alone = load("tiny-encoder", RecogniserConfig(embed_batch=1), CPU)
    pixels = photos(128).pixels
    loop = seconds(lambda: [alone.embed(alone.align(Faces(p[None])).pixels) for p in pixels])
    ours = ratio(benchmark, lambda: recogniser.embed(recogniser.align(Faces(pixels)).pixels), loop)
    assert ours > 1.2


@pytest.mark.benchmark(group="naive-recogniser")
def test_alignment_beats_one_image_at_a_time(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ONNX model: the detector finds each face once, then all are warped and embedded at once;
    against a recogniser call per image, which detects for the image and again for its mirror."""
    from privbench_plugins.datasets import synthfaces
    from test_recognisers import save_onnx

    pixels = synthfaces.build(synthfaces.SynthfacesConfig()).pixels(np.arange(16))
    name = f"onnx:{save_onnx(tmp_path / 'model.onnx')}"
    recogniser = load(name, RecogniserConfig(), CPU)
    alone = load(name, RecogniserConfig(embed_batch=1), CPU)
    predictor = alignment._predictor()  # a loop would read the file once, too
    monkeypatch.setattr(alignment, "_predictor", lambda: predictor)

    def one_by_one() -> None:
        for image in pixels:
            for view in (image, image.flip(2)):
                alone.embed(alone.align(Faces(view[None])).pixels)

    def together() -> None:
        chips = recogniser.align(Faces(pixels)).pixels
        recogniser.embed(chips)
        recogniser.embed(chips.flip(3))

    assert ratio(benchmark, together, seconds(one_by_one)) > 1.2


@pytest.mark.benchmark(group="edge-match")
def test_matching_beats_a_loop_over_pairs(benchmark: BenchmarkFixture) -> None:
    """All pairs by matrix products against a loop over pairs and moves on edge pixels."""
    from test_surrogates import people

    config = EdgeMatchConfig(shift=1)
    maps = edge_maps(people(24, 1, side=128), config, CPU)
    lines = [np.argwhere(x[1:-1, 1:-1]) + 1 for x in maps.edges.numpy() > 0]
    fields = list(maps.far.numpy())

    def pairs_one_by_one() -> np.ndarray:
        out = np.empty((len(lines), len(lines)))
        for i, mine in enumerate(lines):
            for j, theirs in enumerate(lines):
                out[i, j] = -0.5 * min(
                    fields[j][tuple((mine + move).T)].mean()
                    + fields[i][tuple((theirs - move).T)].mean()
                    for move in np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
                )
        return out

    np.testing.assert_allclose(similarity(maps, maps, 1).numpy(), pairs_one_by_one(), atol=1e-5)
    loop = seconds(pairs_one_by_one)
    assert ratio(benchmark, lambda: similarity(maps, maps, 1), loop) > 5


@pytest.mark.benchmark(group="edge-surrogate")
def test_edge_oracle_is_no_slower_than_a_loop(benchmark: BenchmarkFixture) -> None:
    """What stands for the anonymizer costs what OpenCV costs, image by image."""
    images = photos(240)
    oracle = EdgeOracle(frozenset(images.keys), (1.0, 0.5, 2.0))

    def loop() -> None:
        for row, pixels in enumerate(images.pixels):
            factor = (1.0, 0.5, 2.0)[row % 3]
            grey = cv2.cvtColor(
                np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY
            )
            smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
            drawn = cv2.Canny(smooth, factor * CANNY_LOW, factor * CANNY_HIGH, L2gradient=True)
            torch.from_numpy(drawn)[None].repeat(3, 1, 1)

    assert ratio(benchmark, lambda: oracle(images), seconds(loop)) > 0.7


@pytest.mark.benchmark(group="silhouette-reid")
@pytest.mark.parametrize("spec", diagnostics.SPECS, ids=lambda spec: spec.id)
def test_looking_beats_one_image_at_a_time(benchmark: BenchmarkFixture, spec: object) -> None:
    """What a control attack sees of a set against a call per image."""
    through = spec.build(spec.config())  # type: ignore[attr-defined]
    images = photos(48)
    loop = seconds(lambda: [through.clear(images.take([row])) for row in range(len(images))])
    assert ratio(benchmark, lambda: through.clear(images), loop) > 1.5
