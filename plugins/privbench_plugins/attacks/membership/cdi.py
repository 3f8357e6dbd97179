"""`mia-cdi`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import PluginSpec, Tags
from privbench_plugins.attacks.membership.graybox import GrayBoxConfig, Share

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack


class CdiConfig(GrayBoxConfig):
    """Settings of `mia-cdi`: those of `mia-loss`, `mia-secmi` and `mia-pia`."""

    levels: tuple[Share, ...] = Field(
        (0.1, 0.3, 0.5),
        min_length=1,
        description="noise levels at which the loss is taken, as shares of all levels",
    )
    repeats: int = Field(1, ge=1, description="draws of noise at each level")
    step_level: float = Field(0.1, gt=0, le=0.5, description="`level` of mia-secmi")
    steps: int = Field(1, ge=1, description="`steps` of mia-secmi")
    proximal_level: Share = Field(0.2, description="`level` of mia-pia")
    norm: float = Field(4.0, ge=1, description="p of mia-pia's norm")
    normalised: bool = Field(False, description="scale mia-pia's noise (PIAN)")


def build(config: CdiConfig) -> MembershipAttack:
    """The attack."""
    from privbench_plugins.attacks.membership._cdi import Cdi

    return Cdi(config)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-cdi",
        version=1,
        summary="Features for inference about whole sets: loss, SecMI and PIA together (CDI)",
        build=build,
        config=CdiConfig,
        tags=Tags(knowledge="gray-box", infers="queries"),
        smoke={"levels": (0.3, 0.5), "batch": 8},
    ),
)
