"""Classical anonymizers: none at all, blur, and pixelation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config, NoConfig, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Anonymizer


class BlurConfig(Config):
    """Options of `gaussian-blur`."""

    sigma: float = Field(
        default=4.0,
        gt=0,
        le=1000,
        description="Standard deviation of the Gaussian, in pixels at `resolution`.",
    )
    resolution: int = Field(
        default=128,
        ge=0,
        description="Image width, in pixels, at which `sigma` is stated; wider images are "
        "blurred in proportion. 0 takes `sigma` in pixels of the image itself.",
    )


class PixelateConfig(Config):
    """Options of `pixelate`."""

    cells: int = Field(
        default=16,
        ge=1,
        description="Mosaic cells across the image's width; cells are square.",
    )


def build_none(config: NoConfig) -> Anonymizer:
    """The identity: images are released as they are."""
    from privbench_plugins.anonymizers._classical import Identity

    return Identity()


def build_blur(config: BlurConfig) -> Anonymizer:
    """Gaussian blur."""
    from privbench_plugins.anonymizers._classical import GaussianBlur

    return GaussianBlur(config.sigma, config.resolution)


def build_pixelate(config: PixelateConfig) -> Anonymizer:
    """Mosaic of area means."""
    from privbench_plugins.anonymizers._classical import Pixelate

    return Pixelate(config.cells)


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="none",
        version=1,
        summary="No anonymization: the positive control, privacy should be absent.",
        build=build_none,
        tags=Tags(control="positive"),
    ),
    PluginSpec(
        kind="anonymizer",
        id="gaussian-blur",
        version=1,
        summary="Gaussian blur of the whole image.",
        build=build_blur,
        config=BlurConfig,
    ),
    PluginSpec(
        kind="anonymizer",
        id="pixelate",
        version=1,
        summary="Mosaic: the mean colour of each square cell.",
        build=build_pixelate,
        config=PixelateConfig,
    ),
)
