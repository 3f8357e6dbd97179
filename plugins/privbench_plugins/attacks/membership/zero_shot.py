"""`mia-zero-shot`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.attacks.membership.black_box import (
    ENCODER,
    LICENCE,
    Batch,
    Embedder,
    Negatives,
    network_files,
)

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack


class ZeroShotConfig(Config):
    """Settings of `mia-zero-shot`."""

    negatives: Negatives = "generated"
    backbone: Embedder = ENCODER
    batch: Batch = 64


def build(config: ZeroShotConfig) -> MembershipAttack:
    """Build the attack."""
    from privbench_plugins.attacks.membership._zero_shot import ZeroShot

    return ZeroShot(config)


def weights(config: ZeroShotConfig) -> Mapping[str, str]:
    """SHA-256 of the embedder's files.

    Raises:
        ModelError: there is no such network.
    """
    return network_files(config.backbone)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-zero-shot",
        version=1,
        summary="Nearer to the mean of the target's samples than of others, without any training",
        build=build,
        config=ZeroShotConfig,
        weights=weights,
        tags=Tags(knowledge="black-box", infers="queries"),
        smoke={"batch": 8},
        argument="negatives",
        licence=LICENCE,
    ),
)
