"""`frechet` and `kernel`: whether releases, as a set, look like their sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class DistanceConfig(BaseConfig):
    """Options of `frechet` and `kernel`: the features, which the values depend on."""

    features: str = Field(
        "tiny-encoder",
        description="extractor: the embedded one, or a folder or hub id of a vision model of "
        "transformers, of which the pooled output is used",
    )
    layer: Literal["stage-1", "stage-2", "stage-3", "embedding"] = Field(
        "stage-1", description="layer of tiny-encoder; stages are averaged over places"
    )
    side: int = Field(
        80, ge=16, le=1024, description="pixels per side after an anti-aliased bilinear resize"
    )
    revision: str = Field("", description="hub revision of the extractor")


def build_frechet(config: DistanceConfig) -> Metric:
    """Fréchet distance."""
    from privbench_plugins.metrics._distances import FrechetDistance

    return FrechetDistance(config.features, config.layer, config.side, config.revision)


def build_kernel(config: DistanceConfig) -> Metric:
    """Kernel distance."""
    from privbench_plugins.metrics._distances import KernelDistance

    return KernelDistance(config.features, config.layer, config.side, config.revision)


def weights(config: DistanceConfig) -> Mapping[str, str]:
    """SHA-256 of the extractor's files."""
    from privbench_plugins.models import digest, resolve

    return digest(resolve(config.features, config.revision))


SPECS = (
    PluginSpec(
        kind="metric",
        id="frechet",
        version=1,
        summary="Fréchet distance of releases and sources on declared features (not an FID).",
        build=build_frechet,
        config=DistanceConfig,
        weights=weights,
        tags=Tags(evidence="release"),
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
    PluginSpec(
        kind="metric",
        id="kernel",
        version=1,
        summary="Kernel distance of releases and sources on declared features (not a KID).",
        build=build_kernel,
        config=DistanceConfig,
        weights=weights,
        tags=Tags(evidence="release"),
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
)
