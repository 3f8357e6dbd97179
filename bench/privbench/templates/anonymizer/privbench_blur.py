"""Blur by local averages, as a privbench anonymizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privbench import Config, PluginSpec, hookimpl
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from privbench.types import ImageBatch

PRIVBENCH_API = 1


class BlurConfig(Config):
    """Settings: each has a default and a description."""

    radius: int = Field(
        default=8, ge=1, le=64, description="Pixels averaged on each side of a pixel."
    )


@dataclass(frozen=True, slots=True)
class Blur:
    """Replaces every pixel by the mean of the square around it.

    Attributes:
        radius: half the side of the square, in pixels.
    """

    radius: int

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1]; an anonymizer that draws takes image i's draws from seeds[i]."""
        from torch.nn import functional

        return functional.avg_pool2d(
            batch.pixels,
            kernel_size=2 * self.radius + 1,
            stride=1,
            padding=self.radius,
            count_include_pad=False,
        ).clamp(0, 1)


def build(config: BlurConfig) -> Blur:
    """Build the anonymizer; heavy libraries are imported from here on, not before."""
    return Blur(config.radius)


SPEC = PluginSpec(
    kind="anonymizer",
    id="privbench-blur/blur",
    version=1,
    summary="Every pixel becomes the mean of the square around it.",
    build=build,
    config=BlurConfig,
)


@hookimpl
def privbench_plugins() -> Iterable[PluginSpec]:
    """The plugins of this package."""
    return [SPEC]
