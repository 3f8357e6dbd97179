"""`naive-recogniser`: which recogniser is used, how faces are aligned, and what is embedded."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from privbench.data import PROTOCOLS, load_part, split
from privbench.errors import ConfigError, ModelError, PluginError, PluginLoadError
from privbench.plan import Choice, resolve
from privbench.progress import Silent
from privbench.registry import load_registry, make_config
from privbench.types import AttackerView, ImageSet
from privbench_plugins.attacks import alignment, recogniser_files, recognisers
from privbench_plugins.attacks.alignment import ARCFACE, DLIB, Faces, align, dlib_template
from privbench_plugins.attacks.recogniser_files import PREPROCESSOR, RESNET, candidates
from privbench_plugins.attacks.recogniser_models import Backbone, Dlib, Onnx, load
from privbench_plugins.attacks.recognisers import RecogniserConfig
from privbench_plugins.datasets import synthfaces

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
(SPEC,) = recognisers.SPECS


@pytest.fixture(scope="module")
def parts() -> dict[str, ImageSet]:
    """Validation people, and 40 evaluation people: two references each and one probe."""
    data = synthfaces.build(synthfaces.SynthfacesConfig())
    rows = split(data, PROTOCOLS["quick"])
    return {
        "validation": load_part(data, rows.attacker_validation[:36]),
        "gallery": load_part(data, rows.gallery.reshape(-1, 5)[:40, :2].ravel()),
        "probes": load_part(data, rows.probes.reshape(-1, 2)[:40, 0]),
    }


def view_of(validation: ImageSet) -> AttackerView:
    """No oracle, and nothing to train on: all this attacker has is validation."""
    return AttackerView(
        train=validation.take([]), validation=validation, oracle=None, seed=1, device=CPU,
        reporter=Silent(),
    )  # fmt: skip


def rank1(trained: Any, parts: dict[str, ImageSet], probes: ImageSet) -> float:
    """Share of probes whose person's two references score highest."""
    scores = trained.enroll(parts["gallery"], anonymized=False).score(probes)
    best = scores.view(len(probes), 40, 2).mean(2).argmax(1)
    return float((best == torch.arange(40)).double().mean())


def noise(images: ImageSet) -> ImageSet:
    """Releases that keep nothing."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, images.pixels.shape, dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, images.subject, images.keys)


def test_settings_from_the_command_line() -> None:
    """One recogniser as plain text, several as a list."""
    one = make_config(SPEC, {"recognisers": "dlib"})
    two = make_config(SPEC, {"recognisers": '["tiny-encoder", "onnx:a.onnx"]'})
    assert one.recognisers == ("dlib",)  # type: ignore[attr-defined]
    assert two.recognisers == ("tiny-encoder", "onnx:a.onnx")  # type: ignore[attr-defined]


def test_a_recogniser_after_the_colon(tmp_path: Path) -> None:
    """`naive-recogniser:NAME` is the one recogniser of that name, also where it has a path."""
    for name in ("dlib", "tiny-recogniser", f"onnx:{save_onnx(tmp_path / 'm.onnx')}"):
        found = resolve(load_registry(), "attack", Choice(id=f"naive-recogniser:{name}"))
        assert found.config == RecogniserConfig(recognisers=(name,))
        assert any(file.startswith(name) for file in found.weights)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dlip", "Did you mean dlib"), ("onnx", "onnx:PATH"), ("dlib:x", "'dlib'"), ("onnx:", "PATH")],
)
def test_unknown_recognisers_are_named(name: str, hint: str) -> None:
    """A misspelt recogniser is refused with the nearest, a malformed one with its form."""
    with pytest.raises(ConfigError, match=hint):
        make_config(SPEC, {"recognisers": [name]})


def test_auto_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dlib its two files are candidates and part of the key; without, the shipped encoder is
    alone, and asking for dlib by name says what to install. The judge is never among them."""
    config = RecogniserConfig()
    assert candidates(config) == ("tiny-encoder", "dlib")
    assert sum(name.startswith("dlib/") for name in recognisers.weights(config)) == 2
    monkeypatch.setattr(recogniser_files, "find_spec", lambda name: None)
    assert candidates(config) == ("tiny-encoder",)
    assert all(name.startswith("tiny-encoder/") for name in recognisers.weights(config))
    with pytest.raises(PluginLoadError, match=r"privbench\[recognise\]"):
        recognisers.weights(RecogniserConfig(recognisers=("dlib",)))


# --- the attack --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-encoder", "tiny-recogniser"])
def test_it_knows_clear_faces_and_not_noise(parts: dict[str, ImageSet], name: str) -> None:
    """Unmodified photos of 40 people nearly all found; noise at chance (1/40; P(> 5) = .004)."""
    config = RecogniserConfig(recognisers=(name,))
    trained = recognisers.build(config).train(view_of(parts["validation"]))
    assert rank1(trained, parts, parts["probes"]) >= 0.9
    assert rank1(trained, parts, noise(parts["probes"])) <= 5 / 40


def test_scores_do_not_depend_on_companions(parts: dict[str, ImageSet]) -> None:
    """A probe scores the same alone and among others; none give an empty table."""
    config = RecogniserConfig(recognisers=("tiny-encoder",), mirror="on")
    trained = recognisers.build(config).train(view_of(parts["validation"]))
    scorer = trained.enroll(parts["gallery"].take([3, 1, 2]), anonymized=False)
    together = scorer.score(parts["probes"])
    alone = scorer.score(parts["probes"].take([7]))
    torch.testing.assert_close(alone, together[7:8], rtol=0, atol=1e-6)
    assert scorer.score(parts["probes"].take([])).shape == (0, 3)


def test_the_strongest_on_validation_is_used(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    """An untrained network loses to the shipped recogniser, and the report shows both."""
    save_backbone(tmp_path)
    names = (f"transformers:{tmp_path}", "tiny-encoder")
    config = RecogniserConfig(recognisers=names, mirror="off")
    report = recognisers.build(config).train(view_of(parts["validation"])).report
    assert report["recogniser"] == "tiny-encoder"
    assert list(report["candidates"]) == list(names)
    weak, strong = (report["candidates"][name] for name in names)
    assert weak["rank1"] < strong["rank1"]
    assert json.loads(json.dumps(report)) == report


def test_too_few_people_are_refused(parts: dict[str, ImageSet]) -> None:
    """One person cannot tell recognisers apart."""
    with pytest.raises(PluginError, match="two"):
        recognisers.build(RecogniserConfig()).train(view_of(parts["validation"].take([0, 1])))


# --- dlib --------------------------------------------------------------------------------------


def test_dlib_descriptors_are_dlib_s_own(parts: dict[str, ImageSet]) -> None:
    """Detector, five points and ResNet, image by image as dlib's examples do it."""
    import dlib

    images = parts["probes"].take(range(4))
    folder = recogniser_files.require_dlib()
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(folder / recogniser_files.PREDICTOR))
    network = dlib.face_recognition_model_v1(str(folder / RESNET))
    expected = []
    for pixels in images.pixels:
        image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        face = predictor(image, detector(image, 1)[0])
        expected.append(np.array(network.compute_face_descriptor(image, face)))
    rows = F.normalize(torch.from_numpy(np.stack(expected)).float())
    recogniser = Dlib.load(3)
    chips = recogniser.align(Faces(images.pixels))
    assert chips.undetected == 0
    torch.testing.assert_close(recogniser.embed(chips.pixels), rows, rtol=0, atol=1e-5)


def test_an_undetected_face_is_counted_and_stays(parts: dict[str, ImageSet]) -> None:
    """Where there is no face the middle of the image is embedded; the others are not touched."""
    both = torch.cat([parts["probes"].pixels[:1], noise(parts["probes"]).pixels[:1]])
    before = both.clone()
    recogniser = Dlib.load(8)
    chips = recogniser.align(Faces(both))
    assert (chips.undetected, len(chips.pixels)) == (1, 2)
    torch.testing.assert_close(chips.pixels[:1], recogniser.align(Faces(both[:1])).pixels)
    assert recogniser.embed(chips.pixels).isfinite().all()
    assert align(Faces(both), 112).undetected == 1
    assert torch.equal(both, before)


def test_damaged_dlib_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated weight file is an error that names it."""
    (tmp_path / RESNET).write_bytes(b"not a network")
    monkeypatch.setattr(
        "privbench_plugins.attacks.recogniser_models.require_dlib", lambda: tmp_path
    )
    with pytest.raises(ModelError, match=RESNET):
        Dlib.load(1)


def test_the_mean_face_is_dlib_s() -> None:
    """A face with exactly these points needs, by dlib, no turn and no move."""
    import dlib

    side = 10_000
    points = dlib.points([dlib.point(round(x * side), round(y * side)) for x, y in DLIB])
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, side, side), points)
    chip = dlib.get_face_chip_details(shape, side, 0.0)
    assert chip.angle == pytest.approx(0, abs=1e-3)
    edges = [chip.rect.left(), chip.rect.top(), chip.rect.right(), chip.rect.bottom()]
    assert edges == pytest.approx([0, 0, side, side], abs=3)


def test_dlib_s_points_fit_arcface_s() -> None:
    """Eyes lie on ArcFace's eyes, and the base of the nose between its tip and the mouth."""
    points = dlib_template()
    np.testing.assert_allclose(points[2:4].mean(0), ARCFACE[0], atol=0.01)
    np.testing.assert_allclose(points[0:2].mean(0), ARCFACE[1], atol=0.01)
    assert ARCFACE[2, 1] < points[4, 1] < ARCFACE[3:, 1].mean()
    assert ARCFACE[3, 0] < points[4, 0] < ARCFACE[4, 0]


# --- ONNX --------------------------------------------------------------------------------------


def save_onnx(path: Path, batch: int | str = "N", side: int = 112, last: bool = False) -> Path:
    """An ONNX model that embeds an image as its own means over cells of 8 x 8 pixels."""
    shape = [batch, side, side, 3] if last else [batch, 3, side, side]
    nodes = [helper.make_node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2])] if last else []
    nodes += [
        helper.make_node(
            "AveragePool", ["c" if last else "x"], ["p"], kernel_shape=[8, 8], strides=[8, 8]
        ),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3 * (side // 8) ** 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def turned(pixels: torch.Tensor, degrees: float, x: float, y: float) -> torch.Tensor:
    """(N, 3, H, W) uint8, turned about the middle and moved."""
    height, width = pixels.shape[2:]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    matrix[:, 2] += (x, y)
    moved = [
        cv2.warpAffine(p.permute(1, 2, 0).numpy(), matrix, (width, height), borderMode=1)
        for p in pixels
    ]
    return torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("installed", [True, False])
def test_onnx_alignment_undoes_a_turn(
    parts: dict[str, ImageSet], tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face turned by 12 degrees and moved embeds like itself, though its pixels do not: with
    dlib's landmarks, and with the embedded ones."""
    if not installed:
        monkeypatch.setattr(alignment, "dlib_folder", lambda: None)
    model = Onnx.load(save_onnx(tmp_path / "m.onnx"), RecogniserConfig(), CPU)
    pixels = parts["probes"].pixels[:12]
    moved = turned(pixels, 12, 5, -4)

    def rows(images: torch.Tensor, aligned: bool) -> torch.Tensor:
        chips = model.align(Faces(images)).pixels if aligned else alignment.centred(images, 112)
        return model.embed(chips)

    with_alignment, without = (
        float((rows(pixels, aligned) * rows(moved, aligned)).sum(1).median())
        for aligned in (True, False)
    )
    assert with_alignment > 0.97
    assert without < 0.9


def test_onnx_normalisation_and_layout(tmp_path: Path) -> None:
    """Rows are the normalised pixels' cell means: dynamic or fixed batch, channels first or last,
    RGB or BGR."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (5, 3, 112, 112), dtype=torch.uint8, generator=generator)
    settings = RecogniserConfig(mean=100, std=50, embed_batch=2)

    def expected(x: torch.Tensor) -> torch.Tensor:
        return F.normalize(F.avg_pool2d((x.float() - 100) / 50, 8).flatten(1))

    for batch, last in (("N", False), (2, False), ("N", True)):
        path = save_onnx(tmp_path / f"{batch}-{last}.onnx", batch, last=last)
        rows = Onnx.load(path, settings, CPU).embed(pixels)
        torch.testing.assert_close(rows, expected(pixels), rtol=0, atol=1e-5)
    swapped = settings.model_copy(update={"channels": "bgr"})
    rows = Onnx.load(path, swapped, CPU).embed(pixels)
    torch.testing.assert_close(rows, expected(pixels.flip(1)), rtol=0, atol=1e-5)


def test_onnx_faults_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, a damaged one, a model of something else, no onnxruntime: each says so."""
    config = RecogniserConfig()
    with pytest.raises(ModelError, match="no ONNX file"):
        load(f"onnx:{tmp_path / 'none.onnx'}", config, CPU)
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        load(f"onnx:{tmp_path / 'bad.onnx'}", config, CPU)
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 7])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 7])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [entry], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "flat.onnx")
    with pytest.raises(ModelError, match="S, S"):
        load(f"onnx:{tmp_path / 'flat.onnx'}", config, CPU)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(PluginLoadError, match=r"privbench\[onnx\]"):
        load(f"onnx:{save_onnx(tmp_path / 'm.onnx')}", config, CPU)


def test_external_weights_enter_the_key(tmp_path: Path) -> None:
    """Weights that an ONNX file keeps beside itself are hashed too."""
    path = save_onnx(tmp_path / "m.onnx")
    config = RecogniserConfig(recognisers=(f"onnx:{path}",))
    (tmp_path / "m.onnx.data").write_bytes(b"one")
    first = recognisers.weights(config)
    (tmp_path / "m.onnx.data").write_bytes(b"two")
    second = recognisers.weights(config)
    assert {k for k in first if first[k] != second[k]} == {f"onnx:{path}/m.onnx.data"}


def test_one_detector_pass_for_all_candidates(
    parts: dict[str, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dlib and an ONNX model are aligned by the same detections."""
    passes: list[int] = []
    original = alignment._predictor
    monkeypatch.setattr(alignment, "_predictor", lambda: (passes.append(1), original())[1])
    names = ("dlib", f"onnx:{save_onnx(tmp_path / 'm.onnx')}")
    images = parts["validation"].take(range(0, 12))
    config = RecogniserConfig(recognisers=names, mirror="off")
    report = recognisers.build(config).train(view_of(images)).report
    assert passes == [1]
    assert {c["undetected"] for c in report["candidates"].values()} == {0}


def test_an_image_is_embedded_once(parts: dict[str, ImageSet]) -> None:
    """Galleries are enrolled again and again, probes met in several trials: the rows are kept,
    and are those of an attack that meets the images for the first time."""
    config = RecogniserConfig(recognisers=("dlib",), mirror="off")
    images = parts["validation"].take(range(0, 12))
    trained, fresh = (recognisers.build(config).train(view_of(images)) for _ in range(2))
    met: list[int] = []
    embed = trained.recogniser.embed  # type: ignore[attr-defined]

    @dataclass(frozen=True)
    class Counting:
        align = trained.recogniser.align  # type: ignore[attr-defined]

        def embed(self, pixels: torch.Tensor) -> torch.Tensor:
            met.append(len(pixels))
            rows: torch.Tensor = embed(pixels)
            return rows

    trained.recogniser = Counting()  # type: ignore[attr-defined]
    blank = noise(images.take([0]))
    probes = ImageSet(
        torch.cat([images.pixels[3:6], blank.pixels]), np.arange(4), ("a", "b", "c", "d")
    )
    scorer = trained.enroll(images.take(range(0, 4)), False)
    first, again = scorer.score(probes), scorer.score(probes)
    assert met == [4, 3]  # one probe is in the gallery
    assert torch.equal(first, again)
    expected = fresh.enroll(images.take(range(0, 4)), False).score(probes)
    torch.testing.assert_close(first, expected)
    assert scorer.facts == {  # type: ignore[attr-defined]
        "recogniser": "dlib", "references": 4, "references_undetected": 0, "probes": 4,
        "probes_undetected": 1,
    }  # fmt: skip


# --- transformers ------------------------------------------------------------------------------


def save_backbone(folder: Path) -> None:
    """A small untrained ResNet with a preprocessor's settings."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    shape = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(shape).save_pretrained(folder)
    facts = {
        "do_resize": True, "size": {"shortest_edge": 64}, "do_center_crop": True,
        "crop_size": {"height": 56, "width": 56}, "do_normalize": True,
        "rescale_factor": 1 / 255, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    (folder / PREPROCESSOR).write_text(json.dumps(facts))


def test_backbone_equals_transformers(parts: dict[str, ImageSet], tmp_path: Path) -> None:
    """Resized by PIL and normalised by hand, transformers' own model pools to the same rows."""
    from PIL import Image
    from transformers import ResNetModel

    save_backbone(tmp_path)
    model = ResNetModel.from_pretrained(tmp_path).eval()
    pixels = parts["probes"].pixels[:3]
    small = []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        resized = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
        small.append(np.asarray(resized.crop((4, 4, 60, 60)), np.float32) / 255)
    x = (np.stack(small) - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.4)
    with torch.no_grad():
        pooled = model(torch.from_numpy(x).float().permute(0, 3, 1, 2)).pooler_output.flatten(1)
    recogniser = Backbone.load(tmp_path, 2, CPU)
    rows = recogniser.embed(recogniser.align(Faces(pixels)).pixels)
    torch.testing.assert_close(rows, F.normalize(pooled), rtol=0, atol=5e-3)


def test_preprocessor_and_weights_enter_the_key(tmp_path: Path) -> None:
    """Configuration, weights and preprocessing are hashed."""
    save_backbone(tmp_path)
    weights = recognisers.weights(RecogniserConfig(recognisers=(f"transformers:{tmp_path}",)))
    names = {Path(name).name for name in weights}
    assert names == {"config.json", "model.safetensors", PREPROCESSOR}


def test_an_untrained_pooler_is_not_used(tmp_path: Path) -> None:
    """A classifier saved without a pooler would get a random one: rows stay the same."""
    from transformers import ViTConfig, ViTForImageClassification

    shape = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTForImageClassification(shape).save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=generator)
    rows = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        recogniser = Backbone.load(tmp_path, 2, CPU)
        rows.append(recogniser.embed(recogniser.align(Faces(pixels)).pixels))
    assert rows[0].shape == (2, 16)
    assert torch.equal(rows[0], rows[1])


def test_transformers_faults_are_named(tmp_path: Path) -> None:
    """Pickles only, damaged weights, damaged preprocessing: each is refused by name."""
    config = RecogniserConfig()
    for name in ("pickle", "cut", "odd"):
        save_backbone(tmp_path / name)
    weights = tmp_path / "pickle" / "model.safetensors"
    shutil.move(weights, weights.with_name("pytorch_model.bin"))
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut")
    (tmp_path / "odd" / PREPROCESSOR).write_text('{"size": "large"}')
    for name, problem in (("pickle", "pickled"), ("cut", "Cannot read"), ("odd", PREPROCESSOR)):
        with pytest.raises(ModelError, match=problem):
            load(f"transformers:{tmp_path / name}", config, CPU)
