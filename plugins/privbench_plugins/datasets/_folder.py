"""Photographs in folders, or listed in a CSV or Parquet file."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from privbench.errors import DataError, did_you_mean
from privbench.types import FindDetector
from privbench_plugins.datasets._encoded import labels_of
from privbench_plugins.datasets._photos import Photo, Photos, open_photos
from privbench_plugins.datasets.folder import FolderConfig

NAME: Final = "folder"
_LICENCE: Final = "not stated: the user's own images"
_DEEPEST: Final = 3
"""Parts of a photograph's path: a person's folder, at most one folder in it, the file."""

ROLES: Final = ("members", "non-members", "auxiliary")
"""Folders that say who was trained on: the populations of an audit (docs/membership.md)."""


def open_folder(config: FolderConfig, find: FindDetector | None = None) -> Photos:
    """Open a folder or a table of photographs.

    Raises:
        DataError: there is no such folder or file, it lacks a column, or nothing in it is usable.
    """
    path = Path(config.path).expanduser()
    if not config.path:
        raise DataError("folder: say which: `folder:PATH`, or the setting path=PATH.")
    if path.is_dir():
        roles = {"members", "non-members"} <= {p.name for p in path.iterdir() if p.is_dir()}
        if roles:
            _refuse_two_roles(path)
        layout = f"folders {', '.join(ROLES)}" if roles else "one folder per person"
        source: dict[str, Any] = {"layout": layout}
        return open_photos(NAME, list(_in_folders(path, roles)), config, source, _LICENCE, find)
    if not path.is_file():
        raise DataError(f"folder: there is no folder or file {path}.")
    readers: Mapping[str, Callable[[Path], tuple[list[str], Columns]]] = {
        ".csv": _csv,
        ".parquet": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"folder: expected a folder, a .csv or a .parquet file; got {path.name!r}.")
    names, columns = readers[path.suffix.lower()](path)
    image = config.image_column or ("image" if "image" in names else "path")
    for wanted in (config.subject_column, image, *config.attributes):
        if wanted not in names:
            raise DataError(
                f"folder: {path.name} has no column {wanted!r}. {did_you_mean(wanted, names)}"
            )
    source = {"layout": path.suffix.lower().removeprefix("."), "columns": names}
    photos = list(_in_table(path.parent, columns, config, image))
    return open_photos(NAME, photos, config, source, _LICENCE, find, config.attributes)


def _refuse_two_roles(root: Path) -> None:
    """Nobody is a member and none at once.

    Raises:
        DataError: a person's folder occurs under two roles.
    """
    people: dict[str, str] = {}
    for role in ROLES:
        for person in sorted((root / role).glob("*/")):
            if (other := people.setdefault(person.name, role)) != role:
                raise DataError(
                    f"folder: {_text(person.name)} has a folder in {other} and in {role}. A person "
                    "must have one role; if these are two people, rename one of the folders."
                )


Columns = Mapping[str, Sequence[Any]]


def _in_folders(root: Path, roles: bool = False) -> Iterator[Photo]:
    """Every file below a folder, by the name of the first folder in its path.

    With `roles` that folder is the population, and a photograph is of the person whose folder it is
    in there, or of one of its own.
    """
    home = root.resolve()
    for folder, below, files in os.walk(root):  # links to folders are not followed
        linked = [name for name in below if (Path(folder) / name).is_symlink()]
        for name in (*files, *linked):
            path = Path(folder) / name
            parts = path.relative_to(root).parts
            problem = _problem(path, home) if name not in linked else "is a link to a folder"
            if any(part.startswith(".") for part in parts):
                problem = "is hidden"
            elif len(parts) == 1:
                problem = problem or "lies in no person's folder"
            elif len(parts) > _DEEPEST:
                problem = problem or "lies deeper than one folder below a person's"
            elif roles and parts[0] not in ROLES:
                problem = problem or f"lies in none of {', '.join(ROLES)}"
            person, population = ("/".join(parts[:2]), parts[0]) if roles else (parts[0], NAME)
            key = _text("/".join(parts))
            yield Photo(key, _text(person), path.read_bytes, _text(population), (), problem)


def _in_table(root: Path, columns: Columns, config: FolderConfig, image: str) -> Iterator[Photo]:
    """Every row of a table: a path relative to it, or an encoded image."""
    home = root.resolve()
    people = labels_of(config.subject_column, columns[config.subject_column])
    shown = [labels_of(name, columns[name]) for name in config.attributes]
    unknown = [NAME] * len(people)
    places = labels_of("population", columns.get("population", unknown))
    paths = isinstance(next((c for c in columns[image] if c is not None), None), str)
    for row, (person, place) in enumerate(zip(people, places, strict=True)):
        about = (str(place) or NAME, tuple(str(labels[row]) for labels in shown))
        if paths:
            path = root / (columns[image][row] or "")
            key = _text(columns[image][row] or f"row {row}")
            yield Photo(key, str(person), path.read_bytes, *about, _problem(path, home))
        else:
            read = partial(_cell, columns[image], row)
            yield Photo(f"{row:08d}", str(person), read, *about)


def _cell(column: Sequence[Any], row: int) -> bytes:
    """An encoded image, plain or as `datasets` writes it."""
    cell = column[row]
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(data, bytes):
        raise OSError("its row holds no image")
    return data


def _problem(path: Path, home: Path) -> str:
    """Why a path is not read; "" where it may be. Links must not lead out of the data set."""
    try:
        if not path.resolve().is_relative_to(home):
            return "leads out of the data set's folder"
        return "" if path.is_file() else "is no file"
    except (OSError, RuntimeError, ValueError):  # too long, a circle of links, a null character
        return "is no path that can be followed"


def _text(name: str) -> str:
    """A file name as text: a byte that is no UTF-8 is spelt out, so that a digest can hold it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _csv(path: Path) -> tuple[list[str], Columns]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            names, rows = list(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"folder: cannot read {path.name} as CSV in UTF-8 ({error}).") from error
    return names, {name: [row[name] for row in rows] for name in names}


def _parquet(path: Path) -> tuple[list[str], Columns]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"folder: cannot read {path.name} as Parquet ({error}).") from error
    return table.column_names, {name: _Column(table[name]) for name in table.column_names}


class _Column(Sequence[Any]):
    """A column of a table, whose cells become Python objects one by one."""

    def __init__(self, cells: Any) -> None:
        self._cells = cells

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, row: Any) -> Any:
        return self._cells[row].as_py()
