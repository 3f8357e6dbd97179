"""Control attacks: what a single signal tells, whatever else is released. Nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import PluginSpec, Tags
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.contrastive import weights as start_weights

if TYPE_CHECKING:
    from privbench.types import Attack


class BackgroundConfig(ContrastiveConfig):
    """Settings of `background-reid`: those of `contrastive-reid`, and the outline."""

    margin: float = Field(
        0.02,
        ge=0,
        le=0.25,
        description="by which the person's outline is widened, as a share of the shorter side",
    )


def build_silhouette(config: ContrastiveConfig) -> Attack:
    """Outlines against outlines."""
    from privbench_plugins.anonymizers._regional import ConditionMap, condition
    from privbench_plugins.attacks.contrastive_attack import ContrastiveReid
    from privbench_plugins.attacks.through import one_signal

    return one_signal(ContrastiveReid(config), ConditionMap(condition("silhouette")))


def build_background(config: BackgroundConfig) -> Attack:
    """What lies outside the person against the same."""
    from privbench_plugins.anonymizers._regional import BackgroundOnly
    from privbench_plugins.attacks.contrastive_attack import ContrastiveReid
    from privbench_plugins.attacks.through import one_signal
    from privbench_plugins.geometry import load_geometry

    return one_signal(ContrastiveReid(config), BackgroundOnly(load_geometry(), config.margin))


def weights(config: ContrastiveConfig) -> Mapping[str, str]:
    """SHA-256 of the files that training starts from, and of the embedded estimator's.

    Raises:
        ModelError: some are missing.
    """
    from privbench_plugins.geometry import geometry_weights

    return {**start_weights(config), **geometry_weights()}


_SMOKE = {"steps": 4, "batch": 8, "checkpoints": 2}
_LICENCE = "Apache-2.0 (tiny-encoder and tiny-geometry, trained on CC0 renders)"
SPECS = (
    PluginSpec(
        kind="attack",
        id="silhouette-reid",
        version=1,
        summary="Control: contrastive-reid that sees nothing but the person's outline",
        build=build_silhouette,
        config=ContrastiveConfig,
        weights=weights,
        tags=Tags(control="diagnostic", knowledge="adaptive"),
        smoke=_SMOKE,
        licence=_LICENCE,
    ),
    PluginSpec(
        kind="attack",
        id="background-reid",
        version=1,
        summary="Control: contrastive-reid that sees nothing but what lies outside the person",
        build=build_background,
        config=BackgroundConfig,
        weights=weights,
        tags=Tags(control="diagnostic", knowledge="adaptive"),
        smoke=_SMOKE,
        licence=_LICENCE,
    ),
)
