"""`mia-regeneration`: what it is and can be set to. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, field_validator

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.attacks.membership.black_box import (
    ENCODER,
    Batch,
    Embedder,
    network_files,
)

if TYPE_CHECKING:
    from privbench.membership import MembershipAttack

CAPTION: Final = "{caption}"
"""Where the prompt takes the query's caption."""


class RegenerationConfig(Config):
    """Settings of `mia-regeneration`."""

    prompt: str = Field(
        default=f"office portrait, {CAPTION}",
        description="what the target is asked for; {caption} stands for the query's caption",
    )
    answers: int = Field(
        default=2, ge=1, le=64, description="images that the target makes of each query"
    )
    similarity: Literal["mean", "max"] = Field(
        default="mean", description="of the cosines of a query with its answers"
    )
    captioner: str = Field(
        default="tiny-captioner",
        description="names what a query shows: tiny-captioner (embedded, for rendered faces), or "
        "a folder or hub id of BLIP (transformers), which real photos need",
    )
    backbone: Embedder = ENCODER
    batch: Batch = 64

    @field_validator("prompt")
    @classmethod
    def _has_caption(cls, prompt: str) -> str:
        if CAPTION not in prompt:
            raise ValueError(f"prompt must hold {CAPTION}; got {prompt!r}")
        return prompt


def build(config: RegenerationConfig) -> MembershipAttack:
    """Build the attack."""
    from privbench_plugins.attacks.membership._regeneration import Regeneration

    return Regeneration(config)


def weights(config: RegenerationConfig) -> Mapping[str, str]:
    """SHA-256 of the embedder's and the captioner's files.

    Raises:
        ModelError: one of them is not usable.
    """
    from privbench_plugins.anonymizers._ldm.estimators import CAPTIONER, find_captioner
    from privbench_plugins.models import digest, resolve

    named = config.captioner == CAPTIONER
    files = digest(resolve(CAPTIONER)) if named else find_captioner(config.captioner).digest()
    captioner = {f"captioner/{file}": sha for file, sha in files.items()}
    return {**network_files(config.backbone), **captioner}


SPECS = (
    PluginSpec(
        kind="attack",
        id="mia-regeneration",
        version=1,
        summary="Likeness of a query to what the target makes of its caption (Pang and Wang)",
        build=build,
        config=RegenerationConfig,
        weights=weights,
        tags=Tags(knowledge="black-box", infers="queries"),
        smoke={"answers": 1, "batch": 8},
        licence="Apache-2.0 (tiny-encoder and tiny-captioner, trained on CC0 renders)",
    ),
)
