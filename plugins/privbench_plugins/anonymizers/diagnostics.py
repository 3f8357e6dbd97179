"""Diagnostics: what a single signal gives away. Nobody should release these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, NoConfig, PluginSpec, Tags
from privbench_plugins.anonymizers.regional import LICENCE

if TYPE_CHECKING:
    from privbench.types import Anonymizer


class ConditionMapConfig(Config):
    """Options of `condition-map`."""

    condition: Literal["canny", "softedge", "depth", "landmarks"] = Field(
        default="canny", description="The map that is released in place of the image."
    )


class BackgroundOnlyConfig(Config):
    """Options of `background-only`."""

    margin: float = Field(
        default=0.02,
        ge=0,
        le=0.25,
        description="By which the person's outline is widened, as a share of the shorter side.",
    )


def build_condition_map(config: ConditionMapConfig) -> Anonymizer:
    """The condition itself.

    Raises:
        ModelError: the files of `tiny-geometry` are missing.
    """
    from privbench_plugins.anonymizers._regional import ConditionMap, condition

    return ConditionMap(condition(config.condition))


def build_silhouette(config: NoConfig) -> Anonymizer:
    """White person on black.

    Raises:
        ModelError: the files of `tiny-geometry` are missing.
    """
    from privbench_plugins.anonymizers._regional import ConditionMap, condition

    return ConditionMap(condition("silhouette"))


def build_background_only(config: BackgroundOnlyConfig) -> Anonymizer:
    """All but the person.

    Raises:
        ModelError: the files of `tiny-geometry` are missing.
    """
    from privbench_plugins.anonymizers._regional import BackgroundOnly
    from privbench_plugins.geometry import load_geometry

    return BackgroundOnly(load_geometry(), config.margin)


def weights(config: Config) -> Mapping[str, str]:
    """SHA-256 of the files of `tiny-geometry`.

    Raises:
        ModelError: they are missing.
    """
    from privbench_plugins.geometry import geometry_weights

    return geometry_weights()


def condition_weights(config: ConditionMapConfig) -> Mapping[str, str]:
    """As `weights`, where the condition is estimated.

    Raises:
        ModelError: the files are missing.
    """
    return weights(config) if config.condition in ("depth", "landmarks") else {}


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="condition-map",
        version=1,
        summary="Diagnostic, no anonymizer: releases the edge, depth or landmark map itself.",
        build=build_condition_map,
        config=ConditionMapConfig,
        weights=condition_weights,
        tags=Tags(control="diagnostic"),
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="silhouette",
        version=1,
        summary="Diagnostic, no anonymizer: releases the person's outline, white on black.",
        build=build_silhouette,
        weights=weights,
        tags=Tags(control="diagnostic"),
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="background-only",
        version=1,
        summary="Diagnostic, no anonymizer: releases everything but the person.",
        build=build_background_only,
        config=BackgroundOnlyConfig,
        weights=weights,
        tags=Tags(control="diagnostic"),
        licence=LICENCE,
    ),
)
