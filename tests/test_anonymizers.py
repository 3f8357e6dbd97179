"""The built-in anonymizers keep the contract, and do what their names say."""

from __future__ import annotations

import fnmatch
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import single_file
import tiny_models
from privbench.errors import ModelError
from privbench.spec import PluginSpec
from privbench.testing import check_plugin
from privbench.types import ImageBatch, quantize
from privbench_plugins import models
from privbench_plugins.anonymizers import classical, ldm
from privbench_plugins.anonymizers._classical import gaussian_blur, pixelate
from privbench_plugins.anonymizers._ldm.anonymizer import LatentAnonymizer, resolve_dtype

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = tiny_models.RESOLUTION
SPECS = {spec.id: spec for spec in (*classical.SPECS, *ldm.SPECS)}
LATENT = ("controlnet-canny", "ldm-unconditional")
GREY_LEVEL = 1 / 255
WEIGHT = "diffusion_pytorch_model.safetensors"

Folders = tuple[Path, Path]


def sources(n: int = 5, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    """(n, 3, side, side) blotches with edges between them."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(n, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(blocks, (side, side), mode="nearest")


def batch(pixels: torch.Tensor) -> ImageBatch:
    """Images whose subjects are withheld."""
    n = len(pixels)
    return ImageBatch(pixels, np.full(n, -1), tuple(str(i) for i in range(n)))


def run(plugin: Any, pixels: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """The release of some images."""
    released: torch.Tensor = plugin.anonymize(batch(pixels), seeds)
    return released


def edges(pixels: torch.Tensor, low: float = 30, high: float = 80) -> np.ndarray[Any, Any]:
    """(N, H, W) Canny maps straight from OpenCV."""
    maps = []
    for image in quantize(pixels).permute(0, 2, 3, 1).numpy():
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        sigma = max(min(grey.shape) / 128, 0.5)
        maps.append(cv2.Canny(cv2.GaussianBlur(grey, (0, 0), sigma), low, high, L2gradient=True))
    return np.stack(maps)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folders]:
    """Small models: with AutoencoderTiny, with AutoencoderKL, and an SDXL."""
    root = tmp_path_factory.mktemp("models")
    return {
        "tiny": tiny_models.save(root / "tiny"),
        "kl": tiny_models.save(root / "kl", "kl"),
        "xl": tiny_models.save(root / "xl", xl=True),
    }


@pytest.fixture
def copy(folders: dict[str, Folders], tmp_path: Path) -> Folders:
    """A model that a test may damage."""
    for part, folder in zip(("model", "controlnet"), folders["tiny"], strict=True):
        shutil.copytree(folder, tmp_path / part)
    return tmp_path / "model", tmp_path / "controlnet"


def settings(plugin: str, folders: Folders, **options: Any) -> dict[str, Any]:
    """Two steps on a small model."""
    chosen: dict[str, Any] = {"model": str(folders[0]), "steps": 2, "batch_size": 4}
    if plugin == "controlnet-canny":
        chosen["controlnet"] = str(folders[1])
    return chosen | {"prompt": "a photo of a smiling person"} | options


def build(plugin: str, folders: Folders, **options: Any) -> LatentAnonymizer:
    """A latent diffusion anonymizer on a small model."""
    spec = SPECS[plugin]
    made: LatentAnonymizer = spec.build(spec.config(**settings(plugin, folders, **options)))
    return made


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_contract(spec: PluginSpec, folders: dict[str, Folders]) -> None:
    """All promises that the kit knows: shape, range, seeds, order, companions, light import."""
    if spec.id in LATENT:
        spec = replace(spec, smoke=settings(spec.id, folders["tiny"]))
    assert not [found for found in check_plugin(spec) if found.broken]


@pytest.mark.parametrize("plugin", LATENT)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_one_batch_shape_gives_the_same_bits(
    plugin: str, guidance: float, folders: dict[str, Folders]
) -> None:
    """Alone, among others, in any order: an image's release is the same, bit for bit."""
    made = build(plugin, folders["tiny"], guidance_scale=guidance)
    pixels, seeds = sources(6), [11, 22, 33, 44, 55, 66]
    whole = run(made, pixels, seeds)
    order = [4, 2, 0, 5, 1, 3]
    assert torch.equal(run(made, pixels[order], [seeds[i] for i in order]), whole[order])
    for i in (0, 5):
        assert torch.equal(run(made, pixels[i : i + 1], seeds[i : i + 1]), whole[i : i + 1])
    assert torch.equal(
        run(build(plugin, folders["tiny"], guidance_scale=guidance), pixels, seeds), whole
    )


@pytest.mark.parametrize("plugin", LATENT)
def test_batch_sizes_agree_within_a_grey_level(plugin: str, folders: dict[str, Folders]) -> None:
    """Arithmetic differs between batch shapes, by less than one level of 255."""
    pixels, seeds = sources(5), list(range(5))
    one, three, eight = (
        run(build(plugin, folders["kl"], batch_size=size), pixels, seeds) for size in (1, 3, 8)
    )
    assert (one - eight).abs().max() <= GREY_LEVEL
    assert (three - eight).abs().max() <= GREY_LEVEL


@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler, EulerAncestralDiscreteScheduler], ids=lambda kind: kind.__name__
)
def test_noise_of_a_stochastic_scheduler_is_the_images_own(scheduler: Any, tmp_path: Path) -> None:
    """A scheduler that adds noise at every step takes it from the image's generator."""
    made = build("ldm-unconditional", tiny_models.save(tmp_path, scheduler=scheduler), steps=3)
    pixels, seeds = sources(4), [5, 6, 7, 8]
    whole = run(made, pixels, seeds)
    assert torch.equal(run(made, pixels[2:3], seeds[2:3]), whole[2:3])
    torch.manual_seed(99)
    assert torch.equal(run(made, pixels, seeds), whole)


@pytest.mark.parametrize("plugin", SPECS)
def test_seed_matters_exactly_when_tagged(plugin: str, folders: dict[str, Folders]) -> None:
    """Another seed gives another release if and only if the plugin is tagged stochastic."""
    spec = SPECS[plugin]
    made = build(plugin, folders["tiny"]) if plugin in LATENT else spec.build(spec.config())
    first, second = (run(made, sources(2), [seed, seed]) for seed in (1, 2**62))
    assert torch.equal(first, second) != spec.tags.stochastic


def test_seeds_must_be_one_per_image(folders: dict[str, Folders]) -> None:
    """A wrong number of seeds is refused rather than recycled."""
    with pytest.raises(ValueError, match="Expected 2 seeds"):
        run(build("ldm-unconditional", folders["tiny"]), sources(2), [1])


def test_out_of_memory_halves_the_batch_for_good(
    folders: dict[str, Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a batch does not fit, the work goes on with half of it, and it is remembered."""
    made = build("controlnet-canny", folders["tiny"], batch_size=8)
    pixels, seeds = sources(6), list(range(6))
    expected = run(made, pixels, seeds)
    tried: list[int] = []
    real = LatentAnonymizer._samples

    def cramped(self: LatentAnonymizer, *args: Any) -> torch.Tensor:
        tried.append(args[-1])
        if args[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args)

    monkeypatch.setattr(LatentAnonymizer, "_samples", cramped)
    assert (run(made, pixels, seeds) - expected).abs().max() <= GREY_LEVEL
    run(made, pixels[:2], seeds[:2])
    assert tried == [8, 4, 2, 2, 2, 2]
    assert made.batch_size == 2


def test_out_of_memory_at_one_image_is_explained(
    folders: dict[str, Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last resort is a message, not an endless loop."""

    def full(self: LatentAnonymizer, *args: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LatentAnonymizer, "_samples", full)
    with pytest.raises(ModelError, match="does not fit into the memory"):
        run(build("ldm-unconditional", folders["tiny"]), sources(1), [1])


def test_auto_dtype_depends_on_the_device() -> None:
    """float32 on a CPU, float16 on a GPU, and an explicit choice everywhere."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert resolve_dtype("auto", cpu) == resolve_dtype("float32", gpu) == torch.float32
    assert resolve_dtype("auto", gpu) == torch.float16
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16


@pytest.mark.parametrize("plugin", LATENT)
def test_bfloat16_stays_near_float32(plugin: str, folders: dict[str, Folders]) -> None:
    """Half precision changes the release only a little, and seeds keep their meaning."""
    pixels, seeds = sources(3), [1, 2, 3]
    full, half = (
        run(build(plugin, folders["tiny"], dtype=name), pixels, seeds)
        for name in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert (full - half).abs().mean() < 0.02


# --- the classical ones ------------------------------------------------------------------------


def test_none_is_the_identity() -> None:
    """`none` releases the source itself, in memory of its own."""
    pixels = sources(3)
    released = run(SPECS["none"].build(SPECS["none"].config()), pixels, [1, 2, 3])
    assert torch.equal(released, pixels)
    assert released.data_ptr() != pixels.data_ptr()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 15.0])
def test_blur_is_scipys(sigma: float) -> None:
    """Equal to `scipy.ndimage.gaussian_filter`, also where the kernel exceeds the image."""
    pixels = torch.rand(2, 3, 24, 31, generator=torch.Generator().manual_seed(1))
    expected = scipy.ndimage.gaussian_filter(
        pixels.double().numpy(), (0, 0, sigma, sigma), mode="mirror"
    )
    np.testing.assert_allclose(gaussian_blur(pixels, sigma), expected, atol=2e-6)


def test_blur_is_stated_at_a_resolution() -> None:
    """`sigma` grows with the image, so that 128 and 512 pixels lose the same detail."""
    spec, pixels = SPECS["gaussian-blur"], torch.rand(1, 3, 64, 64)
    scaled = run(spec.build(spec.config(sigma=4, resolution=128)), pixels, [0])
    assert torch.equal(scaled, gaussian_blur(pixels, 2.0).clamp(0, 1))
    own = run(spec.build(spec.config(sigma=4, resolution=0)), pixels, [0])
    assert torch.equal(own, gaussian_blur(pixels, 4.0).clamp(0, 1))


def test_pixelate_is_the_mean_of_each_cell() -> None:
    """Equal to a reshape and a mean in NumPy."""
    pixels = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(2))
    means = pixels.numpy().reshape(2, 3, 6, 4, 8, 4).mean((3, 5), keepdims=True)
    expected = np.broadcast_to(means, (2, 3, 6, 4, 8, 4)).reshape(2, 3, 24, 32)
    np.testing.assert_allclose(pixelate(pixels, 8), expected, atol=1e-6)


@pytest.mark.parametrize(("width", "cells"), [(10, 3), (7, 7), (5, 9), (6, 1)])
def test_pixelate_takes_any_size(width: int, cells: int) -> None:
    """Cells that do not divide the image: the last one is narrower, and a mean all the same."""
    pixels = torch.rand(1, 3, width, width)
    size = -(-width // cells)
    released = pixelate(pixels, cells)
    assert released.shape == pixels.shape
    for y in range(0, width, size):
        for x in range(0, width, size):
            cell = (..., slice(y, y + size), slice(x, x + size))
            mean = pixels[cell].mean((-1, -2), keepdim=True).expand_as(pixels[cell])
            torch.testing.assert_close(released[cell], mean)


# --- what the latent ones see ------------------------------------------------------------------


def test_unconditional_ignores_the_source(folders: dict[str, Folders]) -> None:
    """Two different sources, one seed: the same release, bit for bit."""
    made = build("ldm-unconditional", folders["tiny"])
    seeds = [3, 1, 4]
    other = run(made, sources(3, seed=1), seeds)
    assert torch.equal(run(made, sources(3), seeds), other)
    assert made.condition(batch(sources(3))) is None


def test_controlnet_follows_the_source(folders: dict[str, Folders]) -> None:
    """The edges change the release; at scale 0 nothing of the source is left."""
    seeds = [3, 1, 4]
    made = build("controlnet-canny", folders["tiny"])
    assert not torch.equal(
        quantize(run(made, sources(3), seeds)), quantize(run(made, sources(3, seed=1), seeds))
    )
    blind = build("controlnet-canny", folders["tiny"], conditioning_scale=0)
    free = build("ldm-unconditional", folders["tiny"])
    torch.testing.assert_close(
        run(blind, sources(3), seeds), run(free, sources(3), seeds), atol=1e-5, rtol=0
    )


def test_only_the_edges_are_seen(folders: dict[str, Folders]) -> None:
    """Two sources with one edge map have one release: no other pixel reaches the model."""
    made = build("controlnet-canny", folders["tiny"])
    pixels = quantize(sources(3) * 0.8).float() / 255
    shifted = pixels + 20 / 255  # a whole number of grey levels, so that no rounding differs
    assert np.array_equal(edges(pixels), edges(shifted))
    assert torch.equal(run(made, pixels, [1, 2, 3]), run(made, shifted, [1, 2, 3]))


@pytest.mark.parametrize(("low", "high"), [(30, 80), (100, 300)])
def test_condition_is_opencvs_canny(low: int, high: int, folders: dict[str, Folders]) -> None:
    """The condition is `cv2.Canny` of the blurred grey image, in three equal channels."""
    options = {"low_threshold": low, "high_threshold": high}
    made = build("controlnet-canny", folders["tiny"], **options)
    pixels = sources(3)
    seen = made.condition(batch(pixels))
    assert seen is not None
    assert seen.shape == (3, 3, SIDE, SIDE)
    expected = edges(pixels, low, high)
    assert expected.any()
    for channel in range(3):
        np.testing.assert_array_equal((seen[:, channel] * 255).byte().numpy(), expected)


def test_images_of_another_size_are_resized_and_back(folders: dict[str, Folders]) -> None:
    """The model works at its resolution; the release has the source's."""
    made = build("controlnet-canny", folders["tiny"], resolution=2 * SIDE)
    released = run(made, sources(2, side=50), [1, 2])
    seen = made.condition(batch(sources(2, side=50)))
    assert released.shape == (2, 3, 50, 50)
    assert seen is not None
    assert seen.shape[-1] == made.resolution == 2 * SIDE


# --- equality with the ordinary pipelines ------------------------------------------------------


def plain(
    folders: Folders, seeds: list[int], maps: Any = None, scheduler: Any = None, **options: Any
) -> torch.Tensor:
    """What an ordinary diffusers loop makes, one image at a time."""
    xl = "XL" in json.loads((folders[0] / "model_index.json").read_text())["_class_name"]
    parts: dict[str, Any] = {}
    if maps is not None:
        parts["controlnet"] = ControlNetModel.from_pretrained(folders[1], torch_dtype=torch.float32)
        kind = StableDiffusionXLControlNetPipeline if xl else StableDiffusionControlNetPipeline
    else:
        kind = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    pipe = kind.from_pretrained(folders[0], torch_dtype=torch.float32, **parts)
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    made = []
    for i, seed in enumerate(seeds):
        image = {} if maps is None else {"image": Image.fromarray(np.stack([maps[i]] * 3, -1))}
        made.append(
            pipe(
                "a photo of a smiling person",
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
                **image,
                **options,
            ).images
        )
    return torch.cat(made)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("kind", ["tiny", "kl", "xl"])
@pytest.mark.parametrize("plugin", LATENT)
def test_release_equals_the_plain_pipelines(
    plugin: str, kind: str, guidance: float, folders: dict[str, Folders]
) -> None:
    """Batched, with the condition embedded once: the numbers of the one-by-one loop."""
    seeds, pixels = [7, 8], sources(2)
    canny = plugin == "controlnet-canny"
    options: dict[str, Any] = {"controlnet_conditioning_scale": 0.7} if canny else {}
    expected = plain(
        folders[kind],
        seeds,
        edges(pixels) if canny else None,
        num_inference_steps=3,
        guidance_scale=guidance,
        negative_prompt="a person" if guidance > 1 else None,
        **options,
    )
    own = {"conditioning_scale": 0.7} if canny else {}
    made = build(
        plugin, folders[kind], steps=3, guidance_scale=guidance, negative_prompt="a person", **own
    )
    torch.testing.assert_close(run(made, pixels, seeds), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("ddim", DDIMScheduler),
        ("dpmpp", DPMSolverMultistepScheduler),
        ("unipc", UniPCMultistepScheduler),
        ("euler", EulerDiscreteScheduler),
    ],
)
def test_schedulers_are_those_of_diffusers(
    name: str, scheduler: Any, folders: dict[str, Folders]
) -> None:
    """Each name stands for its diffusers class, built from the model's settings."""
    made = build("ldm-unconditional", folders["tiny"], scheduler=name, steps=4, guidance_scale=1)
    expected = plain(
        folders["tiny"], [5], scheduler=scheduler, num_inference_steps=4, guidance_scale=1.0
    )
    torch.testing.assert_close(run(made, sources(1), [5]), expected, atol=2e-4, rtol=0)
    again = run(made, sources(1), [5])
    assert torch.equal(again, run(made, sources(1), [5])), "the scheduler kept state"


def test_bgr_controlnets_are_read_as_such(copy: Folders) -> None:
    """A ControlNet that flips channels gives what the ordinary pipeline gives."""
    edit(copy[1] / "config.json", controlnet_conditioning_channel_order="bgr")
    pixels = sources(1)
    expected = plain(copy, [1], edges(pixels), num_inference_steps=2, guidance_scale=1.0)
    made = build("controlnet-canny", copy, guidance_scale=1)
    torch.testing.assert_close(run(made, pixels, [1]), expected, atol=2e-4, rtol=0)


# --- finding models ----------------------------------------------------------------------------


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(plugin: str, folders: Folders, **options: Any) -> dict[str, str]:
    """The digest that goes into cache keys."""
    spec = SPECS[plugin]
    assert spec.weights
    return dict(spec.weights(spec.config(**settings(plugin, folders, **options))))


def test_weights_name_every_file_that_is_used(copy: Folders) -> None:
    """Configurations, vocabularies and weights; neither notes nor unused variants."""
    (copy[0] / "README.md").write_text("notes")
    for folder in (*copy, copy[0] / "unet"):
        (folder / "provenance.json").write_text("{}")
    shutil.copy(
        copy[1] / "diffusion_pytorch_model.safetensors",
        copy[1] / "diffusion_pytorch_model.fp16.safetensors",
    )
    found = weights("controlnet-canny", copy)
    expected = {f"model/{p.relative_to(copy[0])}" for p in copy[0].rglob("*") if p.is_file()}
    expected -= {"model/README.md", "model/provenance.json", "model/unet/provenance.json"}
    expected |= {"controlnet/config.json", "controlnet/diffusion_pytorch_model.safetensors"}
    assert set(found) == expected
    assert set(weights("ldm-unconditional", copy)) < expected


@pytest.mark.parametrize(
    "name",
    [
        "model/unet/diffusion_pytorch_model.safetensors",
        "model/text_encoder/model.safetensors",
        "model/tokenizer/tokenizer.json",
        "model/scheduler/scheduler_config.json",
        "controlnet/diffusion_pytorch_model.safetensors",
    ],
)
def test_weights_change_with_a_byte(name: str, copy: Folders) -> None:
    """One changed byte changes one hash, that of its file."""
    before = weights("controlnet-canny", copy)
    path = copy[0].parent / name
    data = bytearray(path.read_bytes())
    spot = -1 if path.suffix == ".safetensors" else data.index(b" ")
    data[spot] = data[spot] ^ 1 if path.suffix == ".safetensors" else ord("\t")
    path.write_bytes(data)
    after = weights("controlnet-canny", copy)
    assert {key for key in before if before[key] != after[key]} == {name}


def test_sharded_weights_load(folders: dict[str, Folders], tmp_path: Path) -> None:
    """Shards and their index are used, hashed and checked."""
    sharded = tiny_models.save(tmp_path, max_shard_size="20KB")
    shards = list((sharded[0] / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert f"model/unet/{shards[0].name}" in weights("controlnet-canny", sharded)
    pixels = sources(2)
    whole, parts = (
        run(build("controlnet-canny", f), pixels, [1, 2]) for f in (folders["tiny"], sharded)
    )
    assert torch.equal(whole, parts)
    shards[0].unlink()
    with pytest.raises(ModelError, match=f"{shards[0].name} is missing"):
        weights("controlnet-canny", sharded)


def test_variants_are_chosen_by_name(tmp_path: Path) -> None:
    """Weights of a variant need `variant`; the message lists what there is."""
    half = tiny_models.save(tmp_path, variant="fp16")
    with pytest.raises(ModelError, match=r"no weights of variant \(none\).*fp16"):
        weights("controlnet-canny", half)
    found = weights("controlnet-canny", half, variant="fp16")
    assert "model/unet/diffusion_pytorch_model.fp16.safetensors" in found
    assert run(build("controlnet-canny", half, variant="fp16"), sources(1), [1]).isfinite().all()


@contextmanager
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every connection fails the test."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection was tried: {args}")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def test_a_local_folder_needs_no_network(
    folders: dict[str, Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding, hashing, loading and sampling, all without a connection."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with no_network(monkeypatch):
        assert weights("controlnet-canny", folders["tiny"])
        run(build("controlnet-canny", folders["tiny"]), sources(1), [1])


def test_a_hub_id_is_fetched_without_pickles(
    folders: dict[str, Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only safetensors, configurations and vocabularies are asked for, at the revision."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def fake(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(folders["tiny"][0] if name == "someone/model" else folders["tiny"][1])

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    spec = SPECS["controlnet-canny"]
    config = spec.config(
        model="someone/model", revision="abc", controlnet="someone/canny", steps=1, batch_size=1
    )
    assert run(spec.build(config), sources(1), [1]).shape == (1, 3, SIDE, SIDE)
    assert [name for name, _ in asked] == ["someone/model", "someone/canny"]
    assert [options["revision"] for _, options in asked] == ["abc", None]
    for _, options in asked:
        kinds = {Path(pattern).suffix for pattern in options["allow_patterns"]}
        assert kinds == {".json", ".txt", ".model", ".safetensors"}


def test_an_unreachable_hub_is_explained() -> None:
    """Offline (as all tests are), the message tells to pass a local folder."""
    with pytest.raises(ModelError, match=r"someone/nothing.*local diffusers folder"):
        models.resolve("someone/nothing")


def truncate(path: Path) -> None:
    """Cut a file off in the middle, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop(path: Path) -> None:
    """Remove a folder."""
    shutil.rmtree(path)


def pickle_only(folder: Path) -> None:
    """Only .bin weights, as in old repositories."""
    weight = next(folder.glob("*.safetensors"))
    weight.rename(folder / "diffusion_pytorch_model.bin")


def swap_for_unet(model: Path, controlnet: Path) -> None:
    """A UNet where a ControlNet should be."""
    drop(controlnet)
    shutil.copytree(model / "unet", controlnet)


def lose_component(model: Path) -> None:
    """A model_index.json that does not name the autoencoder."""
    index = json.loads((model / "model_index.json").read_text())
    del index["vae"]
    (model / "model_index.json").write_text(json.dumps(index))


def wrong_tensor(path: Path) -> None:
    """Weights that do not fit their configuration."""
    tensors = load_file(path)
    name = next(k for k, v in tensors.items() if v.ndim == 4)
    tensors[name] = torch.zeros(1, 1, 1, 1)
    save_file(tensors, path)


FAULTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no folder": (lambda m, c: drop(m), "There is no model"),
    "no pipeline": (lambda m, c: (m / "model_index.json").unlink(), "has no model_index.json"),
    "no controlnet": (lambda m, c: (c / "config.json").unlink(), "has no config.json"),
    "vae folder": (lambda m, c: drop(m / "vae"), "lacks the component 'vae'"),
    "vae entry": (lambda m, c: lose_component(m), "lacks the component 'vae' in model_index"),
    "tokenizer": (lambda m, c: drop(m / "tokenizer"), "lacks the component 'tokenizer'"),
    "no weights": (
        lambda m, c: (m / "unet/diffusion_pytorch_model.safetensors").unlink(),
        "unet holds no safetensors weights",
    ),
    "truncated unet": (
        lambda m, c: truncate(m / "unet/diffusion_pytorch_model.safetensors"),
        "unet/diffusion_pytorch_model.safetensors is truncated",
    ),
    "truncated text encoder": (
        lambda m, c: truncate(m / "text_encoder/model.safetensors"),
        "text_encoder/model.safetensors is truncated",
    ),
    "truncated controlnet": (
        lambda m, c: truncate(c / "diffusion_pytorch_model.safetensors"),
        "diffusion_pytorch_model.safetensors is truncated",
    ),
    "empty weights": (
        lambda m, c: (m / "vae/diffusion_pytorch_model.safetensors").write_bytes(b""),
        "is truncated or is not a safetensors file",
    ),
    "damaged header": (
        lambda m, c: (m / "vae/diffusion_pytorch_model.safetensors").write_bytes(
            (4).to_bytes(8, "little") + b"oops"
        ),
        "header is damaged",
    ),
    "bad json": (
        lambda m, c: (m / "unet/config.json").write_text("{"),
        "unet/config.json cannot be read as JSON",
    ),
    "json list": (
        lambda m, c: (m / "unet/config.json").write_text("[]"),
        "must hold a JSON object",
    ),
    "pickle": (lambda m, c: pickle_only(m / "unet"), "only pickled weights"),
    "pickled controlnet": (lambda m, c: pickle_only(c), "only pickled weights"),
    "wrong architecture": (swap_for_unet, "expected ControlNetModel, got UNet2DConditionModel"),
    "wrong pipeline": (
        lambda m, c: edit(m / "model_index.json", _class_name="FluxPipeline"),
        "is a FluxPipeline",
    ),
    "wrong text encoder": (
        lambda m, c: edit(m / "model_index.json", text_encoder=["transformers", "T5EncoderModel"]),
        "expected CLIPTextModel.*got T5EncoderModel",
    ),
    "inpainting": (lambda m, c: edit(m / "unet/config.json", in_channels=9), "takes 9 channels"),
    "text width": (
        lambda m, c: edit(m / "unet/config.json", cross_attention_dim=768),
        "attends to 768 text features",
    ),
    "distilled": (lambda m, c: edit(m / "unet/config.json", time_cond_proj_dim=8), "distilled"),
    "controlnet channels": (
        lambda m, c: edit(c / "config.json", block_out_channels=[16, 32]),
        "does not fit the UNet.*block_out_channels",
    ),
    "controlnet text": (
        lambda m, c: edit(c / "config.json", cross_attention_dim=768),
        "does not fit the UNet.*cross_attention_dim is 768 in the ControlNet and 16",
    ),
    "controlnet factor": (
        lambda m, c: edit(c / "config.json", conditioning_embedding_out_channels=[4, 8]),
        "reduces its condition by 2",
    ),
    "controlnet pools": (
        lambda m, c: edit(c / "config.json", global_pool_conditions=True),
        "pools its condition",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_when_planned_and_when_built(fault: str, copy: Folders) -> None:
    """A damaged or unfit model is refused with its reason, already by `weights`."""
    damage, message = FAULTS[fault]
    damage(*copy)
    with pytest.raises(ModelError, match=message):
        weights("controlnet-canny", copy)
    with pytest.raises(ModelError, match=message):
        build("controlnet-canny", copy)


def test_weights_that_do_not_fit_their_configuration(copy: Folders) -> None:
    """What only loading can find is a ModelError too, and names the model."""
    wrong_tensor(copy[0] / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelError, match=f"{copy[0]} cannot be loaded"):
        build("ldm-unconditional", copy)


@pytest.mark.parametrize("plugin", LATENT)
def test_resolution_must_suit_the_autoencoder(plugin: str, folders: dict[str, Folders]) -> None:
    """The message names the factor and the neighbours."""
    for check in (weights, build):
        with pytest.raises(ModelError, match=r"divisible by 4.*Got 30; the nearest are 28 and 32"):
            check(plugin, folders["tiny"], resolution=30)


def test_a_pipeline_is_no_controlnet(folders: dict[str, Folders]) -> None:
    """The two folders are easily confused."""
    model = folders["tiny"][0]
    with pytest.raises(ModelError, match=r"whole pipeline. Expected a ControlNetModel"):
        build("controlnet-canny", (model, model))


def test_an_unknown_name_gets_suggestions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A misspelt embedded model is recognised."""
    (tmp_path / "tiny-faces").mkdir()
    (tmp_path / "tiny-faces" / "model_index.json").write_text("{}")
    monkeypatch.setattr(models, "ASSETS", tmp_path)
    with pytest.raises(ModelError, match="Did you mean tiny-faces"):
        models.resolve("tiny-face")
    assert models.resolve("tiny-faces") == tmp_path / "tiny-faces"


def test_only_safetensors_checkpoints_are_read(tmp_path: Path) -> None:
    """A .ckpt is refused unread; a .safetensors file must be a Stable Diffusion checkpoint."""
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"not a \.safetensors file"):
        weights("ldm-unconditional", (tmp_path / "model.ckpt", tmp_path))
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="not a Stable Diffusion checkpoint"):
        weights("ldm-unconditional", (tmp_path / "model.safetensors", tmp_path))
    truncate(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="truncated"):
        weights("ldm-unconditional", (tmp_path / "model.safetensors", tmp_path))


def test_single_file_checkpoints_load_from_beside_their_configurations(
    folders: dict[str, Folders], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An original-format checkpoint releases what its diffusers folder does, without the hub."""
    single_file.save(tiny_models.pipeline("kl"), tmp_path / "photo.safetensors")
    with pytest.raises(ModelError, match=r"needs the configurations.*Or put them into .*/photo/"):
        weights("ldm-unconditional", (tmp_path / "photo.safetensors", tmp_path))
    shutil.copytree(
        folders["kl"][0], tmp_path / "photo", ignore=shutil.ignore_patterns("*.safetensors")
    )
    parts = (tmp_path / "photo.safetensors", folders["kl"][1])
    found = weights("controlnet-canny", parts)
    assert {"model/photo.safetensors", "model/configs/unet/config.json"} < set(found)
    with no_network(monkeypatch):
        single = build("controlnet-canny", parts)
    pixels = sources(2)
    whole = run(build("controlnet-canny", folders["kl"]), pixels, [1, 2])
    torch.testing.assert_close(run(single, pixels, [1, 2]), whole, atol=1e-6, rtol=0)


def test_a_variant_that_only_some_components_have(tmp_path: Path) -> None:
    """A component without the variant is fetched again, plain."""
    controlnet = tiny_models.save(tmp_path)[1]
    asked: list[list[str]] = []

    def fake(name: str, **options: Any) -> str:
        asked.append(options["allow_patterns"])
        plain = any(fnmatch.fnmatch(WEIGHT, pattern) for pattern in options["allow_patterns"])
        folder = controlnet if plain else tmp_path / "bare"
        if not plain:
            shutil.copytree(controlnet, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        return str(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", fake)
        assert models.resolve("someone/canny", variant="fp16") == controlnet
    assert len(asked) == 2
    assert not any(fnmatch.fnmatch("v1-5-pruned.safetensors", p) for p in asked[1])


# --- configurations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugin", "options", "message"),
    [
        ("gaussian-blur", {"sigma": 0}, "greater than 0"),
        ("pixelate", {"cells": 0}, "greater than or equal to 1"),
        ("none", {"sigma": 1}, "Extra inputs"),
        ("controlnet-canny", {"steps": 0}, "greater than or equal to 1"),
        ("controlnet-canny", {"scheduler": "dpm"}, "'keep', 'ddim'"),
        ("controlnet-canny", {"dtype": "float64"}, "'auto', 'float32'"),
        ("controlnet-canny", {"batch_size": 0}, "greater than or equal to 1"),
        ("controlnet-canny", {"guidance_scale": -1}, "greater than or equal to 0"),
        ("controlnet-canny", {"resolution": -8}, "greater than or equal to 0"),
        (
            "controlnet-canny",
            {"low_threshold": 90, "high_threshold": 80},
            "low_threshold must not be above high_threshold; got 90 and 80",
        ),
        ("ldm-unconditional", {"controlnet": "x"}, "Extra inputs"),
    ],
)
def test_bad_settings_are_refused(plugin: str, options: dict[str, Any], message: str) -> None:
    """Unknown names and values out of range never reach a model."""
    with pytest.raises(ValidationError, match=message):
        SPECS[plugin].config(**options)


# --- the embedded model ------------------------------------------------------------------------


EMBEDDED = (models.ASSETS / "tiny-faces", models.ASSETS / "tiny-faces-canny")


@pytest.mark.parametrize("plugin", LATENT)
def test_defaults_are_the_embedded_model(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting: found, hashed, loaded without a connection, and of 128 pixels."""
    spec = SPECS[plugin]
    assert spec.weights
    config = spec.config(**spec.smoke)
    names = set(spec.weights(config))
    assert "model/unet/diffusion_pytorch_model.safetensors" in names
    assert any(name.startswith("controlnet/") for name in names) == (plugin == "controlnet-canny")
    assert not [name for name in names if "provenance" in name or name.endswith(".md")]
    with no_network(monkeypatch):
        made = spec.build(config)
    assert (made.resolution, made.batch_size) == (128, 2)


def test_embedded_release_equals_the_plain_pipelines() -> None:
    """The embedded model at its default guidance: the ordinary pipeline's numbers."""
    pixels, seeds = sources(2, side=128), [7, 8]
    guidance = ldm.ControlNetCannyConfig().guidance_scale
    maps = edges(pixels)
    expected = plain(EMBEDDED, seeds, maps, num_inference_steps=3, guidance_scale=guidance)
    made = build("controlnet-canny", EMBEDDED, steps=3)
    torch.testing.assert_close(run(made, pixels, seeds), expected, atol=1e-3, rtol=0)


def test_embedded_model_draws_from_edges_seed_and_prompt() -> None:
    """Each of the three changes the picture; the same three repeat it."""
    made = build("controlnet-canny", EMBEDDED, steps=4)
    pixels = sources(2, side=128)
    first = run(made, pixels, [1, 2])
    other_prompt = build(
        "controlnet-canny", EMBEDDED, steps=4, prompt="an older man with glasses and a beard"
    )
    for other in (
        run(made, sources(2, side=128, seed=1), [1, 2]),
        run(made, pixels, [3, 4]),
        run(other_prompt, pixels, [1, 2]),
    ):
        assert (other - first).abs().mean() > GREY_LEVEL
    assert torch.equal(run(made, pixels, [1, 2]), first)
    assert first.std() > 0.05
