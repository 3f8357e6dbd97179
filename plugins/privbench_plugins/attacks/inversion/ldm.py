"""`inversion-ldm`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Inverter

ENCODER: Final = "tiny-encoder"


class LdmInversionConfig(Config):
    """Settings of `inversion-ldm`; the defaults suit `tiny-faces`."""

    queries: int = Field(
        0,
        ge=0,
        description="oracle queries for training and choosing; 0: each of the attacker's photos "
        "once",
    )
    model: str = Field(
        "tiny-faces",
        description="diffusion model that paints the faces: `tiny-faces` (embedded), a diffusers "
        "folder, a single-file checkpoint or a hub id. Stable Diffusion 1.x/2.x and SDXL",
    )
    revision: str = Field("", description="branch, tag or commit of a hub `model`")
    variant: str = Field("", description="weight variant of `model` and `start`, such as `fp16`")
    start: str = Field(
        "tiny-faces-softedge",
        description="ControlNet for `model` that training starts from: embedded name, folder or "
        "hub id; empty: a copy of the model's own encoder",
    )
    start_revision: str = Field("", description="branch, tag or commit of a hub `start`")
    prompt: str = Field(
        "a portrait photo of a person", description="what every reconstruction shows"
    )
    resolution: int = Field(
        0,
        ge=0,
        le=4096,
        description="side of the square, in pixels, at which the model works; images are resized "
        "to it and back. 0: the model's own. SD 1.5: 512; SDXL: 1024",
    )
    steps: int = Field(400, ge=0, description="optimiser steps")
    batch: int = Field(16, ge=1, description="pairs per step")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate (AdamW)")
    identity: float = Field(
        0.2,
        ge=0,
        description="weight of 1 - cosine of the attacker's encoder's embeddings; 0 spares the "
        "memory of decoding. SD 1.5: 0",
    )
    average: float = Field(0.98, ge=0, lt=1, description="decay of the averaged weights")
    checkpoints: int = Field(3, ge=1, description="times that validation looks at the weights")
    samples: int = Field(4, ge=1, description="reconstructions of each released image")
    denoising_steps: int = Field(4, ge=1, le=1000, description="of a sample. SD 1.5: 20 to 50")
    invert_batch: int = Field(
        32, ge=1, description="images denoised at once; halved when GPU memory runs out"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number type of the networks; auto: bfloat16 where it is native"
    )


def build(config: LdmInversionConfig) -> Inverter:
    """The attack.

    Raises:
        ModelError: the model or the ControlNet cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.attacks.inversion._ldm import LdmInversion

    return LdmInversion(config)


def weights(config: LdmInversionConfig) -> Mapping[str, str]:
    """SHA-256 of every file of the model, of the ControlNet and of the attacker's encoder.

    Raises:
        ModelError: a folder is not usable, or the two do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.folders import find_controlnet, find_pipeline
    from privbench_plugins.anonymizers._ldm.parts import Embedded, Hashed, digests

    model = find_pipeline(config.model, config.revision, config.variant, config.resolution)
    parts: dict[str, Hashed] = {"model": model, ENCODER: Embedded(ENCODER)}
    if config.start:
        parts["controlnet"] = find_controlnet(
            config.start, config.start_revision, config.variant, pipeline=model
        )
    return digests(**parts)


SMOKE: Final = {
    "steps": 4,
    "batch": 4,
    "checkpoints": 1,
    "samples": 2,
    "denoising_steps": 1,
    "invert_batch": 8,
}

SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="attack",
        id="inversion-ldm",
        version=1,
        summary="Paints faces by latent diffusion, guided by the released image (ControlNet)",
        build=build,
        config=LdmInversionConfig,
        weights=weights,
        tags=Tags(knowledge="adaptive", inverts=True),
        smoke=SMOKE,
        licence="tiny-faces: CC0-1.0; any other model brings its own",
    ),
)
