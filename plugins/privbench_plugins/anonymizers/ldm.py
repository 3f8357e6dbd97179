"""Anonymizers that release a sample of a latent diffusion model (Stable Diffusion, SDXL)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Anonymizer

SchedulerName = Literal["keep", "ddim", "dpmpp", "unipc", "euler"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16"]


class LdmConfig(Config):
    """Options of every latent diffusion anonymizer; the defaults suit `tiny-faces`."""

    model: str = Field(
        default="tiny-faces",
        description="`tiny-faces` (embedded), a local diffusers folder, a local single-file "
        "`.safetensors` checkpoint, or a hub id. Stable Diffusion 1.x/2.x and SDXL. "
        "`random:sd15`, `random:sdxl`: their architecture with random weights, timing only.",
    )
    revision: str = Field(
        default="", description="Branch, tag or commit of a hub `model`; empty: its default."
    )
    variant: str = Field(
        default="", description="Weight variant of `model` and `controlnet`, such as `fp16`."
    )
    prompt: str = Field(
        default="a portrait photo of a person", description="What the released image shows."
    )
    negative_prompt: str = Field(
        default="", description="What it should not show; needs guidance_scale above 1."
    )
    steps: int = Field(default=10, ge=1, le=1000, description="Denoising steps. SD 1.5: 20 to 50.")
    guidance_scale: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="Classifier-free guidance; up to 1 it is off, at half the cost. SD 1.5: 7.5.",
    )
    scheduler: SchedulerName = Field(
        default="keep", description="Sampler: the model's own, or one that reads its settings."
    )
    resolution: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Side of the square, in pixels, at which the model works; images are "
        "resized to it and back. 0: the model's own. SD 1.5: 512; SDXL: 1024.",
    )
    dtype: DtypeName = Field(
        default="auto", description="Number type; auto: float32 on CPU, float16 on a GPU."
    )
    batch_size: int = Field(
        default=16,
        ge=1,
        le=4096,
        description="Images denoised at once; smaller batches are padded to it, so that a "
        "result does not depend on the batch. Halved when GPU memory runs out.",
    )
    compile: bool = Field(
        default=False, description="Compile UNet and ControlNet; pays for long runs only."
    )


class CannyOptions(Config):
    """When a gradient is an edge."""

    low_threshold: float = Field(
        default=30,
        ge=0,
        le=2000,
        description="Canny: a weaker gradient (grey levels, after a blur) is never an edge.",
    )
    high_threshold: float = Field(
        default=80,
        ge=0,
        le=2000,
        description="Canny: a stronger gradient always is an edge.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_threshold > self.high_threshold:
            raise ValueError(
                "low_threshold must not be above high_threshold; got "
                f"{self.low_threshold:g} and {self.high_threshold:g}"
            )
        return self


class ControlNetCannyConfig(CannyOptions, LdmConfig):
    """Options of `controlnet-canny`."""

    controlnet: str = Field(
        default="tiny-faces-canny",
        description="A canny ControlNet for `model`: embedded name, local folder or hub id.",
    )
    controlnet_revision: str = Field(
        default="", description="Branch, tag or commit of a hub `controlnet`."
    )
    conditioning_scale: float = Field(
        default=1.0, ge=0, le=10, description="Strength of the edges; 0 ignores the source."
    )


def build_unconditional(config: LdmConfig) -> Anonymizer:
    """A sampler of fresh faces.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from privbench_plugins.anonymizers._ldm.assemble import unconditional

    return unconditional(config)


def build_controlnet_canny(config: ControlNetCannyConfig) -> Anonymizer:
    """A sampler steered by the source's edges.

    Raises:
        ModelError: the model or the ControlNet cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import controlnet_canny

    return controlnet_canny(config)


def model_weights(config: LdmConfig) -> Mapping[str, str]:
    """SHA-256 of every file of the diffusion model that is used.

    Raises:
        ModelError: the folder is not usable; most faults are found here, before any computing.
    """
    from privbench_plugins.anonymizers._ldm.parts import digests, pipeline_of

    return digests(model=pipeline_of(config))


def controlnet_weights(config: ControlNetCannyConfig) -> Mapping[str, str]:
    """As `model_weights`, with the ControlNet's files.

    Raises:
        ModelError: as `model_weights`, or the ControlNet does not fit the model.
    """
    from privbench_plugins.anonymizers._ldm.parts import control_of, digests, pipeline_of

    model = pipeline_of(config)
    return digests(model=model, controlnet=control_of(config, model))


SMOKE: Mapping[str, object] = {"steps": 2, "batch_size": 2}
LICENCE = "tiny-faces: CC0-1.0; any other model brings its own"

SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="controlnet-canny",
        version=1,
        summary="Latent diffusion sample that follows the source's Canny edges (ControlNet).",
        build=build_controlnet_canny,
        config=ControlNetCannyConfig,
        weights=controlnet_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="ldm-unconditional",
        version=1,
        summary="Latent diffusion sample that ignores the source: the negative control.",
        build=build_unconditional,
        config=LdmConfig,
        weights=model_weights,
        tags=Tags(control="negative", stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
)
