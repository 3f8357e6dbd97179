"""`contrastive-reid` and its relatives: what they are and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Attack


Backbone = Annotated[
    Literal["tiny-encoder", "tiny", "resnet-18", "resnet-50", "transformers"],
    Field(
        description="network: the shipped start, the same untrained, an untrained ResNet, or "
        "the vision model that `weights` names"
    ),
]
Side = Annotated[int, Field(ge=32, le=1024, description="pixels per side that the network sees")]
Views = Annotated[
    Literal["clear-anonymized", "anonymized"],
    Field(description="what a pair is: a photo and its release, or two releases of a person"),
]
Positives = Annotated[
    Literal["identity", "photo"],
    Field(description="what attracts: all views of a person, or the two views of a photo"),
]
Batch = Annotated[int, Field(ge=2, description="photos per step; each gives two views")]
Steps = Annotated[int, Field(ge=0, description="optimiser steps")]


class ContrastiveConfig(Config):
    """Settings of `contrastive-reid`."""

    backbone: Backbone = "tiny-encoder"
    weights: str = Field("", description="folder or hub id to start from; empty: none")
    revision: str = Field("", description="hub revision of `weights`")
    side: Side = 80
    dim: int = Field(128, ge=8, le=4096, description="length of a ResNet's embedding")
    towers: Literal["shared", "separate"] = Field(
        "shared", description="one network for clear and anonymized images, or one each"
    )
    pairs: Views = "clear-anonymized"
    positives: Positives = "identity"
    batch: Batch = 64
    per_identity: int = Field(2, ge=1, description="photos of each person in a batch")
    steps: Steps = 400
    search: int = Field(
        1,
        ge=1,
        le=18,
        description="candidates of temperature, augmentation and hardness among which validation "
        "chooses by successive halving; 1: as set",
    )
    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate (AdamW)")
    weight_decay: float = Field(0.05, ge=0, description="decoupled weight decay")
    temperature: float = Field(0.1, gt=0, description="tau of the contrastive loss")
    hardness: float = Field(
        0.0, ge=0, le=10, description="beta by which near negatives weigh more; 0: all alike"
    )
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

    @model_validator(mode="after")
    def _one_tower_for_one_kind(self) -> Self:
        if self.pairs == "anonymized" and self.towers == "separate":
            raise ValueError(
                "pairs=anonymized shows no clear image to train a tower of its own on; "
                "set towers=shared"
            )
        return self


class PaperConfig(ContrastiveConfig):
    """Settings of `contrastive-paper`: what Lorenz et al. 2025 state, as defaults.

    Stated: ResNet-50, batches of 128, (photo, release) pairs with other originals and other
    releases as negatives. Resolution, length of training and temperature are not stated: they
    are a ResNet-50's usual 224 pixels, and our choice.
    """

    backbone: Backbone = "resnet-50"
    side: Side = 224
    positives: Positives = "photo"
    batch: Batch = 128
    steps: Steps = 4000


class ParrotConfig(ContrastiveConfig):
    """Settings of `contrastive-parrot`."""

    pairs: Views = "anonymized"


def build(config: ContrastiveConfig) -> Attack:
    """Build the attack."""
    from privbench_plugins.attacks.contrastive_attack import ContrastiveReid

    return ContrastiveReid(config)


def weights(config: ContrastiveConfig) -> Mapping[str, str]:
    """SHA-256 of the weight files that training starts from."""
    from privbench_plugins.attacks.start import weight_files

    return weight_files(config)


def _spec(
    name: str, summary: str, config: type[ContrastiveConfig], **smoke: int | str
) -> PluginSpec:
    return PluginSpec(
        kind="attack",
        id=name,
        version=1,
        summary=summary,
        build=build,
        config=config,
        weights=weights,
        tags=Tags(knowledge="adaptive"),
        smoke={"steps": 4, "batch": 8, "checkpoints": 2, **smoke},
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    )


SPECS = (
    _spec(
        "contrastive-reid",
        "Contrastive re-identification, trained on the attacker's own anonymized photos",
        ContrastiveConfig,
    ),
    _spec(
        "contrastive-paper",
        "contrastive-reid as Lorenz et al. 2025 state it: ResNet-50, batch 128; wants a GPU",
        PaperConfig,
        side=32,
        batch=4,
        embed_batch=8,
    ),
    _spec(
        "contrastive-parrot",
        "contrastive-reid between anonymized photos: trained, enrolled and probed on releases",
        ParrotConfig,
    ),
)
