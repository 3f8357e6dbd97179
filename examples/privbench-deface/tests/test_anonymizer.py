"""deface keeps privbench's contract, and its releases are those of the tool."""

from dataclasses import replace
from pathlib import Path

import imageio.v2 as iio
import numpy as np
import pytest
import torch
from deface.centerface import CenterFace
from deface.deface import image_detect
from privbench import load_registry
from privbench.registry import make_config
from privbench.testing import Check, parametrize_with_checks
from privbench.types import UNKNOWN, ImageBatch, quantize

from privbench_deface import SPEC, DefaceConfig, build, model

KEPT = "deface releases an image in which it finds no face as it is; that is what is measured"


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """(4, 3, 128, 128) uint8 rendered faces."""
    spec = load_registry().get("dataset", "synthfaces").spec
    return spec.build(make_config(spec, {})).pixels(np.array([0, 1000, 2000, 3000]))


def release(pixels: torch.Tensor, config: DefaceConfig) -> torch.Tensor:
    """(N, 3, H, W) uint8 releases of (N, 3, H, W) uint8 images."""
    keys = tuple(map(str, range(len(pixels))))
    batch = ImageBatch(pixels.float() / 255, np.full(len(pixels), UNKNOWN), keys)
    return quantize(build(config).anonymize(batch, [0] * len(pixels)))


@parametrize_with_checks([SPEC])
def test_contract(check: Check) -> None:
    """Every promise that privbench relies on is kept."""
    check()


@parametrize_with_checks([replace(SPEC, smoke={})], expected_failures={"source_hidden": KEPT})
def test_contract_where_no_face_is_found(check: Check) -> None:
    """At the tool's threshold it sees no face in most of the kit's drawings: they pass through."""
    check()


@parametrize_with_checks([replace(SPEC, smoke={"undetected": "blank"})])
def test_contract_where_such_images_are_blanked(check: Check) -> None:
    """With `undetected=blank` no source passes through."""
    check()


@pytest.mark.parametrize("way", ["blur", "solid", "mosaic"])
def test_the_release_is_the_tool_s(faces: torch.Tensor, tmp_path: Path, way: str) -> None:
    """Bit for bit what its command line writes for a PNG file, and not the source."""
    source, written = tmp_path / "source.png", tmp_path / "written.png"
    iio.imwrite(source, faces[0].permute(1, 2, 0).numpy())
    image_detect(
        str(source),
        str(written),
        CenterFace(backend="opencv"),
        threshold=0.2,
        replacewith=way,
        mask_scale=1.3,
        ellipse=True,
        draw_scores=False,
        enable_preview=False,
        keep_metadata=False,
        mosaicsize=20,
    )
    released = release(faces[:1], DefaceConfig(replacewith=way))[0]
    np.testing.assert_array_equal(iio.imread(written), released.permute(1, 2, 0).numpy())
    assert not torch.equal(released, faces[0])


def test_both_backends_find_the_same_faces(faces: torch.Tensor) -> None:
    """OpenCV, which is used here, and ONNX Runtime, which the tool prefers where it is there."""
    find = {name: CenterFace(str(model()), backend=name) for name in ("opencv", "onnxrt")}
    for image in faces.permute(0, 2, 3, 1).contiguous().numpy():
        boxes = {name: f(image, threshold=0.2)[0] for name, f in find.items()}
        assert len(boxes["opencv"]) == 1
        np.testing.assert_allclose(boxes["opencv"], boxes["onnxrt"], atol=0.05)


@pytest.mark.parametrize(("undetected", "expected"), [("keep", 200), ("blank", 0)])
def test_an_image_without_a_face(undetected: str, expected: int) -> None:
    """It is released as it is, or black."""
    grey = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    released = release(grey, DefaceConfig(undetected=undetected))
    assert bool((released == expected).all())
