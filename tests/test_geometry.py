"""The embedded geometry estimator: accuracy on the shipped faces, and its contract."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from privbench_plugins import tiny_geometry
from privbench_plugins.geometry import Geometry, geometry_weights, load_geometry
from privbench_plugins.tiny_geometry import net
from privbench_plugins.tiny_geometry.train import Labelled, augment, main

ASSETS = Path(tiny_geometry.__file__).parents[1] / "assets"


@pytest.fixture(scope="module")
def geometry() -> Geometry:
    """The shipped estimator."""
    return load_geometry()


@pytest.fixture(scope="module")
def shipped() -> dict[str, np.ndarray]:
    """60 shipped faces with the renderer's depth and landmarks; none of their people trained."""
    table = pq.read_table(sorted((ASSETS / "synthfaces").glob("*.parquet"))[0])
    rows = table.take(np.arange(0, len(table), len(table) // 60)[:60]).to_pylist()

    def decode(cell: dict[str, bytes], mode: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert(mode))

    return {
        "pixels": np.stack([decode(row["image"], "RGB") for row in rows]),
        "depth": np.stack([decode(row["depth"], "L") for row in rows]),
        "landmarks": np.array([np.reshape(row["landmarks"], (5, 2)) for row in rows]),
    }


def test_landmarks_are_close(geometry: Geometry, shipped: dict[str, np.ndarray]) -> None:
    """Within a tenth of the distance of the eyes, on average; less than half of the error of
    the mean shape."""
    truth = shipped["landmarks"]
    eyes = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)

    def error(found: np.ndarray) -> float:
        return float((np.linalg.norm(found - truth, axis=2).mean(1) / eyes).mean())

    found = error(geometry.landmarks(shipped["pixels"]))
    assert found < 0.1
    assert found < 0.5 * error(np.broadcast_to(truth.mean(0), truth.shape))


def test_depth_has_the_outline_and_the_relief(
    geometry: Geometry, shipped: dict[str, np.ndarray]
) -> None:
    """Background is 0; inside, the error is far below the spread of depths."""
    found = geometry.depth(shipped["pixels"])[:, ::2, ::2].astype(float)
    truth = shipped["depth"].astype(float)
    both, either = (found > 0) & (truth > 0), (found > 0) | (truth > 0)
    assert both.sum() / either.sum() > 0.9
    assert np.abs(found - truth)[both].mean() < 0.5 * truth[both].std()


def test_sizes_scale_with_the_image(geometry: Geometry, shipped: dict[str, np.ndarray]) -> None:
    """Twice the pixels: twice the coordinates, a map of twice the size, the same pose."""
    small = shipped["pixels"][:8]
    large = small.repeat(2, 1).repeat(2, 2)
    points = geometry.landmarks(small)
    assert geometry.landmarks(large) == pytest.approx(2 * points + 0.5, abs=1.5)
    assert geometry.pose(large) == pytest.approx(geometry.pose(small), abs=2)
    assert geometry.depth(large).shape == (8, 256, 256)
    assert geometry.depth(large).dtype == np.uint8
    assert geometry.landmarks(small[:0]).shape == (0, 5, 2)


def test_an_image_does_not_see_its_batch(
    geometry: Geometry, shipped: dict[str, np.ndarray]
) -> None:
    """Bit for bit, alone or among others."""
    pixels = shipped["pixels"][:5]
    assert np.array_equal(geometry.depth(pixels)[3:4], geometry.depth(pixels[3:4]))
    assert np.array_equal(geometry.landmarks(pixels)[3:4], geometry.landmarks(pixels[3:4]))


def test_a_wrong_array_is_refused(geometry: Geometry) -> None:
    """Floats and channels first are told apart from what is expected."""
    with pytest.raises(ValueError, match=r"uint8 array of shape \(N, H, W, 3\)"):
        geometry.landmarks(np.zeros((1, 3, 8, 8), np.uint8))


def test_mirroring_swaps_sides() -> None:
    """Augmentation moves the truth along with the pixels: points stay on what they mark."""
    n, side = 64, 64
    points = torch.tensor([[0.35, 0.4], [0.6, 0.42], [0.5, 0.55], [0.4, 0.7], [0.58, 0.72]])
    images = torch.zeros(n, 3, 96, 96, dtype=torch.uint8)
    for x, y in points:
        images[:, :, int(y * 96) - 2 : int(y * 96) + 3, int(x * 96) - 2 : int(x * 96) + 3] = 255
    faces = Labelled(
        images,
        torch.ones(n, 64, 64, dtype=torch.uint8),
        points.expand(n, 5, 2),
        torch.tensor([10.0, 0.0]).expand(n, 2),
        np.zeros(n),
    )
    pixels, truth = augment(faces, torch.Generator().manual_seed(0), side)
    at = (truth.landmarks * side).long().clamp(0, side - 1)
    rows = torch.arange(n)[:, None]
    grey = pixels.mean(1)
    assert (grey[rows, at[..., 1], at[..., 0]].mean(1) > grey.mean((1, 2)) + 0.2).all()
    assert (truth.landmarks[:, 0, 0] < truth.landmarks[:, 1, 0]).all()
    assert set(truth.pose[:, 0].tolist()) == {10.0, -10.0}


def test_training_writes_a_loadable_model(tmp_path: Path) -> None:
    """The command line trains on shards and writes weights, configuration and provenance."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "train-0000-images.npy", rng.integers(0, 256, (40, 128, 128, 3), np.uint8))
    np.save(tmp_path / "train-0000-depth.npy", rng.integers(0, 256, (40, 64, 64), np.uint8))
    row = {"landmarks": [50, 50, 80, 50, 65, 70, 55, 85, 75, 85], "yaw": 3.0, "pitch": 1.0}
    lines = [json.dumps(row | {"subject": i}) for i in range(40)]
    (tmp_path / "train-0000.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    main(["--data", str(tmp_path), "--out", str(out), "--minutes", "0.01", "--batch", "4"])
    assert net.load(out).config == net.NetConfig()
    assert json.loads((out / "provenance.json").read_text())["held_out"]["faces"] == 2


def test_provenance_names_these_weights() -> None:
    """The hash in the provenance, and the one that keys see, are those of the shipped file."""
    folder = ASSETS / "tiny-geometry"
    found = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    record = json.loads((folder / "provenance.json").read_text())
    assert record["sha256"] == {"model.safetensors": found}
    assert geometry_weights()["tiny-geometry/model.safetensors"] == found
