"""Find a T2I-Adapter and check that it fits a diffusion model, from its JSON files alone.

Torch-free: see `folders`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from privbench.errors import ModelError
from privbench_plugins import models
from privbench_plugins.anonymizers._ldm.folders import (
    ModelFolder,
    PipelineFolder,
    check_weights,
    model_config,
    random_network,
)

TYPES: Final = ("full_adapter", "full_adapter_xl", "light_adapter")

Features = list[tuple[int, int]]
"""(channels, pixels per feature along one side), in the order in which the UNet takes them."""


def find_adapter(
    name: str, revision: str = "", variant: str = "", *, pipeline: PipelineFolder
) -> ModelFolder:
    """Find a T2I-Adapter and check that it fits a diffusion model.

    Raises:
        ModelError: missing or damaged files, another architecture, or shapes that do not fit.
    """
    if made_up := random_network(name, "t2i", pipeline):
        return made_up
    path = models.resolve(name, revision, variant)
    if path.is_file() or (path / "model_index.json").is_file():
        raise ModelError(f"{path} is a whole checkpoint. Expected a T2IAdapter's folder or hub id.")
    config = model_config(path, ("T2IAdapter",))
    check_weights(path, variant)
    kind = config.get("adapter_type")
    if kind not in TYPES:
        raise ModelError(f"The adapter {path} is a {kind}. Expected {', '.join(TYPES)}.")
    if config["in_channels"] not in (1, 3):
        raise ModelError(
            f"The adapter {path} takes {config['in_channels']} channels. Expected 1 or 3: a map."
        )
    _check_features(path.name, _made(config), _taken(pipeline), pipeline)
    if pipeline.resolution % config["downscale_factor"]:
        raise ModelError(
            f"The adapter {path} needs a resolution divisible by {config['downscale_factor']}. "
            f"Got {pipeline.resolution}."
        )
    return ModelFolder(path, variant)


def _check_features(name: str, made: Features, taken: Features, pipeline: PipelineFolder) -> None:
    if made == taken[: len(made)]:
        return
    raise ModelError(
        f"The adapter {name} does not fit the UNet of {pipeline.path}: it makes features of "
        f"{_words(made)}; expected {_words(taken)}. Choose one trained for it."
    )


def _words(features: Features) -> str:
    """`320 channels at 1/8, 640 at 1/16`.

    >>> _words([(320, 8), (640, 16)])
    '320 channels at 1/8, 640 at 1/16'
    """
    parts = [f"{width} at 1/{scale}" for width, scale in features]
    return ", ".join(parts).replace(" at", " channels at", 1)


def _made(config: Mapping[str, Any]) -> Features:
    """What an adapter makes (diffusers, models/adapter.py)."""
    widths, first = config["channels"], int(config["downscale_factor"])
    if config["adapter_type"] == "light_adapter":
        widths = [*widths, widths[-1]]
    once = config["adapter_type"] == "full_adapter_xl"  # it halves the side before the third only
    sizes = [first * 2 ** (level >= 2 if once else level) for level in range(len(widths))]
    return [(int(width), size) for width, size in zip(widths, sizes, strict=True)]


def _taken(pipeline: PipelineFolder) -> Features:
    """What a UNet can take: after each level, and in the middle (UNet2DConditionModel.forward).

    A level with attention takes it before it halves the side, a plain one afterwards.
    """
    unet, found = pipeline.unet, []
    widths = unet["block_out_channels"]
    for level, (kind, width) in enumerate(zip(unet["down_block_types"], widths, strict=True)):
        halved = "CrossAttn" not in kind and level < len(widths) - 1
        found.append((int(width), pipeline.factor * 2 ** (level + halved)))
    return [*found, (int(widths[-1]), pipeline.factor * 2 ** (len(widths) - 1))]
