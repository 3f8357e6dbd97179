"""The attack `contrastive-reid`: what it is and what can be set. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Attack


class ContrastiveConfig(Config):
    """Settings of `contrastive-reid`.

    The paper's attacker (Lorenz et al. 2025) is `backbone="resnet-50"`, `batch=128`,
    `positives="photo"`.
    """

    backbone: Literal["tiny-encoder", "tiny", "resnet-18", "resnet-50", "transformers"] = Field(
        "tiny-encoder",
        description="network: the shipped start, the same untrained, an untrained ResNet, or "
        "the vision model that `weights` names",
    )
    weights: str = Field("", description="folder or hub id to start from; empty: none")
    revision: str = Field("", description="hub revision of `weights`")
    side: int = Field(80, ge=32, le=1024, description="pixels per side that the network sees")
    dim: int = Field(128, ge=8, le=4096, description="length of a ResNet's embedding")
    towers: Literal["shared", "separate"] = Field(
        "shared", description="one network for clear and anonymized images, or one each"
    )
    positives: Literal["identity", "photo"] = Field(
        "identity",
        description="what attracts: all views of a person, or the two views of a photo",
    )
    batch: int = Field(64, ge=2, description="photos per step; each gives two views")
    per_identity: int = Field(2, ge=1, description="photos of each person in a batch")
    steps: int = Field(400, ge=0, description="optimiser steps")
    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate (AdamW)")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay")
    temperature: float = Field(0.1, gt=0, description="tau of the contrastive loss")
    average: float = Field(0.98, ge=0, lt=1, description="decay of the averaged weights")
    checkpoints: int = Field(8, ge=1, description="times that validation looks at the weights")
    scale: float = Field(0.1, ge=0, description="augmentation: log-range of the zoom")
    shift: float = Field(0.05, ge=0, description="augmentation: largest shift, share of the side")
    degrees: float = Field(6.0, ge=0, description="augmentation: largest rotation")
    flip: float = Field(0.5, ge=0, le=1, description="augmentation: probability of mirroring")
    jitter: float = Field(0.2, ge=0, description="augmentation: strength of colour changes")
    grey: float = Field(0.2, ge=0, le=1, description="augmentation: share without colour")
    erase: float = Field(0.3, ge=0, le=1, description="augmentation: share with a part covered")
    fusion: Literal["auto", "max", "mean"] = Field(
        "auto", description="how scores of several references combine; auto: by validation"
    )
    mirror: Literal["auto", "on", "off"] = Field(
        "auto", description="average an image's embedding with its mirror's; auto: by validation"
    )
    calibration: Literal["auto", "none", "cohort"] = Field(
        "auto",
        description="subtract how similar an image is to its nearest attacker-train images "
        "anyway; auto: by validation",
    )
    cohort: int = Field(10, ge=1, description="nearest attacker-train images that calibrate")
    embed_batch: int = Field(64, ge=1, description="images embedded at once")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="precision of the convolutions; auto: bfloat16 where it is native"
    )


def build(config: ContrastiveConfig) -> Attack:
    """Build the attack."""
    from privbench_plugins.attacks.contrastive_attack import ContrastiveReid

    return ContrastiveReid(config)


def weights(config: ContrastiveConfig) -> Mapping[str, str]:
    """SHA-256 of the weight files that training starts from."""
    from privbench_plugins.attacks.start import weight_files

    return weight_files(config)


SPECS = (
    PluginSpec(
        kind="attack",
        id="contrastive-reid",
        version=1,
        summary="Contrastive re-identification, trained on the attacker's own anonymized photos",
        build=build,
        config=ContrastiveConfig,
        weights=weights,
        tags=Tags(knowledge="adaptive"),
        smoke={"steps": 4, "batch": 8, "checkpoints": 2},
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
)
