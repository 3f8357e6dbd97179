"""`mia-generated`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.attacks.membership.black_box import (
    LICENCE,
    Batch,
    Negatives,
    network_files,
)

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack

RESNET_18: Final = "resnet-18"
"""ResNet-18, untrained."""


class GeneratedConfig(Config):
    """Settings of `mia-generated`; those of Holme et al. 2025, where they state them."""

    negatives: Negatives = "generated"
    backbone: str = Field(
        default=RESNET_18,
        min_length=1,
        description="network to start from: resnet-18 (untrained), tiny-encoder (embedded), or a "
        "folder or hub id of an image model of transformers, such as microsoft/resnet-18",
    )
    seeds: int = Field(
        default=3, ge=1, le=16, description="attack models; the score is their mean log-odds"
    )
    side: int = Field(
        default=64, ge=32, le=1024, description="pixels per side that the network sees"
    )
    epochs: int = Field(
        default=5, ge=1, description="of training; held-out images choose among them"
    )
    batch: int = Field(default=64, ge=2, description="images per step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of Adam")
    score_batch: Batch = 64
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="precision of the convolutions; auto: bfloat16 where it is native",
    )


def build(config: GeneratedConfig) -> MembershipAttack:
    """Build the attack."""
    from privbench_plugins.attacks.membership._generated import GeneratedImages

    return GeneratedImages(config)


def weights(config: GeneratedConfig) -> Mapping[str, str]:
    """SHA-256 of each file that training starts from.

    Raises:
        ModelError: there is no such network.
    """
    return {} if config.backbone == RESNET_18 else network_files(config.backbone)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-generated",
        version=1,
        summary="Classifier that tells the target's samples from other images, asked about photos",
        build=build,
        config=GeneratedConfig,
        weights=weights,
        tags=Tags(knowledge="black-box", infers="queries"),
        smoke={"seeds": 2, "epochs": 2, "side": 32, "batch": 8},
        argument="negatives",
        licence=LICENCE,
    ),
)
