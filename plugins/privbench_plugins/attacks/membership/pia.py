"""`mia-pia`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import PluginSpec, Tags
from privbench_plugins.attacks.membership.graybox import GrayBoxConfig, Share

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack


class PiaConfig(GrayBoxConfig):
    """Settings of `mia-pia`; the defaults are the paper's."""

    level: Share = Field(
        0.2, description="noise level that is asked about, as a share of all levels"
    )
    norm: float = Field(4.0, ge=1, description="p of the l_p norm")
    normalised: bool = Field(
        False, description="scale the noise to a standard normal's mean absolute value (PIAN)"
    )


def build(config: PiaConfig) -> MembershipAttack:
    """The attack."""
    from privbench_plugins.attacks.membership._errors import ProximalError
    from privbench_plugins.attacks.membership._graybox import ErrorAttack

    return ErrorAttack(ProximalError(config.level, config.norm, config.normalised), config.batch)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-pia",
        version=1,
        summary="Membership by whether the model finds its own noise again: two questions (PIA)",
        build=build,
        config=PiaConfig,
        tags=Tags(knowledge="gray-box", infers="queries"),
        smoke={"batch": 8},
    ),
)
