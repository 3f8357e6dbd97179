"""`identification`: how often a probe's true person is among the first candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class Config(BaseConfig):
    """Options of `identification`."""

    ranks: tuple[PositiveInt, ...] = Field(
        (1, 5, 10), description="Ranks k to report, where k <= people."
    )


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._identification import IdentificationRates

    return IdentificationRates(config.ranks)


SPECS = (
    PluginSpec(
        kind="metric",
        id="identification",
        version=1,
        summary="Closed-set identification: rank-1, rank-5, rank-10 and mAP.",
        build=build,
        config=Config,
        tags=Tags(evidence="identification"),
    ),
)
