"""`open-set`: how often a person is named, and people who are not enrolled are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric

Rate = Annotated[float, Field(gt=0, lt=1)]


class Config(BaseConfig):
    """Options of `open-set`."""

    fpirs: tuple[Rate, ...] = Field(
        (0.01, 0.1),
        description="False positive identification rates at which to report identification.",
    )


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._openset import OpenSetRates

    return OpenSetRates(config.fpirs)


SPECS = (
    PluginSpec(
        kind="metric",
        id="open-set",
        version=1,
        summary="Open-set identification: DIR = 1 - FNIR(S, 1, T) at FPIR of 1 % and 10 %.",
        build=build,
        config=Config,
        tags=Tags(evidence="open-set"),
    ),
)
