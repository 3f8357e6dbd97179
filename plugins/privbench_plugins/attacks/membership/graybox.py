"""Settings that gray-box attacks on membership have in common. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from privbench.spec import Config

Share = Annotated[float, Field(ge=0, le=1)]
"""A noise level, as a share of all levels of the model; 0 is the clean end."""


class GrayBoxConfig(Config):
    """Base of the settings."""

    batch: int = Field(32, ge=1, description="images asked about at once")
