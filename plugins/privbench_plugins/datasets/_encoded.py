"""Labelled faces whose images stay encoded in memory until a part is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from privbench.errors import DataError
from privbench.keys import canonical_json, digest_bytes
from privbench.types import Ints, Labels
from privbench_plugins.datasets._decode import decode

COLUMNS = ("key", "subject", "population", "image")


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFaces:
    """See `privbench.data.Dataset`."""

    name: str
    keys: tuple[str, ...]
    subject: Ints
    population: np.ndarray[tuple[int], np.dtype[np.str_]]
    licence: str
    encoded: Sequence[bytes] = field(repr=False)
    digest: str
    attributes: Mapping[str, Labels] = field(default_factory=dict)
    rendered: bool = False

    def pixels(self, index: Ints) -> torch.Tensor:
        """(n, 3, H, W) uint8 RGB.

        Raises:
            DataError: an image cannot be decoded, or sizes differ; names the sample.
        """
        images = [self._decode(int(i)) for i in index]
        for i, image in zip(index, images, strict=True):
            if image.shape != images[0].shape:
                raise DataError(
                    f"{self.name}: image {self.keys[int(i)]!r} is {image.shape[1]}x"
                    f"{image.shape[0]}, others are {images[0].shape[1]}x{images[0].shape[0]}; "
                    "all images of a data set must have one size."
                )
        stacked = np.stack(images) if images else np.empty((0, 1, 1, 3), np.uint8)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()

    def _decode(self, row: int) -> np.ndarray:
        return decode(f"{self.name}: image {self.keys[row]!r}", self.encoded[row])


def read_parquet(
    name: str, folder: Path, licence: str, attributes: Sequence[str] = ()
) -> EncodedFaces:
    """Read every Parquet file of a folder, in name order.

    Args:
        name: of the data set.
        folder: holds the files.
        licence: of the images.
        attributes: columns of labels to read, where every file has them.

    Raises:
        DataError: no file, a file that is no Parquet, missing columns, repeated sample ids.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{name}: there is no Parquet file in {folder}.")
    tables = []
    present = _common_columns(paths, attributes)
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=[*COLUMNS, *present]))
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(
                f"{name}: cannot read {path.name} ({error}); expected Parquet with columns "
                f"{', '.join(COLUMNS)}."
            ) from error
    table = pa.concat_tables([t.replace_schema_metadata() for t in tables])
    if missing := [c for c in COLUMNS if c not in table.column_names]:
        raise DataError(f"{name}: column(s) {', '.join(missing)} missing in {folder}.")
    keys = tuple(table["key"].to_pylist())
    if len(set(keys)) != len(keys):
        raise DataError(f"{name}: sample ids are not distinct.")
    subject = table["subject"].to_numpy().astype(np.int64)
    population = np.array(table["population"].to_pylist(), dtype=np.str_)
    encoded = [row["bytes"] for row in table["image"].to_pylist()]
    labels = canonical_json([keys, subject.tolist(), population.tolist()])
    digest = digest_bytes([labels.encode(), *encoded])
    shown = {column: labels_of(column, table[column].to_pylist()) for column in present}
    return EncodedFaces(name, keys, subject, population, licence, encoded, digest, shown)


def _common_columns(paths: Sequence[Path], wanted: Sequence[str]) -> list[str]:
    """Those of the wanted columns that every file has; an unreadable file is met later."""
    try:
        schemas = [set(pq.read_schema(path).names) for path in paths]
    except (pa.ArrowException, OSError):
        return []
    return [column for column in wanted if all(column in names for names in schemas)]


def labels_of(column: str, values: Sequence[object]) -> Labels:
    """(N,) labels; a truth value is named by its column, nothing and NaN are unknown."""
    named = {True: column, False: f"no {column}"}

    def text(value: object) -> str:
        if value is None or value != value:
            return ""
        return named[value] if isinstance(value, bool) else str(value)

    return np.array([text(v) for v in values], dtype=np.str_)
