"""Regional anonymizers: a part of the face is covered, the rest is released as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec

if TYPE_CHECKING:
    from privbench.types import Anonymizer

LICENCE = "tiny-geometry: CC0-1.0"


class EyeMaskConfig(Config):
    """Options of `eye-mask`."""

    locator: Literal["embedded", "centre"] = Field(
        default="embedded",
        description="Where the face is: estimated by `tiny-geometry`, or taken to be at the "
        "centre, for aligned crops.",
    )


class MaskFaceConfig(EyeMaskConfig):
    """Options of `mask-face`."""

    fill: Literal["mean", "black"] = Field(
        default="mean", description="Colour of the mask: mean of the kept pixels, or black."
    )


def build_eye_mask(config: EyeMaskConfig) -> Anonymizer:
    """A band over the eyes.

    Raises:
        ModelError: the files of `tiny-geometry` are missing.
    """
    from privbench_plugins.anonymizers._regional import EyeMask, locator

    return EyeMask(locator(config.locator))


def build_mask_face(config: MaskFaceConfig) -> Anonymizer:
    """One colour over the face.

    Raises:
        ModelError: the files of `tiny-geometry` are missing.
    """
    from privbench_plugins.anonymizers._regional import MaskFace, locator

    return MaskFace(locator(config.locator), config.fill == "mean")


def locator_weights(config: EyeMaskConfig) -> Mapping[str, str]:
    """SHA-256 of the files of the locator.

    Raises:
        ModelError: they are missing.
    """
    from privbench_plugins.geometry import geometry_weights

    return geometry_weights() if config.locator == "embedded" else {}


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="eye-mask",
        version=1,
        summary="Black band over both eyes; the rest of the face is released.",
        build=build_eye_mask,
        config=EyeMaskConfig,
        weights=locator_weights,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="mask-face",
        version=1,
        summary="One colour over the face; hair, clothes and background are released.",
        build=build_mask_face,
        config=MaskFaceConfig,
        weights=locator_weights,
        licence=LICENCE,
    ),
)
