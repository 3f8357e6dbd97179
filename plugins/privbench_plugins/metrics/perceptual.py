"""`lpips`: perceptual distance, where the user has the weights of its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from privbench.errors import ConfigError
from privbench.spec import Config as BaseConfig
from privbench.spec import PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Metric

HEADS: Final = Path(__file__).parents[1] / "assets" / "lpips" / "heads.safetensors"


class LpipsConfig(BaseConfig):
    """Options of `lpips`."""

    backbone: str = Field(
        "",
        description="safetensors file with torchvision's ImageNet weights of `net`, under the "
        "names `features.*`; required, none is shipped",
    )
    net: Literal["alex", "vgg", "squeeze"] = Field(
        "alex", description="network of the backbone: AlexNet, VGG-16 or SqueezeNet 1.1"
    )
    heads: str = Field(
        "", description="safetensors file with linear heads `NET.0`, ...; empty: version 0.1"
    )


def build(config: LpipsConfig) -> Metric:
    """LPIPS."""
    from privbench.types import Output
    from privbench_plugins.metrics._fidelity import Fidelity
    from privbench_plugins.metrics._lpips import load

    weights(config)
    return Fidelity(load(config), Output("lpips", "lower", 1.0, unit="distance"))


def weights(config: LpipsConfig) -> Mapping[str, str]:
    """SHA-256 of backbone and heads.

    Raises:
        ConfigError: no backbone is given.
        ModelError: a file is missing or is not safetensors.
    """
    from privbench_plugins.models import digest, resolve

    if not config.backbone:
        raise ConfigError(
            "The metric lpips needs ImageNet weights that privbench does not ship. Save "
            "torchvision's `features.*` weights as safetensors and pass "
            "--set lpips.backbone=FILE."
        )
    backbone = digest(resolve(config.backbone))
    heads = digest(resolve(config.heads)) if config.heads else digest(HEADS)
    return {
        **{f"backbone/{name}": sha for name, sha in backbone.items()},
        **{f"heads/{name}": sha for name, sha in heads.items()},
    }


SPECS = (
    PluginSpec(
        kind="metric",
        id="lpips",
        version=1,
        summary="LPIPS perceptual distance; needs lpips.backbone=FILE, so it runs when named.",
        build=build,
        config=LpipsConfig,
        weights=weights,
        tags=Tags(evidence="release", default=False),
        licence="BSD-2-Clause (linear heads; Zhang et al. 2018)",
    ),
)
