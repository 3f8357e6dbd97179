"""The attack `random-guess`: the control that every other attack must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privbench.spec import NoConfig, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Attack


def build(config: NoConfig) -> Attack:
    """Build the attack."""
    from privbench_plugins.attacks.guess import RandomGuess

    return RandomGuess()


SPECS = (
    PluginSpec(
        kind="attack",
        id="random-guess",
        version=1,
        summary="Control: scores drawn from the seed, without looking at an image",
        build=build,
        tags=Tags(control="negative", knowledge="none"),
    ),
)
