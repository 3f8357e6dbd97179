"""`mia-loss`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import PluginSpec, Tags
from privbench_plugins.attacks.membership.graybox import GrayBoxConfig, Share

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack


class LossConfig(GrayBoxConfig):
    """Settings of `mia-loss`."""

    levels: tuple[Share, ...] = Field(
        (0.1, 0.3, 0.5),
        min_length=1,
        description="noise levels at which the loss is taken, as shares of all levels",
    )
    repeats: int = Field(1, ge=1, description="draws of noise at each level")


def build(config: LossConfig) -> MembershipAttack:
    """The attack."""
    from privbench_plugins.attacks.membership._errors import Denoising
    from privbench_plugins.attacks.membership._graybox import ErrorAttack

    return ErrorAttack(Denoising(config.levels, config.repeats), config.batch)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-loss",
        version=1,
        summary="Membership by the denoising loss at several noise levels",
        build=build,
        config=LossConfig,
        tags=Tags(knowledge="gray-box", infers="queries"),
        smoke={"levels": (0.3,), "batch": 8},
    ),
)
