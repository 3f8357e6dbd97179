"""Watermarks change what they say and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

import privbench_plugins
from privbench.spec import PluginSpec
from privbench.testing import check_plugin
from privbench.types import Anonymizer, ImageBatch, quantize
from privbench_plugins.anonymizers import watermarks
from privbench_plugins.anonymizers._watermarks import logo, overlay

ASSETS = Path(privbench_plugins.__file__).parent / "assets"
SHAPES = [(128, 128), (96, 64), (37, 50), (1, 1)]

pytestmark = pytest.mark.usefixtures("one_thread")


def photos(shape: tuple[int, int] = (128, 128), n: int = 3) -> torch.Tensor:
    """(n, 3, H, W) 8-bit noise as floats, darkest and brightest values among it."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, *shape), generator=generator)
    pixels[0], pixels[-1] = 0, 255
    return pixels / 255


def run(plugin: Anonymizer, pixels: torch.Tensor) -> torch.Tensor:
    """What is released, in 8 bits."""
    n = len(pixels)
    batch = ImageBatch(pixels, np.full(n, -1), tuple(map(str, range(n))))
    return quantize(plugin.anonymize(batch, list(range(n)))).int()


@pytest.mark.parametrize("spec", watermarks.SPECS, ids=lambda spec: spec.id)
def test_contract(spec: PluginSpec) -> None:
    """All promises that the kit knows."""
    released = {"source_hidden": "the photo with an overlay of 1 %: what it is a diagnostic of"}
    expected = released if spec.id == "watermark-hidden" else {}
    found = check_plugin(spec, expected_failures=expected)
    assert not [finding for finding in found if finding.broken]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.2, 0.5])
def test_the_visible_mark_is_in_the_corner(shape: tuple[int, int], size: float) -> None:
    """Top right and opaque; not a pixel elsewhere changes."""
    pixels = photos(shape)
    released = run(watermarks.build_visible(watermarks.VisibleConfig(size=size)), pixels)
    side = max(1, round(size * min(shape)))
    corner = (slice(None), slice(None), slice(0, side), slice(shape[1] - side, None))
    outside = torch.ones_like(released, dtype=torch.bool)
    outside[corner] = False
    assert torch.equal(released[outside], quantize(pixels).int()[outside])
    assert torch.equal(released[corner], quantize(logo(side)).int().expand(len(pixels), -1, -1, -1))


def test_the_visible_mark_shows() -> None:
    """White on red at the default size, the same way round at every size."""
    mark = logo(26)
    white = (mark == 1).all(dim=0).float()
    assert 0.2 < white.mean() < 0.6
    assert torch.equal(white, white.flip(1))
    assert (mark[0] > mark[1] + 0.5).float().mean() > 0.3
    larger = torch.nn.functional.avg_pool2d(logo(104), 4)
    assert (larger - mark).abs().mean() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_the_hidden_mark_moves_no_pixel_by_more_than_a_hundredth(shape: tuple[int, int]) -> None:
    """1 % of the range is 2.55 grey levels, so 3 after rounding."""
    pixels = photos(shape)
    released = run(watermarks.build_hidden(watermarks.HiddenConfig()), pixels)
    assert (released - quantize(pixels).int()).abs().max() <= 3


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_the_hidden_mark_survives_8_bits(shape: tuple[int, int]) -> None:
    """At every grey level, cells of 1 end 2 or 3 levels above cells of 0."""
    levels = (torch.arange(256) / 255)[:, None, None, None].expand(-1, 3, *shape)
    released = run(watermarks.build_hidden(watermarks.HiddenConfig()), levels)
    pattern = overlay(0, 8, *shape).bool()
    high, low = released[:, pattern], released[:, ~pattern]
    assert torch.equal(high.amin(1), high.amax(1))
    assert set((high[:, 0] - low[:, 0]).tolist()) == {2, 3}


def test_the_hidden_mark_follows_from_its_key() -> None:
    """Same key, same pattern, whatever the global random state; another key, another one."""
    torch.manual_seed(1)
    first = overlay(5, 8, 64, 64)
    torch.manual_seed(2)
    assert torch.equal(overlay(5, 8, 64, 64), first)
    other = overlay(6, 8, 64, 64)
    assert 0.4 < (first != other).float().mean() < 0.6
    assert 0.4 < first.mean() < 0.6


def test_the_hidden_mark_is_the_same_at_every_size() -> None:
    """A photo of twice the size has the pattern of twice the size."""
    small = overlay(0, 8, 64, 64)
    large = overlay(0, 8, 128, 128)
    assert torch.equal(large, small.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_the_hidden_mark_can_be_found_by_who_knows_it() -> None:
    """On 300 photos of noise the mean correlation with the pattern stands out."""
    pixels = torch.rand(300, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = quantize(pixels) / 255
    released = run(watermarks.build_hidden(watermarks.HiddenConfig(key=3)), pixels) / 255
    pattern = overlay(3, 8, 64, 64)
    centred = pattern - pattern.mean()

    def score(images: torch.Tensor) -> float:
        each = (images * centred).mean(dim=(1, 2, 3))
        return float(each.mean() / (each.std() / len(each) ** 0.5))

    assert score(released) > 10
    assert abs(score(pixels)) < 4


def test_the_hidden_mark_passes_the_embedded_autoencoder() -> None:
    """Over half of its amplitude is left in photos of the shipped data; a fine pattern is lost."""
    (file,) = ASSETS.glob("synthfaces/campus-a-00.parquet")
    shots = pq.read_table(file, columns=["image"]).slice(0, 6).column("image").to_pylist()
    faces = [np.array(Image.open(io.BytesIO(shot["bytes"])).convert("RGB")) for shot in shots]
    pixels = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2) / 255
    vae = AutoencoderTiny.from_pretrained(ASSETS / "tiny-faces" / "vae").eval()

    def decoded(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return vae(2 * images - 1).sample / 2

    plain = decoded(pixels)

    def kept(cells: int) -> float:
        config = watermarks.HiddenConfig(cells=cells)
        pattern = overlay(config.key, cells, *pixels.shape[-2:])
        centred = pattern - pattern.mean(dim=(1, 2), keepdim=True)
        marked = run(watermarks.build_hidden(config), pixels) / 255
        left = decoded(marked) - plain
        return float((left * centred).mean() / ((marked - pixels) * centred).mean())

    assert kept(watermarks.HiddenConfig().cells) > 0.6
    assert kept(32) < 0.3
