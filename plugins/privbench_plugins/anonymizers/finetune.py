"""A generative anonymizer: a latent diffusion model fine-tuned on the images to protect, whose
samples are released in their place (Holme et al., VISAPP 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from privbench.spec import RANDOM, GeneratorConfig, PluginSpec, Tags
from privbench_plugins.anonymizers.ldm import LICENCE, DtypeName, SchedulerName

if TYPE_CHECKING:
    from privbench.membership import Generator

CAPTION = "{caption}"
_SAMPLING = (
    "samples",
    "released_epoch",
    "prompt",
    "guidance_scale",
    "steps",
    "scheduler",
    "dtype",
    "batch_size",
)
"""Settings that only say how a trained model is sampled."""


class LdmFinetuneConfig(GeneratorConfig):
    """What is fine-tuned, how, and how the result is sampled; the defaults suit `tiny-faces`."""

    pretrained: str = Field(
        default="tiny-faces",
        description="What is fine-tuned: `tiny-faces` (embedded), a local diffusers folder, a "
        "local single-file `.safetensors` checkpoint, or a hub id. Stable Diffusion 1.x/2.x, SDXL.",
    )
    revision: str = Field(
        default="", description="Branch, tag or commit of a hub `pretrained` or `model`."
    )
    variant: str = Field(
        default="", description="Weight variant of `pretrained` or `model`, such as `fp16`."
    )
    resolution: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Side of the square, in pixels, at which the model works. 0: its own.",
    )
    model: str = Field(
        default="",
        description="A model that is fine-tuned already, named like `pretrained`: it is sampled, "
        "and nothing is trained.",
    )
    release: str = Field(
        default="",
        description="A folder of images that were generated already: nothing is trained, nothing "
        "sampled.",
    )
    method: Literal["full", "lora"] = Field(
        default="full",
        description="What is trained of the UNet: everything, or low-rank additions to its "
        "attention projections (LoRA; needs privbench[lora]).",
    )
    rank: int = Field(default=8, ge=1, le=1024, description="Rank of LoRA's additions.")
    epochs: int = Field(
        default=40,
        ge=0,
        le=100_000,
        description="Times that every image is seen. 0: the pretrained model as it is.",
    )
    keep: tuple[int, ...] = Field(
        default=(), description="Epochs whose models can be released besides the last."
    )
    learning_rate: float = Field(default=3e-4, gt=0, le=1, description="Of AdamW; constant.")
    batch: int = Field(default=32, ge=1, le=4096, description="Images per training step.")
    caption: str = Field(
        default="office portrait, {caption}",
        description="Caption of each training image; {caption}, which may be left out, stands "
        "for what the captioner writes.",
    )
    captioner: str = Field(
        default="tiny-captioner",
        description="Names what an image shows: `tiny-captioner` (embedded, for rendered faces), "
        "or a folder or hub id of BLIP (transformers), which real photos need.",
    )
    captioner_revision: str = Field(
        default="", description="Branch, tag or commit of a hub `captioner`."
    )
    unconditional: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of training samples whose caption is dropped; guidance needs some.",
    )
    released_epoch: int = Field(
        default=0, ge=0, description="Epoch whose model is released. 0: the last."
    )
    prompt: str = Field(default="office portrait", description="What released images show.")
    guidance_scale: float = Field(
        default=7.5, ge=0, le=100, description="Classifier-free guidance; up to 1 it is off."
    )
    steps: int = Field(default=20, ge=1, le=1000, description="Denoising steps.")
    scheduler: SchedulerName = Field(
        default="keep", description="Sampler: the model's own, or one that reads its settings."
    )
    dtype: DtypeName = Field(
        default="auto",
        description="Number type of sampling; auto: float32 on CPU, float16 on a GPU.",
    )
    batch_size: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="Images sampled at once; smaller batches are padded to it. Halved when GPU "
        "memory runs out.",
    )

    @field_validator("pretrained", "model")
    @classmethod
    def _trained_weights(cls, name: str) -> str:
        if name.startswith(RANDOM):
            raise ValueError(f"random weights generate nothing to release; got {name!r}")
        return name

    @field_validator("caption", "prompt")
    @classmethod
    def _no_other_braces(cls, text: str) -> str:
        if set(text.replace(CAPTION, "")) & set("{}"):
            raise ValueError(f"the only placeholder of a caption is {CAPTION}; got {text!r}")
        return text

    @field_validator("keep")
    @classmethod
    def _in_order(cls, keep: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(keep)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.pretrained:
            raise ValueError("pretrained must name a model")
        if self.model and self.release:
            raise ValueError("set model= or release=, not both: one of them is audited")
        if CAPTION in self.prompt:
            raise ValueError(f"prompt is that of images to come: it cannot hold {CAPTION}")
        if self.keep and not 1 <= self.keep[0] <= self.keep[-1] <= self.epochs:
            raise ValueError(f"keep must lie in 1 to epochs={self.epochs}; got {self.keep}")
        if self.released_epoch not in (0, *self.keep, self.epochs):
            raise ValueError(
                f"released_epoch={self.released_epoch} is not kept: add it to keep, or choose "
                f"epochs={self.epochs}"
            )
        return self

    @property
    def captioned(self) -> bool:
        """Whether training needs a captioner."""
        return CAPTION in self.caption

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return not self.model and not self.release and self.epochs > 0

    def recipe(self) -> Mapping[str, Any]:
        """The settings on which the weights that are kept depend; empty where none are trained."""
        unused = {"model", "release", *_SAMPLING}
        unused |= set() if self.method == "lora" else {"rank"}
        unused |= set() if self.captioned else {"captioner", "captioner_revision"}
        return self.model_dump(mode="json", exclude=unused) if self.trains else {}

    def checkpoint(self) -> int:
        """After how many epochs the released model is taken."""
        return self.released_epoch or self.epochs

    def released_epochs(self) -> tuple[int, ...]:
        """All epochs whose models one training keeps."""
        return tuple(sorted({*self.keep, self.epochs}))

    def own(self) -> LdmFinetuneConfig:
        """The same settings, with nothing that is there already."""
        return self.model_copy(update={"model": "", "release": ""})

    def base(self) -> LdmFinetuneConfig:
        """The pretrained model as it is, sampled in the same way."""
        return self.own().model_copy(update={"epochs": 0, "keep": (), "released_epoch": 0})


def build(config: LdmFinetuneConfig) -> Generator:
    """The generator; models are loaded when it trains or is restored."""
    from privbench_plugins.anonymizers._finetune.generator import FineTuning

    return FineTuning(config)


def weights(config: LdmFinetuneConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model and captioner, or the released images.

    Raises:
        ModelError: a model is not usable; most faults are found here, before any computing.
        DataError: there are no released images.
    """
    from privbench_plugins.anonymizers._finetune.files import digests_of

    return digests_of(config)


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="ldm-finetune",
        version=1,
        summary="Samples of a latent diffusion model fine-tuned on the images to protect.",
        build=build,
        config=LdmFinetuneConfig,
        weights=weights,
        tags=Tags(stochastic=True, generates=True, fit_on="release"),
        smoke={"epochs": 1, "samples": 4, "steps": 2, "batch_size": 2},
        licence=LICENCE,
    ),
)
