"""`synthfaces`: the embedded data set of rendered heads."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
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

    from privbench_plugins.datasets._encoded import read_parquet

    shipped = Path(str(files("privbench_plugins").joinpath("assets", "synthfaces")))
    folder = Path(config.path) if config.path else shipped
    found = read_parquet("synthfaces", folder, "CC0-1.0 (rendered)", ATTRIBUTES)
    return replace(found, rendered=not config.path or written_by_us(folder))


def written_by_us(folder: Path) -> bool:
    """Whether a manifest of our renderer stands beside the files, and lists each as it is."""
    try:
        body = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        listed = {name: file["sha256"] for name, file in body["files"].items()}
        files = {p.name: sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.parquet")}
        return body["name"] == "synthfaces" and "renderer_version" in body and files == listed
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


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
