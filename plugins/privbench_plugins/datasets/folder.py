"""`folder:PATH`: photographs of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench import PluginSpec, Tags
from privbench_plugins.datasets._settings import PhotosConfig

if TYPE_CHECKING:
    from privbench.types import FindDetector
    from privbench_plugins.datasets._photos import Photos


class FolderConfig(PhotosConfig):
    """Where the photographs are and who is on them."""

    path: str = Field(
        "",
        description="folder with one folder per person, or with the folders members, non-members "
        "and auxiliary (an audit), or a .csv or .parquet file",
    )
    subject_column: str = Field("subject", description="column that says who it is (files)")
    image_column: str = Field(
        "", description="column of paths relative to the file, or of images; empty: image or path"
    )
    attributes: tuple[str, ...] = Field(
        (), description="columns of what the images show, for utility metrics (files)"
    )


def build(config: FolderConfig, find: FindDetector | None = None) -> Photos:
    """Open the data set; images are read when they are asked for."""
    from privbench_plugins.datasets._folder import open_folder

    return open_folder(config, find)


SPECS = (
    PluginSpec(
        kind="dataset",
        id="folder",
        version=1,
        summary="Your own photographs: one folder per person, or a CSV or Parquet file.",
        build=build,
        config=FolderConfig,
        tags=Tags(aligns=True),
        argument="path",
    ),
)
