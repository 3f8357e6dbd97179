"""The attack `ensemble`: the run's other attacks as one. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import ScoreFusion


class EnsembleConfig(Config):
    """Settings of `ensemble`."""

    rule: Literal["auto", "best", "max", "sum", "calibrated"] = Field(
        "auto",
        description="best: the strongest member alone; max, sum: of the members' log-odds; "
        "calibrated: logistic regression on all members; auto: by validation",
    )
    fusion: Literal["auto", "max", "mean"] = Field(
        "auto", description="how scores of several references combine; auto: by validation"
    )
    ridge: float = Field(1.0, gt=0, description="strength of the regression's penalty")
    folds: int = Field(4, ge=2, description="groups of validation people that choose in turn")


def build(config: EnsembleConfig) -> ScoreFusion:
    """Build the fusion."""
    from privbench_plugins.attacks.score_fusion import Ensemble

    return Ensemble(config)


SPECS = (
    PluginSpec(
        kind="attack",
        id="ensemble",
        version=1,
        summary="All other attacks of the run as one, with weights from attacker-validation",
        build=build,
        config=EnsembleConfig,
        tags=Tags(fuses=True),
    ),
)
