"""The contact sheet of the documentation, drawn from the shipped files."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from .arrays import Bytes
from .build import FOLDER

CELL = 96
_COLUMNS, _STRIDE = 8, 12
_ROWS = (("wild", 6), ("campus-a", 2), ("campus-b", 2))


def write_sheet(out: Path, data: Path = FOLDER) -> None:
    """Ten subjects by eight images, then three populations with their depth."""
    populations = {name: _read(data, name) for name, _ in _ROWS}
    strips = []
    for name, count in _ROWS:
        for row in range(count):
            first = row * _STRIDE * 10
            strips.append(_strip([images for images, _ in populations[name][first : first + 8]]))
    strips.append(np.full((CELL // 4, CELL * _COLUMNS, 3), 255, np.uint8))
    for pairs in populations.values():
        shown = pairs[55 : 55 + 10 * _COLUMNS // 2 : 10]
        strips.append(_strip([image for pair in shown for image in pair]))
    sheet = Image.fromarray(np.concatenate(strips))
    out.parent.mkdir(parents=True, exist_ok=True)
    palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT)
    sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


def _read(data: Path, population: str) -> list[tuple[Bytes, Bytes]]:
    """Image and depth of every sample of the first file of a population."""
    path = sorted(data.glob(f"{population}-*.parquet"))[0]
    table = pq.read_table(path, columns=["image", "depth"]).to_pylist()
    return [(_decode(row["image"]["bytes"]), _decode(row["depth"]["bytes"])) for row in table]


def _decode(encoded: bytes) -> Bytes:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB").resize((CELL, CELL), Image.Resampling.BOX))


def _strip(cells: list[Bytes]) -> Bytes:
    return np.asarray(np.concatenate(cells[:_COLUMNS], 1), np.uint8)
