"""`attributes` and `downstream`: what can still be learnt about or from released faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import NoConfig, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class DownstreamConfig(BaseConfig):
    """Options of `downstream`."""

    folds: int = Field(
        4, ge=2, description="groups of people; each is classified by what the others taught"
    )


def build_attributes(config: NoConfig) -> Metric:
    """Attribute preservation."""
    from privbench_plugins.metrics._attributes import AttributePreservation

    return AttributePreservation()


def build_downstream(config: DownstreamConfig) -> Metric:
    """Downstream utility."""
    from privbench_plugins.metrics._downstream import DownstreamUtility

    return DownstreamUtility(config.folds)


def weights(config: BaseConfig) -> Mapping[str, str]:
    """SHA-256 of the files of the embedded extractor."""
    from privbench_plugins.models import digest, resolve

    return digest(resolve("tiny-encoder"))


SPECS = (
    PluginSpec(
        kind="metric",
        id="attributes",
        version=1,
        summary="Attributes that a classifier of other people's clean images reads off releases.",
        build=build_attributes,
        weights=weights,
        tags=Tags(evidence="release", fit_on="background"),
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
    PluginSpec(
        kind="metric",
        id="downstream",
        version=1,
        summary="Attribute classifiers trained on releases, tested on clean images of others.",
        build=build_downstream,
        config=DownstreamConfig,
        weights=weights,
        tags=Tags(evidence="release"),
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
)
