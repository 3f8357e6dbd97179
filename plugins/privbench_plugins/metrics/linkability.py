"""`linkability`: how far mated and non-mated scores lie apart, as one number (D_sys)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class Config(BaseConfig):
    """Options of `linkability`."""

    omega: float = Field(
        1.0, gt=0, description="Prior odds that a comparison is of one person, P(mated) / P(not)."
    )
    bins: int = Field(
        100, ge=2, description="Most bins of the histogram; one per 10 mated scores if fewer."
    )
    permutations: int = Field(
        500, ge=1, description="Times to deal the names at random for the chance level."
    )


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._linkability import Linkability

    return Linkability(config.omega, config.bins, config.permutations)


SPECS = (
    PluginSpec(
        kind="metric",
        id="linkability",
        version=1,
        summary="Linkability D_sys of mated and non-mated scores, beside its permutation null.",
        build=build,
        config=Config,
        tags=Tags(evidence="identification"),
    ),
)
