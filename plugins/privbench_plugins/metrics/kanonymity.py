"""`k-anonymity`: among how many people a released image leaves its subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class Config(BaseConfig):
    """Options of `k-anonymity`."""

    ks: tuple[PositiveInt, ...] = Field(
        (2, 5, 10, 20), description="Sizes k that a set must reach, where k <= people."
    )


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._kanonymity import AnonymitySets

    return AnonymitySets(config.ks)


SPECS = (
    PluginSpec(
        kind="metric",
        id="k-anonymity",
        version=2,
        summary="Share of probes whose anonymity set is smaller than k, its size, effective k.",
        build=build,
        config=Config,
        tags=Tags(evidence="identification"),
    ),
)
