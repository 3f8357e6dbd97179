"""Models of the family on disk: shards, variants, digests, and what does not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import T2IAdapter, UNet2DConditionModel
from transformers import AutoModelForDepthEstimation

import latent_kit as kit
import single_file
import tiny_models
from privbench.errors import ModelError
from privbench_plugins import geometry
from privbench_plugins.anonymizers._ldm import adapters
from privbench_plugins.anonymizers._ldm.estimators import find_captioner, find_depth_model
from privbench_plugins.anonymizers._ldm.folders import find_pipeline
from privbench_plugins.anonymizers._ldm.vision import (
    Preparation,
    load_captioner,
    load_depth_network,
)

PLUGINS = ("controlnet-depth-softedge", "t2i-canny", "ldm-inpaint", "ldm-caption")
SEEDS = [1, 2]


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Models this small only lose by a second thread, and by blocks of 64 faces."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "_BATCH", 4)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of SD 1.5's kind (`.`), of SDXL's (`xl`), an inpainting one, and estimators."""
    path = tmp_path_factory.mktemp("folders")
    tiny_models.save_family(path)
    tiny_models.save_family(path / "xl", xl=True)
    tiny_models.save_family(path / "inpaint", changes={"in_channels": 9})
    tiny_models.save_depth_model(path / "dpt", "dpt")
    tiny_models.save_depth_model(path / "depth-anything", "depth-anything")
    tiny_models.save_captioner(path / "blip")
    return path


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """Folders that a test may damage."""
    shutil.copytree(root, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("xl", [False, True])
def test_shards_and_variants_release_the_same(xl: bool, root: Path, tmp_path: Path) -> None:
    """Shards with their index, and an fp16 variant, of all networks; both are pinned."""
    whole = root / "xl" if xl else root
    sharded = tiny_models.save_family(tmp_path / "s", xl=xl, max_shard_size="20KB")
    half = tiny_models.save_family(tmp_path / "h", xl=xl, variant="fp16")
    for plugin in ("controlnet-canny-depth", "t2i-canny"):
        pixels = kit.sources()
        expected = kit.run(kit.build(plugin, whole), pixels, SEEDS)
        assert torch.equal(kit.run(kit.build(plugin, sharded), pixels, SEEDS), expected)
        found = kit.weights(plugin, sharded)
        part = "adapter" if plugin == "t2i-canny" else "canny_controlnet"
        assert f"{part}/diffusion_pytorch_model.safetensors.index.json" in found
        assert sum(name.startswith(f"{part}/diffusion_pytorch_model-0") for name in found) > 1
        with pytest.raises(ModelError, match="no weights of variant"):
            kit.weights(plugin, half)
        variant = kit.build(plugin, half, variant="fp16")
        assert torch.equal(kit.run(variant, pixels, SEEDS), expected)
        name = f"{part}/diffusion_pytorch_model.fp16.safetensors"
        assert name in kit.weights(plugin, half, variant="fp16")


def test_a_single_file_feeds_the_whole_family(tmp_path: Path) -> None:
    """Encoder and text encoder of an original-format checkpoint are those of its folder."""
    root = tiny_models.save_family(tmp_path / "kl", "kl")
    pipe = tiny_models.pipeline("kl", **tiny_models.ATTENTION_FIRST)
    single_file.save(pipe, tmp_path / "photo.safetensors")
    shutil.copytree(
        root / "model", tmp_path / "photo", ignore=shutil.ignore_patterns("*.safetensors")
    )
    for plugin in ("ldm-img2img", "ldm-inpaint", "ldm-caption", "t2i-canny"):
        one = kit.build(plugin, root, model=str(tmp_path / "photo.safetensors"))
        whole = kit.run(kit.build(plugin, root), kit.sources(), SEEDS)
        torch.testing.assert_close(kit.run(one, kit.sources(), SEEDS), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("plugin", "parts"),
    [
        ("controlnet-depth", {"model", "controlnet", "depth_model"}),
        ("controlnet-landmarks", {"model", "controlnet", "landmarks"}),
        (
            "controlnet-canny-depth",
            {"model", "canny_controlnet", "depth_controlnet", "depth_model"},
        ),
        ("t2i-canny", {"model", "adapter"}),
        ("ldm-img2img", {"model"}),
        ("ldm-inpaint", {"model", "landmarks"}),
        ("ldm-caption", {"model", "captioner"}),
    ],
)
def test_every_network_is_pinned(plugin: str, parts: set[str], root: Path) -> None:
    """Weights and configuration of each network, estimators included, are hashed."""
    found = kit.weights(plugin, root)
    assert {name.partition("/")[0] for name in found} == parts
    for part in parts - {"model"}:
        kinds = {Path(name).suffix for name in found if name.startswith(f"{part}/")}
        assert kinds == {".json", ".safetensors"}
    assert all(len(sha) == 64 for sha in found.values())


@pytest.mark.parametrize(
    ("plugin", "setting", "folder"),
    [("controlnet-depth", "depth_model", "dpt"), ("ldm-caption", "captioner", "blip")],
)
def test_estimator_weights_change_with_a_byte(
    plugin: str, setting: str, folder: str, copy: Path
) -> None:
    """One changed byte of an estimator changes one hash."""
    options = {setting: str(copy / folder)}
    before = kit.weights(plugin, copy, **options)
    for name in ("model.safetensors", "preprocessor_config.json"):
        assert f"{setting}/{name}" in before
    path = copy / folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    after = kit.weights(plugin, copy, **options)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{setting}/model.safetensors"}


# --- what does not fit -------------------------------------------------------------------------


def swap(a: Path, b: Path) -> None:
    """Put folder `b` where `a` was."""
    shutil.rmtree(a)
    shutil.copytree(b, a)


Fault = tuple[str, dict[str, str], Callable[[Path], object], str]

FAULTS: dict[str, Fault] = {
    "sd controlnet for sdxl": (
        "controlnet-canny-depth",
        {},
        lambda r: swap(r / "model", r / "xl" / "model"),
        r"ControlNet .*canny does not fit the UNet.*cross_attention_dim is 16 .* and 32",
    ),
    "one of two controlnets": (
        "controlnet-depth-softedge",
        {},
        lambda r: swap(r / "softedge", r / "xl" / "softedge"),
        r"ControlNet .*softedge does not fit the UNet",
    ),
    "sdxl adapter for sd": (
        "t2i-canny",
        {},
        lambda r: swap(r / "t2i", r / "xl" / "t2i"),
        r"makes features of 8 channels at 1/8, 16 at 1/8; expected 8 channels at 1/4, 16 at 1/8",
    ),
    "adapter widths": (
        "t2i-canny",
        {},
        lambda r: edit(r / "t2i" / "config.json", channels=[320, 640]),
        r"makes features of 320 channels at 1/4, 640 at 1/8; expected 8 channels",
    ),
    "adapter type": (
        "t2i-canny",
        {},
        lambda r: edit(r / "t2i" / "config.json", adapter_type="style_adapter"),
        "is a style_adapter. Expected full_adapter",
    ),
    "adapter is a controlnet": (
        "t2i-canny",
        {},
        lambda r: swap(r / "t2i", r / "canny"),
        "expected T2IAdapter, got ControlNetModel",
    ),
    "adapter is a pipeline": (
        "t2i-canny",
        {},
        lambda r: swap(r / "t2i", r / "model"),
        "whole checkpoint. Expected a T2IAdapter",
    ),
    "adapter channels": (
        "t2i-canny",
        {},
        lambda r: edit(r / "t2i" / "config.json", in_channels=64),
        "takes 64 channels. Expected 1 or 3",
    ),
    "adapter weights": (
        "t2i-canny",
        {},
        lambda r: (r / "t2i" / "diffusion_pytorch_model.safetensors").unlink(),
        "t2i holds no safetensors weights",
    ),
    "inpainting unet elsewhere": (
        "ldm-img2img",
        {},
        lambda r: swap(r / "model", r / "inpaint" / "model"),
        "takes 9 channels.*cannot be used here .inpainting: ldm-inpaint",
    ),
    "edit model": (
        "ldm-inpaint",
        {},
        lambda r: edit(r / "model" / "unet" / "config.json", in_channels=8),
        "takes 8 channels.*Expected 4, or 9 of an inpainting model",
    ),
    "inpainting unet for a whole image": (
        "controlnet-depth-softedge",
        {},
        lambda r: swap(r / "model", r / "inpaint" / "model"),
        "takes 9 channels",
    ),
    "depth model is none": (
        "controlnet-depth",
        {"depth_model": "blip"},
        lambda r: None,
        "not a depth estimator: expected DPTForDepthEstimation or DepthAnything.*"
        "got BlipForConditionalGeneration",
    ),
    "depth model is diffusers": (
        "controlnet-depth",
        {"depth_model": "canny"},
        lambda r: None,
        "not a depth estimator.*got ControlNetModel",
    ),
    "depth model without settings": (
        "controlnet-depth",
        {"depth_model": "dpt"},
        lambda r: (r / "dpt" / "preprocessor_config.json").unlink(),
        "preprocessor_config.json is missing",
    ),
    "depth model without weights": (
        "controlnet-depth",
        {"depth_model": "dpt"},
        lambda r: (r / "dpt" / "model.safetensors").unlink(),
        "dpt holds no safetensors weights",
    ),
    "captioner is none": (
        "ldm-caption",
        {"captioner": "dpt"},
        lambda r: None,
        "not a captioner: expected BlipForConditionalGeneration, got DPTForDepthEstimation",
    ),
    "captioner without words": (
        "ldm-caption",
        {"captioner": "blip"},
        lambda r: [p.unlink() for p in (r / "blip").glob("tokenizer*")],
        "has no tokenizer",
    ),
    "autoencoder": (
        "ldm-inpaint",
        {},
        lambda r: shutil.rmtree(r / "model" / "vae"),
        "lacks the component 'vae'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_when_planned_and_when_built(fault: str, copy: Path) -> None:
    """What does not fit is refused with what was expected, already by `weights`."""
    plugin, options, damage, message = FAULTS[fault]
    damage(copy)
    given = {name: str(copy / folder) for name, folder in options.items()}
    with pytest.raises(ModelError, match=message):
        kit.weights(plugin, copy, **given)
    with pytest.raises(ModelError, match=message):
        kit.build(plugin, copy, **given)


def test_adapters_may_ask_more_of_the_resolution_than_the_model(root: Path) -> None:
    """SDXL's adapters reduce by twice the autoencoder's factor."""
    with pytest.raises(ModelError, match=r"divisible by 8\. Got 36"):
        kit.weights("t2i-canny", root / "xl", resolution=36)


@pytest.mark.parametrize("kind", ["full_adapter", "full_adapter_xl", "light_adapter"])
def test_adapter_features_are_foretold(kind: str) -> None:
    """The check's arithmetic is what the network does."""
    options = {"in_channels": 3, "channels": [8, 16, 24, 24], "num_res_blocks": 1}
    net = T2IAdapter(**options, downscale_factor=8, adapter_type=kind)
    with torch.no_grad():
        features = net(torch.rand(1, 3, 128, 128))
    assert [(f.shape[1], 128 // f.shape[2]) for f in features] == adapters._made(net.config)


@pytest.mark.parametrize("xl", [False, True])
def test_features_that_a_unet_takes_are_foretold(xl: bool, root: Path) -> None:
    """The shapes that the check expects can be added in the UNet; others cannot."""
    folder = root / "xl" if xl else root
    found = find_pipeline(str(folder / "model"))
    net = UNet2DConditionModel.from_pretrained(folder / "model" / "unet")
    added: dict[str, Any] = {}
    if xl:
        added = {"text_embeds": torch.zeros(1, 16), "time_ids": torch.zeros(1, 6)}

    def sample(features: list[torch.Tensor]) -> torch.Tensor:
        given = (torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 16, 32 if xl else 16))
        with torch.no_grad():
            out: torch.Tensor = net(
                *given, added_cond_kwargs=added, down_intrablock_additional_residuals=features
            ).sample
        return out

    shapes = [(1, width, 32 // size, 32 // size) for width, size in adapters._taken(found)]
    zeros = [torch.zeros(shape) for shape in shapes]
    for i, shape in enumerate(shapes):
        changed = [torch.ones(shape) if j == i else z for j, z in enumerate(zeros)]
        assert not torch.allclose(sample(changed), sample(list(zeros)), atol=1e-6)


# --- estimators of transformers ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dpt", "depth-anything"])
def test_depth_is_the_networks(kind: str, root: Path) -> None:
    """Pixels resized and normalised as the settings say; each image stretched to 0..255."""
    net = load_depth_network(find_depth_model(str(root / kind)))
    images = kit.array(kit.sources(3, side=28))
    plain = AutoModelForDepthEstimation.from_pretrained(root / kind).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    given = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        depth = plain(pixel_values=given).predicted_depth
    depth = F.interpolate(depth[:, None], (28, 28), mode="bicubic")[:, 0].double().numpy()
    low, high = depth.min((1, 2), keepdims=True), depth.max((1, 2), keepdims=True)
    expected = 255 * (depth - low) / (high - low)
    found = net(images)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=1)
    assert (found.min((1, 2)) == 0).all()
    assert (found.max((1, 2)) == 255).all()


def test_metric_depth_is_turned_round(root: Path, tmp_path: Path) -> None:
    """A network that estimates distances: the nearest is still white."""
    shutil.copytree(root / "depth-anything", tmp_path / "metric")
    edit(tmp_path / "metric" / "config.json", depth_estimation_type="metric", max_depth=10)
    net = load_depth_network(find_depth_model(str(tmp_path / "metric")))
    images = kit.array(kit.sources(1, side=28))
    given = net.prepare(images, torch.device("cpu"))
    relative = load_depth_network(find_depth_model(str(root / "depth-anything")))
    with torch.no_grad():
        # Random weights hardly differ from place to place; the sigmoid would round that away.
        spread = relative.network(pixel_values=given).predicted_depth.std()
        net.network.head.conv3.weight.div_(spread)
        distance = net.network(pixel_values=given).predicted_depth[0].numpy()
    found = net(images)[0]
    assert found[np.unravel_index(distance.argmin(), distance.shape)] == 255
    assert found[np.unravel_index(distance.argmax(), distance.shape)] == 0


@pytest.mark.parametrize(
    ("settings", "shape", "size"),
    [
        ({"size": {"height": 384, "width": 384}}, (100, 80), (384, 384)),
        ({"size": 224}, (100, 80), (224, 224)),
        (
            {"size": {"height": 518, "width": 518}, "keep_aspect_ratio": True,
             "ensure_multiple_of": 14},
            (300, 512),
            (308, 518),
        ),
    ],
)  # fmt: skip
def test_images_are_prepared_as_the_settings_say(
    settings: dict[str, Any], shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """DPT's sizes: fixed, or with the image's ratio (the factor nearer to 1) and multiples."""
    prepare = Preparation.of(settings | {"do_normalize": False})
    images = np.full((1, *shape, 3), 51, np.uint8)
    made = prepare(images, torch.device("cpu"))
    assert tuple(made.shape) == (1, 3, *size)
    torch.testing.assert_close(made, torch.full_like(made, 0.2))


def test_depth_of_transformers_conditions_a_controlnet(root: Path) -> None:
    """`depth_model` as a folder: its map is the condition, and the batch does not matter."""
    made = kit.build("controlnet-depth", root, depth_model=str(root / "dpt"))
    pixels = kit.sources(5)
    seen = made.condition(kit.batch(pixels))
    assert seen is not None
    net = load_depth_network(find_depth_model(str(root / "dpt")))
    np.testing.assert_array_equal((seen[:, 0] * 255).round().byte().numpy(), net(kit.array(pixels)))
    whole = kit.run(made, pixels, [1, 2, 3, 4, 5])
    assert torch.equal(kit.run(made, pixels[4:], [5]), whole[4:])


def test_captions_of_blip_are_prompts(root: Path) -> None:
    """`captioner` as a folder: one greedy caption an image, the same in any batch."""
    found = load_captioner(find_captioner(str(root / "blip")))
    images = kit.array(kit.sources(3))
    captions = found.captions(images)
    assert all(captions)
    assert found.captions(images[2:]) == captions[2:]
    made = kit.build("ldm-caption", root, captioner=str(root / "blip"), prompt="a {caption}")
    guide = made._guide
    assert guide.prompts(kit.sources(3)) == [f"a {text}" for text in captions]  # type: ignore[attr-defined]
    assert kit.run(made, kit.sources(), SEEDS).isfinite().all()


@pytest.mark.parametrize("plugin", ["controlnet-depth", "ldm-caption"])
def test_a_hub_estimator_is_fetched_without_pickles(
    plugin: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' weight files, by name, at the revision; nothing that can run code."""
    asked: list[dict[str, Any]] = []
    setting, folder = ("depth_model", "dpt") if "depth" in plugin else ("captioner", "blip")

    def fake(name: str, **options: Any) -> str:
        asked.append(options | {"name": name})
        return str(root / folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    kit.weights(plugin, root, **{setting: "someone/net", f"{setting}_revision": "abc"})
    assert [(a["name"], a["revision"]) for a in asked] == [("someone/net", "abc")]
    patterns = asked[0]["allow_patterns"]
    assert "model*.safetensors" in patterns
    assert {Path(p).suffix for p in patterns} == {".json", ".txt", ".model", ".safetensors"}


# --- configurations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugin", "options", "message"),
    [
        ("ldm-img2img", {"strength": 0}, "greater than 0"),
        ("ldm-img2img", {"strength": 0.05}, "must reach one step; got 0.05 x 10"),
        ("ldm-inpaint", {"feather": 0.6}, "less than or equal to 0.5"),
        ("ldm-caption", {"prompt": "a photo"}, "prompt must hold {caption}"),
        ("controlnet-canny-depth", {"depth_scale": -1}, "greater than or equal to 0"),
        ("controlnet-depth-softedge", {"repaint": "hair"}, "'image' or 'face'"),
        ("t2i-canny", {"low_threshold": 90}, "low_threshold must not be above"),
        ("t2i-canny", {"controlnet": "x"}, "Extra inputs"),
    ],
)
def test_bad_settings_are_refused(plugin: str, options: dict[str, Any], message: str) -> None:
    """Unknown names and values out of range never reach a model."""
    with pytest.raises(ValueError, match=message):
        kit.SPECS[plugin].config(**options)
