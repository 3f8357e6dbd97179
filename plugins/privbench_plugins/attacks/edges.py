"""Attacks by edges alone, without a query: `edge-match` and `edge-surrogate`. Nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.attacks.contrastive import ContrastiveConfig, weights

if TYPE_CHECKING:
    from privbench.types import Attack


class EdgeMatchConfig(Config):
    """Settings of `edge-match`. Pixels are those of images with a shorter side of `side`."""

    side: int = Field(
        128, ge=32, le=1024, description="pixels of the shorter side; larger images are shrunk"
    )
    threshold: float = Field(
        1.0, gt=0, description="factor on the thresholds of the anonymizers' canny"
    )
    tolerance: float = Field(
        4.0, gt=0, description="distance in pixels from which an edge counts as missing"
    )
    shift: int = Field(
        4, ge=0, le=8, description="pixels by which a probe may be moved each way to fit best"
    )
    fusion: Literal["auto", "max", "mean"] = Field(
        "auto", description="how scores of several references combine; auto: by validation"
    )


class EdgeSurrogateConfig(ContrastiveConfig):
    """Settings of `edge-surrogate`: those of `contrastive-reid`, and the edges."""

    thresholds: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0, 0.5, 2.0),
        min_length=1,
        description="factors on the thresholds of the anonymizers' canny: training photos take "
        "turns, everything else uses the first",
    )


def build_edge_match(config: EdgeMatchConfig) -> Attack:
    """Edges against edges, untrained."""
    from privbench_plugins.attacks.edge_match import EdgeMatch

    return EdgeMatch(config)


def build_edge_surrogate(config: EdgeSurrogateConfig) -> Attack:
    """Contrastive training in which edge extraction stands for the anonymizer."""
    from privbench_plugins.attacks.contrastive_attack import ContrastiveReid
    from privbench_plugins.attacks.through import edge_surrogate

    return edge_surrogate(ContrastiveReid(config), config.thresholds)


SPECS = (
    PluginSpec(
        kind="attack",
        id="edge-match",
        version=1,
        summary="Edges of the release against edges of clear photos, by tolerant distance",
        build=build_edge_match,
        config=EdgeMatchConfig,
        tags=Tags(knowledge="black-box"),
    ),
    PluginSpec(
        kind="attack",
        id="edge-surrogate",
        version=1,
        summary="Contrastive training on edge maps in the anonymizer's stead, then transferred",
        build=build_edge_surrogate,
        config=EdgeSurrogateConfig,
        weights=weights,
        tags=Tags(knowledge="black-box"),
        smoke={"steps": 4, "batch": 8, "checkpoints": 2},
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
)
