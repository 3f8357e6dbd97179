"""`synthfaces`: the embedded data set of rendered heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from privbench import Config, PluginSpec

if TYPE_CHECKING:
    from privbench_plugins.datasets._encoded import EncodedFaces


ATTRIBUTES = ("age_group", "sex", "skin_tone", "hair", "glasses", "expression")
"""Columns whose labels utility metrics use, where the files have them."""


class SynthfacesConfig(Config):
    """Where the Parquet files are."""

    path: str = Field(
        "", description="folder of Parquet files with the same columns; empty: the shipped ones"
    )


def build(config: SynthfacesConfig) -> EncodedFaces:
    """Open the data set; images stay encoded until they are asked for."""
    from dataclasses import replace
    from importlib.resources import files
    from pathlib import Path

    from privbench_plugins.datasets._encoded import read_parquet

    shipped = Path(str(files("privbench_plugins").joinpath("assets", "synthfaces")))
    folder = Path(config.path) if config.path else shipped
    found = read_parquet("synthfaces", folder, "CC0-1.0 (rendered)", ATTRIBUTES)
    return replace(found, rendered=not config.path)


SPECS = (
    PluginSpec(
        kind="dataset",
        id="synthfaces",
        version=1,
        summary="Rendered heads with identity labels (embedded; no real person).",
        build=build,
        config=SynthfacesConfig,
        licence="CC0-1.0",
    ),
)
