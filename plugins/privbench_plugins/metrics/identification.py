"""`identification` and `cmc`: how often a probe's true person is among the first candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class RatesConfig(BaseConfig):
    """Options of `identification`."""

    ranks: tuple[PositiveInt, ...] = Field(
        (1, 5, 10), description="Ranks k to report, where k <= people."
    )


def build_rates(config: RatesConfig) -> Metric:
    """Rank-k and mAP."""
    from privbench_plugins.metrics._identification import IdentificationRates

    return IdentificationRates(config.ranks)


class CurveConfig(BaseConfig):
    """Options of `cmc`."""

    max_rank: int = Field(20, ge=1, description="Last rank of the curve (or people, if fewer).")


def build_curve(config: CurveConfig) -> Metric:
    """The curve."""
    from privbench_plugins.metrics._identification import MatchCurve

    return MatchCurve(config.max_rank)


SPECS = (
    PluginSpec(
        kind="metric",
        id="identification",
        version=1,
        summary="Closed-set identification: rank-1, rank-5, rank-10 and mAP.",
        build=build_rates,
        config=RatesConfig,
        tags=Tags(evidence="identification"),
    ),
    PluginSpec(
        kind="metric",
        id="cmc",
        version=1,
        summary="Cumulative match characteristic: share identified within rank 1, 2, ...",
        build=build_curve,
        config=CurveConfig,
        tags=Tags(evidence="identification"),
    ),
)
