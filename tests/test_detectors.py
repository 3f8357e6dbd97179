"""Detectors: the contract, and points that two independent sources agree on."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

import privbench_plugins
from privbench import testing as kit
from privbench.errors import ConfigError, DataError, ModelError, PluginError, UnknownPluginError
from privbench.plan import find_detector
from privbench.registry import load_registry
from privbench.spec import PluginSpec
from privbench.testing import detector as promises
from privbench.types import Detections
from privbench_plugins.detectors._opencv import largest

find = find_detector(load_registry())
SHIPPED = Path(privbench_plugins.__file__).parent / "assets" / "synthfaces"
FACES = 60


def shipped() -> tuple[torch.Tensor, np.ndarray]:
    """(60, 3, 128, 128) uint8 shipped faces, and the renderer's landmarks (60, 5, 2)."""
    table = pq.read_table(sorted(SHIPPED.glob("*.parquet"))[0], columns=["image", "landmarks"])
    rows = table.take(np.arange(0, len(table), len(table) // FACES)[:FACES]).to_pylist()
    pixels = [np.asarray(Image.open(io.BytesIO(r["image"]["bytes"])).convert("RGB")) for r in rows]
    points = np.array([np.reshape(r["landmarks"], (5, 2)) for r in rows])
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), points


PIXELS, TRUTH = shipped()
OFFERED = [r.spec for r in load_registry().of_kind("detector") if not r.unavailable]
RUNNABLE = [spec for spec in OFFERED if spec.id != "yunet"]


@kit.parametrize_with_checks(RUNNABLE, faces=PIXELS[:4])
def test_built_in_detectors_keep_the_contract(check: kit.Check) -> None:
    """Every detector that needs no file of the user's passes every check."""
    check()


@pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.id)
def test_points_lie_where_the_renderer_put_them(spec: PluginSpec) -> None:
    """On rendered heads 95 % are found; eyes and nose are within 5 px, which is a fifth of the
    distance of the eyes. Mouth corners are defined up to 4 px apart."""
    found = spec.build(spec.config()).detect(PIXELS)
    assert found.found.mean() >= 0.95
    error = np.linalg.norm(found.points - TRUTH, axis=2)[found.found].mean(0)
    assert (error[:3] < 5).all()
    assert (error[3:] < 7).all()


@pytest.mark.parametrize("detector", ["dlib", "centerface"])
def test_no_face_is_nan(detector: str) -> None:
    """Noise shows no face."""
    noise = torch.randint(0, 256, (3, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    found = find(detector).build().detect(noise.to(torch.uint8))
    assert not found.found.any()
    assert np.isnan(found.score).all()


def test_centerface_reads_its_maps() -> None:
    """One planted face among weaker ones: the largest box wins, and y comes before x."""
    heat = np.zeros((8, 8), np.float32)
    size, offset = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.float32)
    points = np.zeros((10, 8, 8), np.float32)
    heat[2, 6], heat[5, 3], heat[5, 4] = 0.9, 0.8, 0.7
    size[:, 5, 3], size[:, 5, 4] = np.log([3.0, 2.0]), np.log(7.0)  # the unsure neighbour loses
    offset[:, 5, 3] = 0.25, -0.25
    points[:, 5, 3] = np.arange(10) / 10
    found = largest(heat, size, offset, points, 0.3)
    assert found is not None
    corner = np.array([(5 + 0.75) * 4 - 12 / 2, (3 + 0.25) * 4 - 8 / 2])  # y, x
    wanted = (np.arange(10).reshape(5, 2) / 10 * (12, 8) + corner)[:, ::-1]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
    assert found[1] == pytest.approx(0.8)
    assert largest(heat, size, offset, points, 0.95) is None


def yunet_file(path: Path) -> Path:
    """An ONNX file with YuNet's outputs for 128 x 128 that shows two faces of known places."""
    nodes, outputs, constants = [], [], []
    for stride in (8, 16, 32):
        cells = (128 // stride) ** 2
        values = {
            "cls": np.zeros((1, cells, 1)),
            "obj": np.zeros((1, cells, 1)),
            "bbox": np.zeros((1, cells, 4)),
            "kps": np.zeros((1, cells, 10)),
        }
        if stride == 16:  # two faces: cells (row 3, column 4) and (row 6, column 1) of 8 x 8
            for cell, side, score in ((3 * 8 + 4, 4.0, 0.81), (6 * 8 + 1, 1.0, 0.98)):
                values["cls"][0, cell], values["obj"][0, cell] = score, score
                values["bbox"][0, cell] = 0.5, 0.5, np.log(side), np.log(side)
                values["kps"][0, cell] = np.arange(10) / 10
        for name, value in values.items():
            full = f"{name}_{stride}"
            constants.append(numpy_helper.from_array(value.astype(np.float32), f"c_{full}"))
            nodes.append(helper.make_node("Add", [f"c_{full}", "zero"], [full]))
            outputs.append(helper.make_tensor_value_info(full, 1, list(value.shape)))
    constants.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    nodes.insert(0, helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0))
    nodes.insert(1, helper.make_node("Mul", ["mean", "nothing"], ["zero"]))
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("input", 1, [1, 3, 128, 128])],
        outputs,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, path)
    return path


def test_yunet_returns_the_largest_face_of_its_file(tmp_path: Path) -> None:
    """A file with two planted faces: points, order and score of the larger one come out."""
    named = find(f"yunet:{yunet_file(tmp_path / 'yunet.onnx')}")
    found = named.build().detect(PIXELS[:2])
    wanted = (np.arange(10).reshape(5, 2) / 10 + (4, 3)) * 16
    np.testing.assert_allclose(found.points, [wanted, wanted], atol=1e-3)
    assert found.score == pytest.approx(0.81)
    assert list(named.facts["weights"]) == ["yunet.onnx"]
    assert str(tmp_path) not in str(named.facts)


def test_wrong_settings_and_files_say_what_to_do(tmp_path: Path) -> None:
    """Unknown ids, missing weights, values that do not fit, files that are no model."""
    with pytest.raises(UnknownPluginError, match="Did you mean dlib"):
        find("dlb")
    with pytest.raises(ConfigError, match="takes no value"):
        find("landmarks:3")
    with pytest.raises(ConfigError, match="Bad settings for detector dlib"):
        find("dlib:nine")
    with pytest.raises(ModelError, match="set model=FILE"):
        find("yunet")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    for detector in ("yunet", "centerface"):
        with pytest.raises(ModelError, match=r"cannot read no\.onnx"):
            find(f"{detector}:{tmp_path / 'no.onnx'}").build()
        with pytest.raises(ModelError, match="there is no weight file"):
            find(f"{detector}:{tmp_path / 'absent.onnx'}")
    with pytest.raises(DataError, match=r"\(N, 3, H, W\) uint8"):
        find("centerface").build().detect(PIXELS[0])


class Broken:
    """A detector made of one function."""

    def __init__(self, run: Callable[[torch.Tensor], Any]) -> None:
        self.detect = run


def result(pixels: torch.Tensor, **changes: Any) -> Detections:
    """Honest points: a function of each image alone."""
    mean = pixels.float().mean((1, 2, 3)).numpy()
    points = mean[:, None, None] + np.arange(10, dtype=np.float32).reshape(5, 2)
    return Detections(**{"points": points, "score": mean} | changes)


def swapped(pixels: torch.Tensor) -> Detections:
    """The right eye first."""
    return result(pixels, points=result(pixels).points[:, [1, 0, 2, 4, 3]])


def half(pixels: torch.Tensor) -> Detections:
    """A score without points."""
    return result(pixels, points=np.full((len(pixels), 5, 2), np.nan, np.float32))


def writes(pixels: torch.Tensor) -> Detections:
    """Writes to its input."""
    pixels[:] = 0
    return result(pixels)


def by_batch(pixels: torch.Tensor) -> Detections:
    """Lets images see one another."""
    return result(pixels, score=np.full(len(pixels), len(pixels), np.float32))


BROKEN = [
    (promises.check_output, lambda pixels: None, "expected Detections"),
    (promises.check_output, lambda p: result(p, points=np.zeros((len(p), 4, 2))), "points must be"),
    (promises.check_output, lambda p: result(p, score=np.zeros(len(p))), "must be float32"),
    (promises.check_output, half, "finite together"),
    (promises.check_output, swapped, "on the image's left"),
    (promises.check_input_unchanged, writes, "changed the images"),
    (promises.check_companions, by_batch, "when it came alone"),
]


@pytest.mark.parametrize(("check", "run", "problem"), BROKEN)
def test_a_broken_promise_is_found(
    check: Callable[[promises.DetectorBench], None],
    run: Callable[[torch.Tensor], Any],
    problem: str,
) -> None:
    """Each check fails on the detector that breaks its promise, and passes on an honest one."""
    spec = PluginSpec("detector", "kit/broken", 1, "Broken.", lambda _: Broken(run))
    with pytest.raises(PluginError, match=problem):
        check(promises.DetectorBench(spec))
    honest = PluginSpec("detector", "kit/honest", 1, "Honest.", lambda _: Broken(result))
    check(promises.DetectorBench(honest))
