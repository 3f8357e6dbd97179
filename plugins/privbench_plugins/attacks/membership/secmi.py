"""`mia-secmi`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import PluginSpec, Tags
from privbench_plugins.attacks.membership.graybox import GrayBoxConfig

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack


class SecmiConfig(GrayBoxConfig):
    """Settings of `mia-secmi`; the defaults are the paper's."""

    level: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="noise level at which the error is taken, as a share of all levels",
    )
    steps: int = Field(10, ge=1, description="steps of the inversion to it")


def build(config: SecmiConfig) -> MembershipAttack:
    """The attack."""
    from privbench_plugins.attacks.membership._errors import StepError
    from privbench_plugins.attacks.membership._graybox import ErrorAttack

    return ErrorAttack(StepError(config.level, config.steps), config.batch)


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-secmi",
        version=1,
        summary="Membership by the error of one deterministic step there and back (SecMI)",
        build=build,
        config=SecmiConfig,
        tags=Tags(knowledge="gray-box", infers="queries"),
        smoke={"steps": 1, "batch": 8},
    ),
)
