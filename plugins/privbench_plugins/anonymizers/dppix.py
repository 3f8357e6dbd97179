"""DP-Pix: differentially private pixelation (Fan 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Anonymizer


class DpPixConfig(Config):
    """Options of `dp-pix`."""

    epsilon: float = Field(
        default=1.0,
        gt=0,
        le=1e9,
        description="Privacy loss of the whole colour image; each channel spends a third.",
    )
    cell: int = Field(default=16, ge=1, le=4096, description="Side of a cell, in pixels.")
    neighbours: int = Field(
        default=16,
        ge=1,
        description="m: images that differ in at most m pixels are to look alike.",
    )


def build(config: DpPixConfig) -> Anonymizer:
    """Noisy cell means."""
    from privbench_plugins.anonymizers._dppix import DpPix

    return DpPix(config.epsilon, config.cell, config.neighbours)


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="dp-pix",
        version=1,
        summary="DP-Pix: cell means with Laplace noise, epsilon for the whole colour image.",
        build=build,
        config=DpPixConfig,
        tags=Tags(stochastic=True),
    ),
)
