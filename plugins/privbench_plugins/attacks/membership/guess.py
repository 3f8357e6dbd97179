"""`mia-random`: the control that every other attack on membership must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privbench.spec import NoConfig, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack


def build(config: NoConfig) -> MembershipAttack:
    """Build the attack."""
    from privbench_plugins.attacks.membership._guess import RandomMembership

    return RandomMembership()


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-random",
        version=1,
        summary="Control: membership scores drawn from the seed and the image's hash",
        build=build,
        tags=Tags(control="negative", knowledge="none", infers="queries"),
    ),
)
