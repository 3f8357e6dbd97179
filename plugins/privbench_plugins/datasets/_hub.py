"""Photographs by Hugging Face `datasets`, undecoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import datasets
import fsspec

from privbench.errors import ConfigError, DataError, did_you_mean
from privbench.types import FindDetector
from privbench_plugins.datasets._encoded import labels_of
from privbench_plugins.datasets._photos import Photo, Photos, open_photos
from privbench_plugins.datasets.hf import HubConfig

NAME: Final = "hf"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def open_hub(config: HubConfig, find: FindDetector | None = None) -> Photos:
    """Open a data set.

    A branch or tag of a hub id is looked up first and the commit behind it is loaded, so that
    the record names exactly what was used.

    Raises:
        DataError: it cannot be loaded, lacks a column, or nothing in it is usable.
        ConfigError: settings that do not go together.
    """
    if not config.path:
        raise DataError("hf: say which: `hf:NAME`, or the setting path=NAME.")
    if config.streaming and not config.limit:
        raise ConfigError("hf: streaming needs limit=ROWS, or it would never know where to stop.")
    local = Path(config.path).expanduser()
    commit = "" if local.exists() else _commit(config)
    try:
        rows = _rows(config, local, commit)
    except Exception as error:  # datasets raises its own, the hub's, pyarrow's and OS errors
        raise _unusable(config, error) from error
    names = rows.column_names
    for wanted in (config.subject_column, config.image_column, *config.attributes):
        if wanted not in names:
            raise DataError(
                f"hf: {config.path} has no column {wanted!r}. {did_you_mean(wanted, names)}"
            )
    source = {
        "id": config.path if commit else local.name,
        "name": config.name,
        "split": config.split,
        "revision": commit,
        "limit": config.limit,
    }
    licence = str(getattr(rows.info, "license", "") or "") or "see the data set's card"
    photos = _photos(rows, config)
    return open_photos(NAME, photos, config, source, licence, find, config.attributes)


def _rows(config: HubConfig, local: Path, commit: str) -> Any:
    """The rows with undecoded images: memory-mapped, or the first of a stream in memory."""
    if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
        found = datasets.load_from_disk(str(local))
        rows = found[config.split] if isinstance(found, Mapping) else found
    elif local.is_file():
        rows = datasets.load_dataset(
            "parquet", data_files=str(local), split=config.split, streaming=config.streaming
        )
    else:
        rows = datasets.load_dataset(
            str(local) if local.is_dir() else config.path,
            config.name or None,
            split=config.split,
            revision=commit or None,
            streaming=config.streaming,
        )
    rows = _undecoded(rows, config.image_column)
    if config.streaming:
        taken = datasets.Dataset.from_list(list(islice(rows, config.limit)), rows.features)
        return _undecoded(taken, config.image_column)  # a stream may not know its columns
    return rows.select(range(min(config.limit, len(rows)))) if config.limit else rows


def _undecoded(rows: Any, column: str) -> Any:
    if column not in (rows.features or ()):
        return rows
    return rows.cast_column(column, datasets.Image(decode=False))


def _photos(rows: Any, config: HubConfig) -> list[Photo]:
    """Every row; an image is read from it when asked for."""
    shown = {
        name: labels_of(name, _named(rows, name))
        for name in (config.subject_column, *config.attributes)
    }
    people = shown[config.subject_column]
    places = (
        labels_of("population", _named(rows, "population"))
        if "population" in rows.column_names
        else [NAME] * len(people)
    )
    images = rows.select_columns([config.image_column])
    return [
        Photo(
            f"{row:08d}",
            str(people[row]),
            partial(_image, images, row, config.image_column),
            str(places[row]) or NAME,
            tuple(str(shown[name][row]) for name in config.attributes),
        )
        for row in range(len(people))
    ]


def _named(rows: Any, column: str) -> Sequence[Any]:
    """A column's values; classes by their names, where they have any."""
    values, feature = list(rows[column]), rows.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return ["" if value is None or value < 0 else feature.int2str(value) for value in values]
    return values


def _image(images: Any, row: int, column: str) -> bytes:
    cell = images[row][column] or {}
    if (data := cell.get("bytes")) is not None:
        return bytes(data)
    if not cell.get("path"):
        raise OSError("its row holds no image")
    with fsspec.open(cell["path"], "rb") as file:
        return bytes(file.read())


def _commit(config: HubConfig) -> str:
    """The commit that a branch or tag of a hub data set stands for now."""
    if _COMMIT.fullmatch(config.revision):
        return config.revision
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(config.path, revision=config.revision or None)
    except Exception as error:  # the hub raises its own, httpx's and OS errors
        raise _unusable(config, error) from error
    return str(info.sha)


def _unusable(config: HubConfig, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return DataError(
        f"hf: {config.path!r} could not be loaded ({type(error).__name__}: {reason}). Check id, "
        "name and split; without a connection, pass a local folder, or the full commit as "
        "revision of a data set that is in the cache."
    )
