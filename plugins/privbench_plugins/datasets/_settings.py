"""Settings that data sets of photographs share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from privbench import Config


class PhotosConfig(Config):
    """How photographs of any size become squares, and what becomes of those that cannot."""

    side: int = Field(128, ge=32, le=1024, description="side of the images, in pixels")
    detector: str = Field(
        "none", description="face detector to align by, as ID or ID:VALUE; none: centred square"
    )
    on_undetected: Literal["centre", "refuse"] = Field(
        "centre", description="an image without a face: centred square (counted), or refuse the run"
    )
    bad_images: Literal["leave-out", "refuse"] = Field(
        "leave-out", description="files that cannot be used: leave out (listed), or refuse the run"
    )
