"""`mia-nearest`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.attacks.membership.black_box import LICENCE, Batch, network_files

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack

PIXELS: Final = "pixels"


class NearestConfig(Config):
    """Settings of `mia-nearest`."""

    space: str = Field(
        default=PIXELS,
        min_length=1,
        description="where distances are Euclidean: pixels, tiny-encoder (embedded), or a folder "
        "or hub id of a vision model of transformers, such as CLIP",
    )
    calibrate: Literal["none", "generated", "base-model"] = Field(
        default="generated",
        description="subtract the distance from the nearest sample of another model: one that the "
        "attacker trained by the same recipe, or the one before any training",
    )
    side: int = Field(
        default=64, ge=4, le=256, description="pixels per side, where the space is pixels"
    )
    batch: Batch = 64


def build(config: NearestConfig) -> MembershipAttack:
    """Build the attack."""
    from privbench_plugins.attacks.membership._nearest import Nearest

    return Nearest(config)


def weights(config: NearestConfig) -> Mapping[str, str]:
    """SHA-256 of the embedder's files.

    Raises:
        ModelError: there is no such network.
    """
    return {} if config.space == PIXELS else network_files(config.space)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-nearest",
        version=1,
        summary="Distance from the nearest sample of the target, calibrated by another model's",
        build=build,
        config=NearestConfig,
        weights=weights,
        tags=Tags(knowledge="black-box", infers="queries"),
        smoke={"side": 8, "batch": 8},
        argument="space",
        licence=LICENCE,
    ),
)
