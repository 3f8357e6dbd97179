"""`inversion-unet`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Inverter

ENCODER: Final = "tiny-encoder"


class UnetInversionConfig(Config):
    """Settings of `inversion-unet`."""

    queries: int = Field(
        0,
        ge=0,
        description="oracle queries for training and choosing; 0: each of the attacker's photos "
        "once",
    )
    side: int = Field(
        0,
        ge=0,
        le=1024,
        multiple_of=32,
        description="pixels per side at which the network works; images are resized to it and "
        "back. 0: enough for the images, 128 at most",
    )
    width: int = Field(
        64, ge=8, multiple_of=4, description="channels at the finest level; coarser ones have more"
    )
    depth: int = Field(2, ge=1, description="residual blocks of each level, down and up")
    steps: int = Field(400, ge=0, description="optimiser steps")
    batch: int = Field(16, ge=1, description="pairs per step")
    learning_rate: float = Field(2.5e-3, gt=0, description="peak learning rate (Muon and AdamW)")
    reconstruction: float = Field(1.0, ge=0, description="weight of the mean absolute error")
    perceptual: float = Field(
        0.02, ge=0, description="weight of the distance of the attacker's encoder's features"
    )
    identity: float = Field(
        0.02, ge=0, description="weight of 1 - cosine of the attacker's encoder's embeddings"
    )
    average: float = Field(0.98, ge=0, lt=1, description="decay of the averaged weights")
    checkpoints: int = Field(4, ge=1, description="times that validation looks at the weights")
    invert_batch: int = Field(32, ge=1, description="images inverted at once")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of the convolutions; auto: bfloat16 where it is native"
    )


def build(config: UnetInversionConfig) -> Inverter:
    """The attack."""
    from privbench_plugins.attacks.inversion._unet import UnetInversion

    return UnetInversion(config)


def weights(config: UnetInversionConfig) -> Mapping[str, str]:
    """SHA-256 of each file of the attacker's encoder."""
    from privbench_plugins.models import digest, resolve

    return {f"{ENCODER}/{file}": sha for file, sha in digest(resolve(ENCODER)).items()}


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="attack",
        id="inversion-unet",
        version=1,
        summary="Restores faces by an image-to-image U-Net, trained on the attacker's own pairs",
        build=build,
        config=UnetInversionConfig,
        weights=weights,
        tags=Tags(knowledge="adaptive", inverts=True),
        smoke={"steps": 4, "batch": 8, "checkpoints": 2, "width": 16, "depth": 1},
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
)
