"""`verification`: how well scores tell the true person from everyone else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric

Rate = Annotated[float, Field(gt=0, lt=1)]


class Config(BaseConfig):
    """Options of `verification`."""

    fars: tuple[Rate, ...] = Field(
        (0.01, 0.001), description="False accept rates at which to report the true accept rate."
    )


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._verification import Verification

    return Verification(config.fars)


SPECS = (
    PluginSpec(
        kind="metric",
        id="verification",
        version=1,
        summary="Verification: ROC AUC, equal error rate and true accepts at 1 % and 0.1 % FAR.",
        build=build,
        config=Config,
        tags=Tags(evidence="identification"),
    ),
)
