"""Settings that black-box attacks on membership share, and the files behind them. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

ENCODER: Final = "tiny-encoder"
"""The embedded face encoder."""

LICENCE: Final = "Apache-2.0 (tiny-encoder, trained on CC0 renders)"

Negatives = Annotated[
    Literal["generated", "real", "base-model"],
    Field(
        description="what is no sample of the target: samples of a model that the attacker "
        "trained by the same recipe, its photos, or samples of the model before any training"
    ),
]
Embedder = Annotated[
    str,
    Field(
        min_length=1,
        description="what embeds images: tiny-encoder (embedded), or a folder or hub id of a "
        "vision model of transformers, such as CLIP",
    ),
]
Batch = Annotated[int, Field(ge=1, description="images scored at once")]


def network_files(name: str) -> Mapping[str, str]:
    """SHA-256 of each file of an embedder.

    Raises:
        ModelError: there is no such network.
    """
    from privbench_plugins.attacks.recogniser_files import PREPROCESSOR, backbone_folder
    from privbench_plugins.models import digest, file_digest

    folder = backbone_folder(name)
    files = digest(folder)
    if (extra := folder / PREPROCESSOR).is_file():
        files = files | {PREPROCESSOR: file_digest(extra)}
    return {f"{name}/{file}": sha for file, sha in files.items()}
