"""`landmarks`, `conditions` and `detection`: what is left of a face's structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import NoConfig, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class ConditionsConfig(BaseConfig):
    """Options of `conditions`."""

    tolerance: float = Field(
        2.0, ge=0, description="how far an edge may lie off, in pixels of a 128-pixel image"
    )


class DetectionConfig(BaseConfig):
    """Options of `detection`."""

    doublings: int = Field(
        1, ge=0, le=3, description="times to double the image; the smallest face is 80 pixels then"
    )


def build_landmarks(config: NoConfig) -> Metric:
    """Landmark and pose error."""
    from privbench_plugins.metrics._structure import LandmarkError

    return LandmarkError()


def build_conditions(config: ConditionsConfig) -> Metric:
    """Condition agreement."""
    from privbench_plugins.metrics._structure import ConditionAgreement

    return ConditionAgreement(config.tolerance)


def build_detection(config: DetectionConfig) -> Metric:
    """Detection rate."""
    from privbench_plugins.metrics._structure import Detection

    return Detection(config.doublings)


def weights(config: BaseConfig) -> Mapping[str, str]:
    """SHA-256 of the files of the embedded estimator."""
    from privbench_plugins.geometry import geometry_weights

    return geometry_weights()


_LICENCE = "Apache-2.0 (tiny-geometry, trained on CC0 renders)"
SPECS = (
    PluginSpec(
        kind="metric",
        id="landmarks",
        version=1,
        summary="Landmark, yaw and pitch error between source and release, both estimated.",
        build=build_landmarks,
        weights=weights,
        tags=Tags(evidence="release"),
        licence=_LICENCE,
    ),
    PluginSpec(
        kind="metric",
        id="conditions",
        version=1,
        summary="Edges and depth of the release against those of its source.",
        build=build_conditions,
        config=ConditionsConfig,
        weights=weights,
        tags=Tags(evidence="release"),
        licence=_LICENCE,
    ),
    PluginSpec(
        kind="metric",
        id="detection",
        version=1,
        summary="Share of releases in which a face detector finds a face, beside that of sources.",
        build=build_detection,
        config=DetectionConfig,
        tags=Tags(evidence="release"),
        requires=("dlib",),
        extra="privbench[detect]",
    ),
)
