"""`inversion-linear`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Inverter


class LinearConfig(Config):
    """Settings of `inversion-linear`."""

    queries: int = Field(
        default=0,
        ge=0,
        description="oracle queries for training and choosing; 0: each of the attacker's photos "
        "once",
    )
    basis: Literal["auto", "pca", "patch"] = Field(
        default="auto",
        description="principal components of whole images, or patches with their surroundings, "
        "shared over positions; auto: by validation",
    )
    side: int = Field(
        default=128, ge=16, le=1024, description="longer side, in pixels, of what is mapped"
    )
    components: int = Field(
        default=0, ge=0, description="principal components of the releases; 0: by validation"
    )
    penalty: float = Field(
        default=0.0, ge=0, description="of the ridge, per sample; 0: by validation"
    )
    patch: int = Field(default=8, ge=1, le=64, description="side of a reconstructed patch")
    margin: int = Field(default=8, ge=0, le=64, description="released pixels seen around a patch")
    samples: int = Field(default=24000, ge=64, description="patches that are trained on, at most")


def build(config: LinearConfig) -> Inverter:
    """Build the attack."""
    from privbench_plugins.attacks.inversion._linear import LinearInverter

    return LinearInverter(config)


def weights(config: LinearConfig) -> Mapping[str, str]:
    """SHA-256 of the weight files of the encoder that chooses."""
    from privbench_plugins.models import digest, resolve

    name = "tiny-encoder"
    return {f"{name}/{file}": value for file, value in digest(resolve(name)).items()}


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="attack",
        id="inversion-linear",
        version=1,
        summary="Reconstructs sources by ridge regression, of whole images or of patches: the "
        "floor that every learned inversion should beat.",
        build=build,
        config=LinearConfig,
        weights=weights,
        tags=Tags(knowledge="adaptive", inverts=True),
        smoke={"side": 32, "samples": 512},
        licence="Apache-2.0 (tiny-encoder, trained on CC0 renders)",
    ),
)
