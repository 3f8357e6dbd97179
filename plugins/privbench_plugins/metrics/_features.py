"""Frozen features of images, for distances between sets and for attribute classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.errors import ConfigError, ModelError
from privbench.types import Floats
from privbench_plugins.models import resolve
from privbench_plugins.tiny_encoder import net

EMBEDDED = "tiny-encoder"
BATCH = 64
THUMBNAIL = 8  # pixels per side: 192 numbers of colour and layout, which the encoder ignores

Extract = Callable[[Tensor], list[Floats]]
"""(N, 3, H, W) uint8 to one (N, D) array per layer."""


def extractor(name: str, layers: Sequence[str], side: int, revision: str = "") -> Extract:
    """Features of `tiny-encoder`, or the pooled output of a `transformers` vision model.

    Args:
        name: `tiny-encoder`, or a folder or hub id of a vision model with `pooler_output`.
        layers: of `tiny-encoder`: `thumbnail` (mean colours of 8 x 8 squares), `stage-1`,
            `stage-2`, `stage-3` (channel means of a residual stage), `embedding`.
        side: pixels per side that the network sees.
        revision: of a hub id.

    Raises:
        ModelError: the model cannot be read, or has no pooled output.
        ConfigError: the embedding is asked for at another size than it was trained for.
    """
    if name != EMBEDDED:
        return _batched(_pretrained(resolve(name, revision), side))
    model = net.load(resolve(EMBEDDED))
    if "embedding" in layers and side != model.config.side:
        raise ConfigError(
            f"The layer 'embedding' of {EMBEDDED} needs side={model.config.side}; got {side}."
        )
    return _batched(lambda pixels: _tiny(model, pixels, layers, side))


def _tiny(model: net.TinyEncoder, pixels: Tensor, layers: Sequence[str], side: int) -> list[Tensor]:
    small = net.resize(pixels, side)
    found = {"thumbnail": F.adaptive_avg_pool2d(small, THUMBNAIL).flatten(1)}
    if "embedding" in layers:
        found["embedding"] = model(small)
    deepest = max((int(name[-1]) for name in layers if name.startswith("stage-")), default=0)
    x = small.sub(0.5).mul(4.0).contiguous(memory_format=torch.channels_last)
    x = F.relu(model.stem_norm(model.stem(x)))
    blocks = iter(model.body)
    for stage, depth in enumerate(model.config.depths[:deepest], 1):
        for _ in range(depth):
            x = next(blocks)(x)
        found[f"stage-{stage}"] = x.mean((2, 3))
    return [found[layer] for layer in layers]


def _pretrained(folder: Path, side: int) -> Callable[[Tensor], list[Tensor]]:
    from transformers import AutoModel

    try:
        model: Any = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot read a vision model from {folder}: {error}") from error

    def features(pixels: Tensor) -> list[Tensor]:
        found = model(pixel_values=net.resize(pixels, side).sub(0.5).mul(4.0))
        pooled = getattr(found, "pooler_output", None)
        if pooled is None:
            raise ModelError(f"The model in {folder} has no pooled output; choose another one.")
        return [pooled.flatten(1)]

    return features


def _batched(features: Callable[[Tensor], list[Tensor]]) -> Extract:
    def run(pixels: Tensor) -> list[Floats]:
        with torch.inference_mode():
            blocks = [features(x.float().div(255)) for x in torch.split(pixels, BATCH)]
        return [torch.cat(layer).double().numpy() for layer in zip(*blocks, strict=True)]

    return run


def unit(rows: Floats) -> Floats:
    """(N, D) rows of length one; a row of zeros stays as it is."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
