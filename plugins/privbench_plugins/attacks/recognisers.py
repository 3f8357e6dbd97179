"""The attack `naive-recogniser`: what it is and what can be set. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, field_validator

from privbench.errors import ConfigError, did_you_mean
from privbench.spec import Config, PluginSpec, Tags

if TYPE_CHECKING:
    from privbench.types import Attack

NAMES: Final = (
    "auto", "tiny-encoder", "tiny-recogniser", "dlib", "onnx:PATH", "transformers:NAME",
)  # fmt: skip
"""What `recognisers` may hold; the last two with a path or a hub id in place of the capitals."""


class RecogniserConfig(Config):
    """Settings of `naive-recogniser`."""

    recognisers: tuple[str, ...] = Field(
        ("auto",),
        min_length=1,
        description="candidates, of which validation chooses: tiny-encoder, tiny-recogniser, dlib, "
        "onnx:PATH, transformers:FOLDER_OR_HUB_ID; auto: tiny-encoder, and dlib where it is "
        "installed (tiny-recogniser judges inversions, and stays unseen)",
    )
    doublings: int = Field(
        1, ge=0, le=3, description="times that dlib's detector doubles an image to find small faces"
    )
    mean: float = Field(127.5, description="onnx: grey level that becomes 0")
    std: float = Field(127.5, gt=0, description="onnx: grey levels that become 1")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="onnx: order of the colours")
    fusion: Literal["auto", "max", "mean"] = Field(
        "auto", description="how scores of several references combine; auto: by validation"
    )
    mirror: Literal["auto", "on", "off"] = Field(
        "auto", description="average a face's embedding with its mirror's; auto: by validation"
    )
    embed_batch: int = Field(64, ge=1, description="images embedded at once")

    @field_validator("recognisers", mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("recognisers")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        kinds = {name.partition(":")[0]: ":" in name for name in NAMES}
        for name in value:
            kind, colon, rest = name.partition(":")
            if kind not in kinds:
                raise ConfigError(f"There is no recogniser {name!r}. {did_you_mean(name, NAMES)}")
            if kinds[kind] != bool(colon and rest):
                form = next(n for n in NAMES if n.partition(":")[0] == kind)
                raise ConfigError(f"The recogniser {kind!r} is written {form!r}; got {name!r}.")
        return value


def build(config: RecogniserConfig) -> Attack:
    """Build the attack."""
    from privbench_plugins.attacks.naive import NaiveRecogniser

    return NaiveRecogniser(config)


def weights(config: RecogniserConfig) -> Mapping[str, str]:
    """SHA-256 of every file of every candidate: what is installed here is part of the key.

    Raises:
        ModelError: a file is missing.
        PluginLoadError: dlib is asked for by name and is not installed.
    """
    from privbench_plugins.attacks.recogniser_files import files
    from privbench_plugins.models import file_digest

    return {name: file_digest(path) for name, path in files(config).items()}


SPECS = (
    PluginSpec(
        kind="attack",
        id="naive-recogniser",
        version=1,
        summary="Pretrained face recognisers as they are; the strongest on validation is used",
        build=build,
        config=RecogniserConfig,
        weights=weights,
        tags=Tags(knowledge="none"),
        smoke={"recognisers": ["tiny-encoder"]},
        argument="recognisers",
        licence="Apache-2.0 (tiny-encoder and tiny-recogniser, trained on CC0 renders); "
        "CC0 (dlib's models)",
    ),
)
