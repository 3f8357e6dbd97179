"""Gaussian noise, as a privbench anonymizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privbench import Config, PluginSpec, Tags, hookimpl
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from privbench.types import ImageBatch

PRIVBENCH_API = 1


class NoiseConfig(Config):
    """Options of `privbench-noise/gaussian-noise`."""

    sigma: float = Field(
        default=0.2, gt=0, le=10, description="Standard deviation; pixels lie in [0, 1]."
    )


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Adds independent noise to every pixel.

    Attributes:
        sigma: standard deviation.
    """

    sigma: float

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1]; the noise of image i comes from `seeds[i]` alone."""
        import torch

        # Drawn on the CPU, so that a GPU releases the same images.
        noise = torch.stack(
            [
                torch.randn(batch.pixels.shape[1:], generator=torch.Generator().manual_seed(seed))
                for seed in seeds
            ]
        )
        return (batch.pixels + self.sigma * noise.to(batch.pixels.device)).clamp(0, 1)


def build(config: NoiseConfig) -> GaussianNoise:
    """Build the anonymizer."""
    return GaussianNoise(config.sigma)


SPEC = PluginSpec(
    kind="anonymizer",
    id="privbench-noise/gaussian-noise",
    version=1,
    summary="Gaussian noise on every pixel.",
    build=build,
    config=NoiseConfig,
    tags=Tags(stochastic=True),
)


@hookimpl
def privbench_plugins() -> Iterable[PluginSpec]:
    """The plugins of this package."""
    return [SPEC]
