"""`verification`, `det` and `operating-point`: how well scores tell the true person from others."""

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


class CurveConfig(BaseConfig):
    """Options of `det`."""

    fmrs: tuple[Rate, ...] = Field(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
        description="False match rates at which to report the false non-match rate.",
    )


def build_curve(config: CurveConfig) -> Metric:
    """The curve."""
    from privbench_plugins.metrics._verification import ErrorTradeoff

    return ErrorTradeoff(config.fmrs)


class PointConfig(BaseConfig):
    """Options of `operating-point`."""

    fmrs: tuple[Rate, ...] = Field(
        (0.01, 0.1),
        description="False match rates for which attacker-validation fixes a threshold.",
    )


def build_point(config: PointConfig) -> Metric:
    """Errors at a threshold that was fixed beforehand."""
    from privbench_plugins.metrics._operating import OperatingPoint

    return OperatingPoint(config.fmrs)


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
    PluginSpec(
        kind="metric",
        id="det",
        version=1,
        summary="Detection error trade-off: false non-match rate at false match rates .001 to .5.",
        build=build_curve,
        config=CurveConfig,
        tags=Tags(evidence="identification"),
    ),
    PluginSpec(
        kind="metric",
        id="operating-point",
        version=1,
        summary="Both error rates at the threshold that attacker-validation fixed.",
        build=build_point,
        config=PointConfig,
        tags=Tags(evidence="identification"),
    ),
)
