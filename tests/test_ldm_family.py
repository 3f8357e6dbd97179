"""The latent diffusion family: its contract, and its numbers beside the diffusers pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import latent_kit as kit
import tiny_models
from privbench.testing import check_plugin
from privbench_plugins import geometry
from privbench_plugins.anonymizers._ldm import assemble
from privbench_plugins.anonymizers._ldm.pixels import fill
from privbench_plugins.conditions import canny, draw_landmarks, soft_edges
from privbench_plugins.regions import face_mask

SIDE = kit.SIDE
CLOSE = {"atol": 2e-4, "rtol": 0.0}
SEEDS = [7, 8]
POINTS = np.float32([[12, 12], [20, 12], [16, 16], [13, 20], [19, 20]])

Roots = dict[str, Path]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small only lose by a second thread, and by blocks of 64 faces."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "_BATCH", 4)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Small families: SD 1.5-like with either autoencoder, inpainting, and SDXL-like."""
    root = tmp_path_factory.mktemp("family")
    nine = {"in_channels": 9}
    return {
        "tiny": tiny_models.save_family(root / "tiny"),
        "kl": tiny_models.save_family(root / "kl", "kl"),
        "xl": tiny_models.save_family(root / "xl", xl=True),
        "inpaint": tiny_models.save_family(root / "inpaint", changes=nine),
        "inpaint-kl": tiny_models.save_family(root / "inpaint-kl", "kl", changes=nine),
    }


def pipe(kind: str, root: Path, **parts: Any) -> Any:
    """An ordinary diffusers pipeline on the small model in `root`."""
    made = getattr(diffusers, kind).from_pretrained(
        root / "model", torch_dtype=torch.float32, **parts
    )
    made.set_progress_bar_config(disable=True)
    return made


def plain(made: Any, each: Callable[[int], dict[str, Any]], **options: Any) -> torch.Tensor:
    """What a pipeline makes, one image at a time; `each` has the arguments of image i."""
    images = []
    for i, seed in enumerate(SEEDS):
        given = {"prompt": kit.PROMPT} | options | each(i)
        generator = torch.Generator().manual_seed(seed)
        found = made(generator=generator, output_type="np", **given).images
        images.append(torch.from_numpy(found).permute(0, 3, 1, 2))
    return torch.cat(images)


def picture(grey: np.ndarray[Any, Any]) -> Image.Image:
    """A map in three equal channels."""
    return Image.fromarray(np.stack([grey] * 3, -1))


# --- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", kit.NEW)
def test_contract(plugin: str, roots: Roots) -> None:
    """All promises that the kit knows: shape, range, seeds, order, companions, light import."""
    spec = replace(kit.SPECS[plugin], smoke=kit.settings(plugin, roots["tiny"], steps=2))
    assert not [found for found in check_plugin(spec) if found.broken]


@pytest.mark.parametrize("family", ["tiny", "xl"])
@pytest.mark.parametrize("plugin", kit.NEW)
def test_an_image_alone_has_the_same_bits(plugin: str, family: str, roots: Roots) -> None:
    """Padded alone or among others, in another order, under guidance: bit for bit the same."""
    made = kit.build(plugin, roots[family], steps=2, guidance_scale=3.0)
    pixels, seeds = kit.sources(5, side=40), [11, 22, 33, 44, 55]
    whole = kit.run(made, pixels, seeds)
    assert torch.equal(kit.run(made, pixels[3:4], seeds[3:4]), whole[3:4])
    order = [4, 1, 3, 0, 2]
    assert torch.equal(kit.run(made, pixels[order], [seeds[i] for i in order]), whole[order])


@pytest.mark.parametrize("plugin", kit.NEW)
def test_the_prompt_matters(plugin: str, roots: Roots) -> None:
    """Every one of them takes a prompt, and paints something else for another."""
    fill_in = "{caption}, " if plugin == "ldm-caption" else ""
    first, second = (
        kit.run(kit.build(plugin, roots["tiny"], prompt=prompt), kit.sources(), SEEDS)
        for prompt in (f"{fill_in}a photo", f"a person smiling {fill_in}")
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("plugin", kit.NEW)
def test_bfloat16_stays_near_float32(plugin: str, roots: Roots) -> None:
    """Half precision changes the release only a little."""
    full, half = (
        kit.run(kit.build(plugin, roots["tiny"], dtype=name), kit.sources(), SEEDS)
        for name in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert (full - half).abs().mean() < 0.02


# --- conditions --------------------------------------------------------------------------------


def maps(plugin: str, pixels: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """The maps that a plugin's name promises, from the shared estimators."""
    images = kit.array(pixels)
    estimator = geometry.load_geometry()
    known = {
        "depth": estimator.depth,
        "softedge": soft_edges,
        "canny": canny,
        "landmarks": lambda x: draw_landmarks(estimator.landmarks(x), *x.shape[1:3]),
    }
    return [known[name](images) for name in plugin.split("-")[1:]]


CONDITIONED = tuple(p for p in kit.NEW if p.startswith(("controlnet", "t2i")))


@pytest.mark.parametrize("plugin", CONDITIONED)
def test_condition_is_the_named_map(plugin: str, roots: Roots) -> None:
    """What the model sees is the estimator's map; of two maps, the lighter at each place."""
    pixels = kit.sources()
    seen = kit.build(plugin, roots["tiny"]).condition(kit.batch(pixels))
    assert seen is not None
    expected = np.maximum.reduce(maps(plugin, pixels))
    assert expected.any()
    for channel in range(3):
        np.testing.assert_array_equal((seen[:, channel] * 255).byte().numpy(), expected)


@pytest.mark.parametrize("plugin", CONDITIONED)
def test_scale_zero_ignores_the_source(plugin: str, roots: Roots) -> None:
    """At scale 0 the release is the unconditional one; at the default it is not."""
    fields = kit.SPECS[plugin].config.model_fields
    scales = [f for f in fields if f.endswith("_scale") and f != "guidance_scale"]
    pixels = kit.sources()
    free = kit.run(kit.build("ldm-unconditional", roots["tiny"]), pixels, SEEDS)
    blind = kit.build(plugin, roots["tiny"], **dict.fromkeys(scales, 0.0))
    torch.testing.assert_close(kit.run(blind, pixels, SEEDS), free, atol=1e-5, rtol=0)
    seeing = kit.run(kit.build(plugin, roots["tiny"]), pixels, SEEDS)
    assert (seeing - free).abs().max() > 1e-3


# --- equality with the ordinary pipelines ------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("family", ["kl", "xl"])
@pytest.mark.parametrize("plugin", ["controlnet-canny-depth", "controlnet-depth-softedge"])
def test_two_controlnets(plugin: str, family: str, guidance: float, roots: Roots) -> None:
    """The pipelines with a list of ControlNets, each with its scale."""
    root, pixels = roots[family], kit.sources()
    first, second = plugin.split("-")[1:]
    networks = [diffusers.ControlNetModel.from_pretrained(root / n) for n in (first, second)]
    kind = "StableDiffusionXLControlNetPipeline" if family == "xl" else ""
    both = maps(plugin, pixels)
    expected = plain(
        pipe(kind or "StableDiffusionControlNetPipeline", root, controlnet=networks),
        lambda i: {"image": [picture(both[0][i]), picture(both[1][i])]},
        num_inference_steps=3,
        guidance_scale=guidance,
        controlnet_conditioning_scale=[0.7, 0.1],
    )
    scales = {f"{first}_scale": 0.7, f"{second}_scale": 0.1}
    made = kit.build(plugin, root, guidance_scale=guidance, **scales)
    torch.testing.assert_close(kit.run(made, pixels, SEEDS), expected, **CLOSE)


def test_instance_augmentation_is_the_default() -> None:
    """Depth at 0.7 and soft edges at 0.1 (Kupyn and Rupprecht's public configuration)."""
    config = kit.SPECS["controlnet-depth-softedge"].config()
    assert (config.depth_scale, config.softedge_scale) == (0.7, 0.1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("family", ["tiny", "xl"])
def test_t2i_adapter(family: str, guidance: float, roots: Roots) -> None:
    """The adapter pipelines of SD 1.5 (full_adapter) and SDXL (full_adapter_xl)."""
    root, pixels = roots[family], kit.sources()
    adapter = diffusers.T2IAdapter.from_pretrained(root / "t2i")
    edges = maps("t2i-canny", pixels)[0]
    kind = (
        "StableDiffusionXLAdapterPipeline" if family == "xl" else "StableDiffusionAdapterPipeline"
    )
    expected = plain(
        pipe(kind, root, adapter=adapter),
        lambda i: {"image": picture(edges[i])},
        num_inference_steps=3,
        guidance_scale=guidance,
        adapter_conditioning_scale=0.8,
        height=SIDE,
        width=SIDE,
    )
    made = kit.build("t2i-canny", root, guidance_scale=guidance, adapter_scale=0.8)
    torch.testing.assert_close(kit.run(made, pixels, SEEDS), expected, **CLOSE)


def test_light_adapter_of_one_channel(tmp_path: Path) -> None:
    """A light_adapter that takes a single channel; it makes one feature more than it has widths."""
    levels = {
        "block_out_channels": (8, 16, 16),
        "down_block_types": (*["CrossAttnDownBlock2D"] * 2, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 2),
    }
    root, pixels = tmp_path, kit.sources()
    tiny_models.pipeline(**levels).save_pretrained(root / "model")
    net = tiny_models.unet(**levels)
    light = tiny_models.adapter(net, "light_adapter", in_channels=1, channels=[8, 16])
    light.save_pretrained(root / "t2i")
    edges = maps("t2i-canny", pixels)[0]
    expected = plain(
        pipe("StableDiffusionAdapterPipeline", root, adapter=light),
        lambda i: {"image": Image.fromarray(edges[i])},
        num_inference_steps=3,
        guidance_scale=1.0,
        height=SIDE,
        width=SIDE,
    )
    made = kit.build("t2i-canny", root)
    torch.testing.assert_close(kit.run(made, pixels, SEEDS), expected, **CLOSE)


def mode(root: Path, pixels: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) latents by the autoencoder's own class, without its noise."""
    kind = "AutoencoderKL" if "kl" in root.name else "AutoencoderTiny"
    vae = getattr(diffusers, kind).from_pretrained(root / "model" / "vae")
    with torch.no_grad():
        made = vae.encode(pixels * 2 - 1)
    latents = made.latent_dist.mode() if kind == "AutoencoderKL" else made.latents
    return vae.config.scaling_factor * latents  # type: ignore[no-any-return]


@pytest.mark.parametrize("scheduler", ["keep", "dpmpp", "unipc", "euler"])
@pytest.mark.parametrize("family", ["tiny", "kl"])
def test_img2img(family: str, scheduler: str, roots: Roots) -> None:
    """StableDiffusionImg2ImgPipeline with the latents' mode, at every scheduler."""
    root, pixels = roots[family], kit.sources()
    latents = mode(root, pixels)
    made = kit.build(
        "ldm-img2img", root, steps=5, strength=0.7, guidance_scale=3, scheduler=scheduler
    )
    other = pipe("StableDiffusionImg2ImgPipeline", root)
    kinds = {
        "keep": diffusers.DDIMScheduler,
        "dpmpp": diffusers.DPMSolverMultistepScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
    }
    other.scheduler = kinds[scheduler].from_config(other.scheduler.config)
    expected = plain(
        other,
        lambda i: {"image": latents[i : i + 1]},
        num_inference_steps=5,
        strength=0.7,
        guidance_scale=3.0,
    )
    released = kit.run(made, pixels, SEEDS)
    torch.testing.assert_close(released, expected, **CLOSE)
    assert torch.equal(kit.run(made, pixels, SEEDS), released), "the scheduler kept state"


def test_img2img_of_sdxl(roots: Roots) -> None:
    """StableDiffusionXLImg2ImgPipeline, from pixels: AutoencoderTiny has no noise."""
    root, pixels = roots["xl"], kit.sources()
    expected = plain(
        pipe("StableDiffusionXLImg2ImgPipeline", root),
        lambda i: {"image": pixels[i : i + 1]},
        num_inference_steps=5,
        strength=0.6,
        guidance_scale=1.0,
    )
    made = kit.build("ldm-img2img", root, steps=5, strength=0.6)
    torch.testing.assert_close(kit.run(made, pixels, SEEDS), expected, **CLOSE)


def test_img2img_runs_from_source_to_sample(roots: Roots) -> None:
    """At full strength and zero terminal SNR nothing of the source is left; less keeps more."""
    pixels, other = kit.sources(), kit.sources(seed=1)
    full = kit.build("ldm-img2img", roots["tiny"], strength=1.0)
    free = kit.run(kit.build("ldm-unconditional", roots["tiny"]), pixels, SEEDS)
    torch.testing.assert_close(kit.run(full, pixels, SEEDS), free, atol=1e-5, rtol=0)
    gaps = []
    for strength in (0.2, 0.6):
        made = kit.build("ldm-img2img", roots["tiny"], steps=10, strength=strength)
        gaps.append((kit.run(made, pixels, SEEDS) - kit.run(made, other, SEEDS)).abs().mean())
    assert gaps[0] > gaps[1] > 0


def block(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A region of whole latents: rows 8 to 24 and columns 12 to 28 of 32 pixels."""
    found = np.zeros(images.shape[:3], np.float32)
    found[:, 8:24, 12:28] = 1
    return found


def fixed_face(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The ellipse of landmarks that do not depend on the image."""
    side = images.shape[1]
    points = np.stack([POINTS * side / SIDE] * len(images)).astype(np.float32)
    return face_mask(points, side, images.shape[2], feather=0)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("family", ["inpaint", "inpaint-kl"])
def test_inpainting_unet(
    family: str, guidance: float, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StableDiffusionInpaintPipeline with a UNet of nine channels, inside the hidden region."""
    monkeypatch.setattr(assemble, "face_regions", lambda: block)
    root, pixels = roots[family], kit.sources()
    hidden = torch.from_numpy(block(kit.array(pixels)))[:, None] > 0
    grey = torch.where(hidden, 0.5, pixels)
    latents = mode(root, grey)
    expected = plain(
        pipe("StableDiffusionInpaintPipeline", root),
        lambda i: {
            "image": pixels[i : i + 1],
            "mask_image": hidden[i : i + 1].float(),
            "masked_image_latents": latents[i : i + 1],
        },
        num_inference_steps=3,
        guidance_scale=guidance,
        height=SIDE,
        width=SIDE,
    )
    made = kit.build("ldm-inpaint", root, guidance_scale=guidance, dilate=0, feather=0)
    released = kit.run(made, pixels, SEEDS)
    inside = hidden.expand_as(pixels)
    torch.testing.assert_close(released[inside], expected[inside], **CLOSE)
    assert torch.equal(released[~inside], pixels[~inside])


@pytest.mark.parametrize("scheduler", [None, diffusers.EulerDiscreteScheduler])
def test_inpainting_by_replacement(
    scheduler: Any, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pipeline with an ordinary UNet, given a source whose face is filled in."""
    monkeypatch.setattr(assemble, "face_regions", lambda: block)
    root, pixels = roots["tiny"], kit.sources()
    hidden = torch.from_numpy(block(kit.array(pixels)))[:, None] > 0
    filled = fill(pixels, hidden)
    other = pipe("StableDiffusionInpaintPipeline", root)
    if scheduler is not None:
        other.scheduler = scheduler.from_config(other.scheduler.config)
    expected = plain(
        other,
        lambda i: {"image": filled[i : i + 1], "mask_image": hidden[i : i + 1].float()},
        num_inference_steps=4,
        guidance_scale=2.0,
        height=SIDE,
        width=SIDE,
    )
    name = "keep" if scheduler is None else "euler"
    made = kit.build(
        "ldm-inpaint", root, steps=4, guidance_scale=2, feather=0, dilate=0, scheduler=name
    )
    inside = hidden.expand_as(pixels)
    released = kit.run(made, pixels, SEEDS)
    torch.testing.assert_close(released[inside], expected[inside], **CLOSE)


def test_instance_augmentation_repaints_the_face(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StableDiffusionControlNetInpaintPipeline: two ControlNets beside an inpainting UNet."""
    monkeypatch.setattr(assemble, "face_regions", lambda: block)
    root, pixels = roots["inpaint"], kit.sources()
    names = ("depth", "softedge")
    networks = [diffusers.ControlNetModel.from_pretrained(root / n) for n in names]
    both = maps("controlnet-depth-softedge", pixels)
    hidden = torch.from_numpy(block(kit.array(pixels)))[:, None] > 0
    expected = plain(
        pipe("StableDiffusionControlNetInpaintPipeline", root, controlnet=networks),
        lambda i: {
            "image": pixels[i : i + 1],
            "mask_image": hidden[i : i + 1].float(),
            "control_image": [picture(both[0][i]), picture(both[1][i])],
        },
        num_inference_steps=3,
        guidance_scale=1.0,
        controlnet_conditioning_scale=[0.7, 0.1],
        strength=1.0,
    )
    made = kit.build("controlnet-depth-softedge", root, repaint="face", dilate=0, feather=0)
    inside = hidden.expand_as(pixels)
    released = kit.run(made, pixels, SEEDS)
    torch.testing.assert_close(released[inside], expected[inside], **CLOSE)
    assert torch.equal(released[~inside], pixels[~inside])


@pytest.mark.parametrize("family", ["kl", "xl"])
def test_captions_are_prompts(family: str, roots: Roots) -> None:
    """Each image's release is the ordinary pipeline's for that image's own caption."""
    root, pixels = roots[family], kit.sources(side=SIDE)

    class Words:
        """Stands in for a captioner: what matters here is that each image has its own text."""

        def captions(self, images: np.ndarray[Any, Any]) -> list[str]:
            return ["a person" if image.mean() < 127 else "smiling" for image in images]

        def to(self, device: torch.device) -> Words:
            return self

    pixels = torch.stack([pixels[0] * 0.3, 1 - pixels[1] * 0.3])
    xl = family == "xl"
    texts = ["a photo of a person", "a photo of smiling"]
    expected = plain(
        pipe("StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline", root),
        lambda i: {"prompt": texts[i]},
        num_inference_steps=3,
        guidance_scale=3.0,
        negative_prompt="a",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "EmbeddedCaptioner", lambda network: Words())
        made = kit.build(
            "ldm-caption",
            root,
            prompt="a photo of {caption}",
            guidance_scale=3,
            negative_prompt="a",
        )
    torch.testing.assert_close(kit.run(made, pixels, SEEDS), expected, **CLOSE)


# --- what reaches the release ------------------------------------------------------------------


@pytest.mark.parametrize("side", [SIDE, 50, 20])
@pytest.mark.parametrize("family", ["tiny", "kl", "inpaint", "inpaint-kl"])
def test_no_hidden_pixel_matters(
    family: str, side: int, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other pixels under the mask, same landmarks: the same release, bit for bit, at any size."""
    monkeypatch.setattr(assemble, "face_regions", lambda: fixed_face)
    made = kit.build("ldm-inpaint", roots[family])
    pixels = kit.sources(side=side)
    hidden = torch.from_numpy(fixed_face(kit.array(pixels)))[:, None] > 0.5
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(3))
    other = torch.where(hidden, noise, pixels)
    assert not torch.equal(other, pixels)
    assert torch.equal(kit.run(made, other, SEEDS), kit.run(made, pixels, SEEDS))
    outside = torch.where(hidden, pixels, noise)
    assert not torch.equal(kit.run(made, outside, SEEDS), kit.run(made, pixels, SEEDS))


def test_the_background_is_kept_beyond_the_seam(
    roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden and seam grow by `dilate` and `feather`; every pixel beyond is the source's."""
    monkeypatch.setattr(assemble, "face_regions", lambda: fixed_face)
    pixels = kit.sources(side=100)
    kept = []
    for dilate, feather in ((0.0, 0.02), (0.0, 0.1), (0.1, 0.02)):
        made = kit.build("ldm-inpaint", roots["tiny"], dilate=dilate, feather=feather)
        released = kit.run(made, pixels, SEEDS)
        same = (released == pixels).all(1)
        face = torch.from_numpy(fixed_face(kit.array(pixels))) > 0.5
        rows, columns = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
        spots = face[0].nonzero().float()
        places = torch.stack([rows, columns], -1).reshape(-1, 2).float()
        away = torch.cdist(places, spots).amin(1).reshape(100, 100)
        # cv2's distances are within 2 % of the true ones.
        assert same[:, away > 1.02 * (dilate + feather) * 100 + 1].all()
        assert not same[:, away == 0].any()
        kept.append(int(same.sum()))
    assert kept[0] > kept[1]
    assert kept[0] > kept[2]


def test_fill_continues_what_is_visible() -> None:
    """Visible pixels stay, hidden ones lie between them, and none of their values is read."""
    pixels = kit.sources(1, side=45)[..., :37]
    hidden = torch.zeros(1, 1, 45, 37, dtype=torch.bool)
    hidden[:, :, 10:30, 5:25] = True
    filled = fill(pixels, hidden)
    assert torch.equal(filled[~hidden.expand_as(filled)], pixels[~hidden.expand_as(pixels)])
    assert torch.equal(filled, fill(torch.where(hidden, torch.nan, pixels), hidden))
    flat = fill(torch.where(hidden, 9.0, torch.full_like(pixels, 0.25)), hidden)
    torch.testing.assert_close(flat, torch.full_like(pixels, 0.25))
    assert torch.equal(fill(pixels, torch.ones_like(hidden)), torch.zeros_like(pixels))


def test_a_caption_is_all_that_is_seen(roots: Roots) -> None:
    """Two sources with one caption have one release, bit for bit."""
    made = kit.build("ldm-caption", roots["tiny"])
    pixels = kit.sources(1)
    nearly = (pixels + 1 / 255).clamp(0, 1)
    guide = made._guide
    assert guide.prompts(pixels) == guide.prompts(nearly)  # type: ignore[attr-defined]
    assert torch.equal(kit.run(made, pixels, [3]), kit.run(made, nearly, [3]))
    assert made.condition(kit.batch(pixels)) is None
