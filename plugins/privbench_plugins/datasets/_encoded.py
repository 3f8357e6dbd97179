"""Labelled faces whose images stay encoded in memory until a part is asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, UnidentifiedImageError

from privbench.errors import DataError
from privbench.keys import canonical_json, digest_bytes
from privbench.types import Ints

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
        try:
            with Image.open(io.BytesIO(self.encoded[row])) as image:
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f"{self.name}: image {self.keys[row]!r} cannot be decoded ({error}). Replace or "
                "remove it; a damaged image is never dropped silently."
            ) from error


def read_parquet(name: str, folder: Path, licence: str) -> EncodedFaces:
    """Read every Parquet file of a folder, in name order.

    Raises:
        DataError: no file, a file that is no Parquet, missing columns, repeated sample ids.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{name}: there is no Parquet file in {folder}.")
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=list(COLUMNS)))
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
    return EncodedFaces(name, keys, subject, population, licence, encoded, digest)
