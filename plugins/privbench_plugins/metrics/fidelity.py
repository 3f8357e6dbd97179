"""`ssim` and `psnr`: how close a release stays to its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench.spec import Config as BaseConfig
from privbench.spec import NoConfig, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric


class PsnrConfig(BaseConfig):
    """Options of `psnr`."""

    cap: float = Field(100.0, gt=0, description="dB given to identical images, and the most.")


def build_ssim(config: NoConfig) -> Metric:
    """Structural similarity."""
    from privbench.types import Output
    from privbench_plugins.metrics._fidelity import Fidelity, ssim

    return Fidelity(ssim, Output("ssim", "higher", 0.0, unit="index"))


def build_psnr(config: PsnrConfig) -> Metric:
    """Peak signal-to-noise ratio."""
    from functools import partial

    from privbench.types import Output
    from privbench_plugins.metrics._fidelity import Fidelity, psnr

    return Fidelity(partial(psnr, cap=config.cap), Output("psnr", "higher", 0.0, unit="dB"))


SPECS = (
    PluginSpec(
        kind="metric",
        id="ssim",
        version=1,
        summary="Structural similarity of the release to its source.",
        build=build_ssim,
        tags=Tags(evidence="release"),
    ),
    PluginSpec(
        kind="metric",
        id="psnr",
        version=1,
        summary="Peak signal-to-noise ratio of the release to its source.",
        build=build_psnr,
        config=PsnrConfig,
        tags=Tags(evidence="release"),
    ),
)
