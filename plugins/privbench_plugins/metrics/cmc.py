"""`cmc`: the cumulative match characteristic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class Config(BaseConfig):
    """Options of `cmc`."""

    max_rank: int = Field(20, ge=1, description="Last rank of the curve (or people, if fewer).")


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._cmc import MatchCurve

    return MatchCurve(config.max_rank)


SPECS = (
    PluginSpec(
        kind="metric",
        id="cmc",
        version=1,
        summary="Cumulative match characteristic: share identified within rank 1, 2, ...",
        build=build,
        config=Config,
        tags=Tags(evidence="identification"),
    ),
)
