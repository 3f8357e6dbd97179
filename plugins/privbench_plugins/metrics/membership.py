"""`membership`: how well scores tell the members of a training set from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags
from privbench_plugins.metrics.verification import Rate

if TYPE_CHECKING:
    from privbench.types import Metric


class Config(BaseConfig):
    """Options of `membership`."""

    fprs: tuple[Rate, ...] = Field(
        (0.01, 0.001), description="False positive rates at which to report the true positive rate."
    )
    calibrated: Rate = Field(
        0.01, description="False positive rate for which the attacker's own scores fix a threshold."
    )


def build(config: Config) -> Metric:
    """The metric."""
    from privbench_plugins.metrics._membership import MembershipRates

    return MembershipRates(config.fprs, config.calibrated)


SPECS = (
    PluginSpec(
        kind="metric",
        id="membership",
        version=1,
        summary="ROC AUC, true positives at 1 % and 0.1 % FPR and at a fixed threshold.",
        build=build,
        config=Config,
        # Audits name it; other runs have nobody to tell from members.
        tags=Tags(evidence="membership", default=False),
    ),
)
