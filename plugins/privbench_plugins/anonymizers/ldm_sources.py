"""Anonymizers that use a source beyond a map of it: its latents, its background, its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import Field, field_validator, model_validator

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.anonymizers.ldm import LICENCE, SMOKE, LdmConfig, model_weights

if TYPE_CHECKING:
    from privbench.types import Anonymizer


class RegionOptions(Config):
    """Where a face is repainted."""

    dilate: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="Growth of the region that is hidden, as a share of the shorter side.",
    )
    feather: float = Field(
        default=0.04,
        ge=0,
        le=0.5,
        description="Width of the soft seam around the hidden region, as a share of the shorter "
        "side; source pixels are kept exactly beyond it.",
    )


class Img2ImgConfig(LdmConfig):
    """Options of `ldm-img2img`."""

    strength: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="Share of the steps that are done, from the source with that much noise; "
        "near 0 the source is released almost unchanged.",
    )

    @model_validator(mode="after")
    def _one_step(self) -> Self:
        if int(self.steps * self.strength) < 1:
            raise ValueError(
                f"strength x steps must reach one step; got {self.strength:g} x {self.steps}"
            )
        return self


class InpaintConfig(RegionOptions, LdmConfig):
    """Options of `ldm-inpaint`; `model` may be an inpainting model (UNet of 9 channels)."""


class CaptionConfig(LdmConfig):
    """Options of `ldm-caption`."""

    prompt: str = Field(
        default="{caption}",
        description="What the released image shows; {caption} stands for the source's caption.",
    )
    captioner: str = Field(
        default="tiny-captioner",
        description="Names what the source shows: `tiny-captioner` (embedded, for rendered "
        "faces), or a folder or hub id of BLIP (transformers), which real photos need.",
    )
    captioner_revision: str = Field(
        default="", description="Branch, tag or commit of a hub `captioner`."
    )

    @field_validator("prompt")
    @classmethod
    def _has_caption(cls, prompt: str) -> str:
        if "{caption}" not in prompt:
            raise ValueError(f"prompt must hold {{caption}}; got {prompt!r}")
        return prompt


def build_img2img(config: Img2ImgConfig) -> Anonymizer:
    """A sampler that starts from the source.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from privbench_plugins.anonymizers._ldm.assemble import img2img

    return img2img(config)


def build_inpaint(config: InpaintConfig) -> Anonymizer:
    """A sampler that paints the face anew.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from privbench_plugins.anonymizers._ldm.assemble import inpaint

    return inpaint(config)


def build_caption(config: CaptionConfig) -> Anonymizer:
    """A sampler that reads the source's caption.

    Raises:
        ModelError: the model or the captioner cannot be loaded.
    """
    from privbench_plugins.anonymizers._ldm.assemble import caption

    return caption(config)


def inpaint_weights(config: InpaintConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, landmark estimator.

    Raises:
        ModelError: one of them is not usable.
    """
    from privbench_plugins.anonymizers._ldm.parts import LANDMARKS, digests, pipeline_of

    return digests(model=pipeline_of(config, inpaint=True), landmarks=LANDMARKS)


def caption_weights(config: CaptionConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, captioner.

    Raises:
        ModelError: one of them is not usable.
    """
    from privbench_plugins.anonymizers._ldm.parts import captioner_of, digests, pipeline_of

    return digests(model=pipeline_of(config), captioner=captioner_of(config))


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="ldm-img2img",
        version=1,
        summary="Latent diffusion sample that starts from the noised source (SDEdit).",
        build=build_img2img,
        config=Img2ImgConfig,
        weights=model_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="ldm-inpaint",
        version=1,
        summary="The face is hidden and painted anew by latent diffusion; the background is kept.",
        build=build_inpaint,
        config=InpaintConfig,
        weights=inpaint_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="ldm-caption",
        version=1,
        summary="Latent diffusion sample from a caption of the source: words, no pixels.",
        build=build_caption,
        config=CaptionConfig,
        weights=caption_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
)
