"""`inversion`, `reconstruction` and `reconstruction-lpips`: how far a release can be undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from privbench.errors import ConfigError
from privbench.spec import NoConfig, PluginSpec, Tags
from privbench_plugins.metrics import perceptual
from privbench_plugins.metrics.fidelity import PsnrConfig
from privbench_plugins.metrics.perceptual import LpipsConfig

if TYPE_CHECKING:
    from privbench.types import Metric


def build(config: NoConfig) -> Metric:
    """What recognisers make of the reconstructions."""
    from privbench_plugins.metrics._inversion import Recognition

    return Recognition()


def build_reconstruction(config: PsnrConfig) -> Metric:
    """PSNR and SSIM to the source."""
    from functools import partial

    from privbench.types import Output
    from privbench_plugins.metrics._fidelity import Fidelity, psnr, ssim
    from privbench_plugins.metrics._inversion import Reconstruction

    return Reconstruction(
        (
            Fidelity(partial(psnr, cap=config.cap), Output("psnr", "lower", config.cap, "dB")),
            Fidelity(ssim, Output("ssim", "lower", 1.0, "index")),
        )
    )


def build_lpips(config: LpipsConfig) -> Metric:
    """LPIPS to the source."""
    from privbench.types import Output
    from privbench_plugins.metrics._fidelity import Fidelity
    from privbench_plugins.metrics._inversion import Reconstruction
    from privbench_plugins.metrics._lpips import load

    weights(config)
    return Reconstruction((Fidelity(load(config), Output("lpips", "higher", 0.0, "distance")),))


def weights(config: LpipsConfig) -> Mapping[str, str]:
    """SHA-256 of backbone and heads.

    Raises:
        ConfigError: no backbone is given.
        ModelError: a file is missing or is not safetensors.
    """
    if not config.backbone:
        raise ConfigError(
            "The metric reconstruction-lpips needs the ImageNet weights that lpips needs: pass "
            "--set reconstruction-lpips.backbone=FILE."
        )
    return perceptual.weights(config)


SPECS = (
    PluginSpec(
        kind="metric",
        id="inversion",
        version=1,
        summary="Rank-1, matches and similarity of reconstructions beside those of the releases.",
        build=build,
        tags=Tags(evidence="inversion"),
    ),
    PluginSpec(
        kind="metric",
        id="reconstruction",
        version=1,
        summary="PSNR and SSIM of the reconstruction, and of the release, to the source.",
        build=build_reconstruction,
        config=PsnrConfig,
        tags=Tags(evidence="inversion"),
    ),
    PluginSpec(
        kind="metric",
        id="reconstruction-lpips",
        version=1,
        summary="LPIPS of reconstruction and release to the source; needs a backbone, as lpips.",
        build=build_lpips,
        config=LpipsConfig,
        weights=weights,
        tags=Tags(evidence="inversion", default=False),
        licence="BSD-2-Clause (linear heads; Zhang et al. 2018)",
    ),
)
