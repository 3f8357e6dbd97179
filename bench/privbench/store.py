"""Write-once artefacts, addressed by the hash of everything they depend on.

Layout, in a directory or any fsspec URL:

    steps/<stage>/<plugin>/<key>.json   commit marker: inputs, parts with SHA-256, notes
    parts/<key>/<index>-<sha256>.safetensors

A part is published by an atomic rename and named by its own hash; the marker comes last.
A process killed at any moment therefore leaves whole parts and no half artefact, and the
next run takes up the parts that are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from privbench.errors import StoreError

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Artefact:
    """A finished step.

    Attributes:
        key: hash of its inputs.
        inputs: what went into the key.
        parts: file name of each part, in order.
        notes: JSON facts beside the arrays (timings, reports); not part of the key.
    """

    key: str
    inputs: Mapping[str, Any]
    parts: tuple[str, ...]
    notes: Mapping[str, Any]


class Store:
    """Artefacts under one root; safe for several processes at once."""

    def __init__(self, url: str) -> None:
        """Open, creating nothing yet.

        Args:
            url: a directory, or an fsspec URL such as `s3://bucket/prefix`.

        Raises:
            StoreError: no such protocol, or its driver is not installed.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise StoreError(f"Cannot open the store {url!r}: {error}") from error
        self._local = "file" in (
            self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        )
        self.url = url

    def find(self, stage: str, plugin: str, key: str) -> Artefact | None:
        """The finished artefact of this key, or None."""
        path = self._marker(stage, plugin, key)
        try:
            return _artefact(json.loads(self._fs.cat_file(path)))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"The store's marker {path} is damaged ({error}). Delete that file, or run "
                "again with --repair to recompute the step."
            ) from error
        except OSError as error:
            raise StoreError(f"Cannot read the store at {self.url}: {error}") from error

    def siblings(self, stage: str, plugin: str) -> list[Artefact]:
        """Finished artefacts of the same stage and plugin, newest first: for `explain`."""
        folder = self._path("steps", stage, _safe(plugin))
        try:
            listed = self._fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        found = []
        for info in sorted(listed, key=lambda i: float(i.get("mtime") or 0), reverse=True):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found.append(_artefact(json.loads(self._fs.cat_file(info["name"]))))
        return found

    def parts(self, key: str) -> dict[int, str]:
        """Whole parts that exist for a key, committed or not: index -> file name."""
        try:
            names = [posixpath.basename(p) for p in self._fs.ls(self._path("parts", key), False)]
        except FileNotFoundError:
            return {}
        return {
            int(name.partition("-")[0]): name for name in names if name.endswith(".safetensors")
        }

    def write_part(self, key: str, index: int, arrays: Arrays) -> str:
        """Publish one part; returns its file name.

        Raises:
            StoreError: the disk is full or not writable.
        """
        data = save_safetensors({k: np.ascontiguousarray(v) for k, v in arrays.items()})
        name = f"{index:05d}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"
        self._write(self._path("parts", key, name), data)
        return name

    def read_part(self, key: str, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of one part.

        Raises:
            StoreError: it is missing, truncated or altered.
        """
        path = self._path("parts", key, name)
        advice = "Run again with --repair to recompute the step."
        try:
            data = self._fs.cat_file(path)
        except FileNotFoundError:
            raise StoreError(f"The store lacks {path}. {advice}") from None
        except OSError as error:
            raise StoreError(f"Cannot read {path}: {error}") from error
        expected = name.partition("-")[2].partition(".")[0]
        if hashlib.sha256(data).hexdigest()[:32] != expected:
            raise StoreError(
                f"The store's file {path} is truncated or altered: its {len(data)} bytes do "
                f"not have the SHA-256 in its name. {advice}"
            )
        try:
            return dict(load_safetensors(data))
        except SafetensorError as error:
            raise StoreError(f"{path} is not a safetensors file ({error}). {advice}") from error

    def commit(
        self,
        stage: str,
        plugin: str,
        key: str,
        inputs: Mapping[str, Any],
        parts: tuple[str, ...],
        notes: Mapping[str, Any],
    ) -> Artefact:
        """Declare an artefact finished. The first to commit a key wins; later ones read it."""
        if existing := self.find(stage, plugin, key):
            return existing
        artefact = Artefact(key, inputs, parts, notes)
        body = {"key": key, "inputs": inputs, "parts": parts, "notes": notes}
        text = json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        self._write(self._marker(stage, plugin, key), text.encode())
        return artefact

    def read(self, artefact: Artefact) -> Iterator[dict[str, NDArray[Any]]]:
        """The parts of an artefact, one at a time."""
        for name in artefact.parts:
            yield self.read_part(artefact.key, name)

    def discard(self, stage: str, plugin: str, key: str) -> None:
        """Forget an artefact: the marker first, so that no reader meets half of it."""
        for path in (self._marker(stage, plugin, key), self._path("parts", key)):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(path, recursive=True)

    def drop_part(self, key: str, name: str) -> None:
        """Remove one part that no marker lists."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._path("parts", key, name))

    def _marker(self, stage: str, plugin: str, key: str) -> str:
        return self._path("steps", stage, _safe(plugin), f"{key}.json")

    def _path(self, *names: str) -> str:
        return posixpath.join(self._root, *names)

    def _write(self, path: str, data: bytes) -> None:
        try:
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            if self._local:
                _write_local(path, data)
            else:
                self._fs.pipe_file(path, data)
        except OSError as error:
            raise StoreError(
                f"Cannot write {len(data):,} bytes to the store at {self.url}: {error}. What is "
                "finished is kept; free some space or choose another --store and run again."
            ) from error


def _write_local(path: str, data: bytes) -> None:
    """Write beside the target and rename, so that a reader sees all of it or nothing."""
    temporary = f"{path}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as file:  # noqa: PTH123 - plain os-level calls throughout
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def _safe(plugin: str) -> str:
    """`dist/name` as one folder name; ids hold no other character that matters."""
    return plugin.replace("/", "__")


def _artefact(body: Mapping[str, Any]) -> Artefact:
    return Artefact(body["key"], body["inputs"], tuple(body["parts"]), body["notes"])
