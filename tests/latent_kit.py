"""What the tests of the latent diffusion family share: small folders, sources, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_models
from privbench.spec import PluginSpec
from privbench.types import ImageBatch
from privbench_plugins.anonymizers import controlnets, ldm, ldm_sources
from privbench_plugins.anonymizers._ldm.anonymizer import LatentAnonymizer

SIDE = tiny_models.RESOLUTION
PROMPT = "a photo of a smiling person"
SPECS: dict[str, PluginSpec] = {
    spec.id: spec for spec in (*controlnets.SPECS, *ldm.SPECS, *ldm_sources.SPECS)
}
NEW = tuple(name for name in SPECS if name not in ("controlnet-canny", "ldm-unconditional"))

_NETWORKS = {
    "controlnet-canny": {"controlnet": "canny"},
    "controlnet-depth": {"controlnet": "depth"},
    "controlnet-softedge": {"controlnet": "softedge"},
    "controlnet-landmarks": {"controlnet": "landmarks"},
    "controlnet-canny-depth": {"canny_controlnet": "canny", "depth_controlnet": "depth"},
    "controlnet-depth-softedge": {"depth_controlnet": "depth", "softedge_controlnet": "softedge"},
    "t2i-canny": {"adapter": "t2i"},
}


def settings(plugin: str, root: Path, **options: Any) -> dict[str, Any]:
    """Three steps on the small model in `root`, as `tiny_models.save_family` wrote it."""
    networks = {name: str(root / part) for name, part in _NETWORKS.get(plugin, {}).items()}
    prompt = {} if plugin == "ldm-caption" else {"prompt": PROMPT}
    return {"model": str(root / "model"), "steps": 3, "batch_size": 4} | networks | prompt | options


def build(plugin: str, root: Path, **options: Any) -> LatentAnonymizer:
    """An anonymizer on the small model in `root`."""
    spec = SPECS[plugin]
    made: LatentAnonymizer = spec.build(spec.config(**settings(plugin, root, **options)))
    return made


def weights(plugin: str, root: Path, **options: Any) -> dict[str, str]:
    """The digest that goes into cache keys."""
    spec = SPECS[plugin]
    assert spec.weights
    return dict(spec.weights(spec.config(**settings(plugin, root, **options))))


def sources(n: int = 2, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    """(n, 3, side, side) blotches with edges between them, of whole grey levels."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (n, 3, 4, 4), generator=generator).float() / 255
    return torch.nn.functional.interpolate(blocks, (side, side), mode="nearest")


def batch(pixels: torch.Tensor) -> ImageBatch:
    """Images whose subjects are withheld."""
    n = len(pixels)
    return ImageBatch(pixels, np.full(n, -1), tuple(str(i) for i in range(n)))


def run(made: LatentAnonymizer, pixels: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """The release of some images."""
    return made.anonymize(batch(pixels), seeds)


def array(pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    """(N, 3, H, W) in [0, 1] to (N, H, W, 3) uint8."""
    return pixels.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
