"""`hf:NAME`: photographs by Hugging Face `datasets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench import PluginSpec, Tags
from privbench_plugins.datasets._settings import PhotosConfig

if TYPE_CHECKING:
    from privbench.types import FindDetector
    from privbench_plugins.datasets._photos import Photos


class HubConfig(PhotosConfig):
    """Which data set, which part of it, and its columns."""

    path: str = Field(
        "", description="hub id, folder of data files, .parquet file, or folder of save_to_disk"
    )
    name: str = Field("", description="configuration of the data set; empty: its only one")
    split: str = Field("train", description="split, also with a slice: train[:10%]")
    revision: str = Field("", description="branch, tag or commit of a hub id; empty: its default")
    streaming: bool = Field(False, description="fetch rows as they come, not the whole data set")
    limit: int = Field(0, ge=0, description="rows to take from the start; 0: all")
    subject_column: str = Field("subject", description="column that says who it is")
    image_column: str = Field("image", description="column of images")
    attributes: tuple[str, ...] = Field(
        (), description="columns of what the images show, for utility metrics"
    )


def build(config: HubConfig, find: FindDetector | None = None) -> Photos:
    """Open the data set; nothing in it is executed."""
    from privbench_plugins.datasets._hub import open_hub

    return open_hub(config, find)


SPECS = (
    PluginSpec(
        kind="dataset",
        id="hf",
        version=1,
        summary="Photographs by Hugging Face datasets: a hub id, Parquet or save_to_disk.",
        build=build,
        config=HubConfig,
        tags=Tags(aligns=True),
        argument="path",
    ),
)
