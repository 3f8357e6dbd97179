"""Watermarks: marks that photos of one source share. They hide nobody.

A generative model that was trained on marked photos may draw the mark, and so give its training
set away: for studies of membership inference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Anonymizer


class VisibleConfig(Config):
    """Options of `watermark-visible`."""

    size: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Side of the mark, as a share of the image's shorter side.",
    )


class HiddenConfig(Config):
    """Options of `watermark-hidden`."""

    visibility: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Share of the overlay in the blend; below .004 it is lost in 8-bit images.",
    )
    key: int = Field(
        default=0, ge=0, lt=2**63, description="From which the overlay's colours are drawn."
    )
    cells: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Cells of one colour across the overlay, and down it.",
    )


def build_visible(config: VisibleConfig) -> Anonymizer:
    """A mark in the corner."""
    from privbench_plugins.anonymizers._watermarks import VisibleMark

    return VisibleMark(config.size)


def build_hidden(config: HiddenConfig) -> Anonymizer:
    """A faint overlay."""
    from privbench_plugins.anonymizers._watermarks import HiddenMark

    return HiddenMark(config.visibility, config.key, config.cells)


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="watermark-visible",
        version=1,
        summary="Diagnostic, no anonymizer: a mark in the photo's top-right corner.",
        build=build_visible,
        config=VisibleConfig,
        tags=Tags(control="diagnostic"),
    ),
    PluginSpec(
        kind="anonymizer",
        id="watermark-hidden",
        version=1,
        summary="Diagnostic, no anonymizer: a coloured overlay on the photo, at 1 % visibility.",
        build=build_hidden,
        config=HiddenConfig,
        tags=Tags(control="diagnostic"),
    ),
)
