"""`inversion-optimise`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Inverter


class OptimiseConfig(Config):
    """Settings of `inversion-optimise`."""

    queries: int = Field(
        default=0,
        ge=0,
        description="oracle queries for training and choosing; 0: each of the attacker's photos "
        "once, and what choosing the search takes",
    )
    queries_per_image: int = Field(
        default=24, ge=1, description="oracle queries for each reconstructed image, at most"
    )
    model: str = Field(
        default="tiny-faces",
        description="diffusers folder or hub id in whose autoencoder's latent space is searched",
    )
    revision: str = Field(default="", description="hub revision of `model`")
    side: int = Field(
        default=128, ge=32, le=1024, description="longer side, in pixels, of a candidate"
    )
    distance: Literal["auto", "pixels", "latents"] = Field(
        default="auto",
        description="what a candidate must lower: the distance of its release to the given one in "
        "pixels, or as latents that a ridge regression reads off both; auto: by validation",
    )
    explore: float = Field(
        default=0.5, ge=0, le=1, description="share of the queries that go to random perturbations"
    )
    margin: int = Field(default=8, ge=0, le=64, description="released pixels seen around a latent")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="precision of the autoencoder; auto: bfloat16 where it is native",
    )


def build(config: OptimiseConfig) -> Inverter:
    """Build the attack."""
    from privbench_plugins.attacks.inversion._optimise import OptimiseInverter

    return OptimiseInverter(config)


def weights(config: OptimiseConfig) -> Mapping[str, str]:
    """SHA-256 of the weight files of the encoder that chooses, and of the autoencoder."""
    from privbench_plugins.models import digest, resolve

    encoder, model = "tiny-encoder", config.model
    own = digest(resolve(encoder))
    searched = digest(resolve(model, config.revision) / "vae")
    return {f"{encoder}/{file}": value for file, value in own.items()} | {
        f"{model}/vae/{file}": value for file, value in searched.items()
    }


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="attack",
        id="inversion-optimise",
        version=1,
        summary="Searches, without gradients, the latent space of an autoencoder for an image "
        "that the anonymizer turns into what was released.",
        build=build,
        config=OptimiseConfig,
        weights=weights,
        tags=Tags(knowledge="adaptive", inverts=True),
        smoke={"side": 32, "queries_per_image": 4},
        licence="Apache-2.0 (tiny-encoder and tiny-faces, trained on CC0 renders)",
    ),
)
