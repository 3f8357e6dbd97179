"""Labelled photographs of any size and origin, read on demand and framed alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import ConfigError, DataError
from privbench.keys import canonical_json, digest_bytes
from privbench.types import Detector, FindDetector, FoundDetector, Ints, Labels
from privbench_plugins.datasets._align import similarity, square, template, warp
from privbench_plugins.datasets._decode import LONGEST, decode, each
from privbench_plugins.datasets._settings import PhotosConfig

VERSION: Final = 1
"""Of decoding and framing. Raise it when pixels change: it is part of every digest."""

LISTED: Final = 20
"""Files that are left out and listed with their reasons."""

_BLOCK: Final = 16
"""Images in memory at full size at once."""

_GLANCE: Final = 64
"""Longest side, in pixels, at which an image is decoded to see whether it can be."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph that a source offers.

    Attributes:
        key: sample id.
        label: who it is; "" where the source does not say.
        read: the encoded image.
        population: where it was taken.
        attributes: what it shows, one label for each name.
        problem: why it cannot be used, known before it is read; "" if nothing is.
    """

    key: str
    label: str
    read: Callable[[], bytes]
    population: str
    attributes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Photos:
    """See `privbench.data.Dataset`. `facts` goes into the record."""

    name: str
    keys: tuple[str, ...]
    subject: Ints
    population: Labels
    licence: str
    digest: str
    attributes: Mapping[str, Labels]
    facts: Mapping[str, Any]
    photos: Sequence[Photo] = field(repr=False)
    hashes: Sequence[str] = field(repr=False)
    side: int
    how: Literal["crop", "pad"]

    def pixels(self, index: Ints) -> Tensor:
        """(n, 3, side, side) uint8 RGB.

        Raises:
            DataError: a file has changed or gone since the data set was opened; names it.
        """
        out = torch.empty(len(index), 3, self.side, self.side, dtype=torch.uint8)
        for start in range(0, len(index), _BLOCK):
            rows = np.asarray(index[start : start + _BLOCK])
            images = each(self._image, rows)
            shapes = np.array([image.shape[:2] for image in images])
            for shape in np.unique(shapes, axis=0):  # images of one size go together
                where = np.flatnonzero((shapes == shape).all(1))
                stack = torch.from_numpy(np.stack([images[i] for i in where]))
                framed = self._framed(rows[where], stack.permute(0, 3, 1, 2))
                out[torch.from_numpy(start + where)] = framed
        return out

    def _framed(self, rows: Ints, pixels: Tensor) -> Tensor:
        return square(pixels, self.side, self.how)

    def _image(self, row: int) -> NDArray[np.uint8]:
        name = f"{self.name}: {self.keys[row]!r}"
        data = _read(name, self.photos[row])
        if sha256(data).hexdigest() != self.hashes[row]:
            raise DataError(f"{name} has changed since the data set was opened; start again.")
        return decode(name, data)


@dataclass(frozen=True, slots=True, eq=False)
class AlignedPhotos(Photos):
    """Photographs aligned by a detector; where it finds no face, the centred square.

    Attributes:
        detector: looks at an image once.
        refuse: stop at an image without a face.
        looked: (N,) which images it has looked at.
        moves: (N, 2) complex similarities to the template; NaN where there is no face.
    """

    detector: Detector
    refuse: bool
    looked: NDArray[np.bool_]
    moves: NDArray[np.complex128]

    def pixels(self, index: Ints) -> Tensor:
        """See `Photos.pixels`.

        Raises:
            DataError: also, with `on_undetected=refuse`, no face is found in an image.
        """
        out = Photos.pixels(self, index)
        missed = np.asarray(index)[~self._found(index)]
        if self.refuse and len(missed):
            raise DataError(
                f"{self.name}: no face is found in {self.keys[int(missed[0])]!r}; remove it, take "
                "another detector, or set on_undetected=centre."
            )
        return out

    def undetected(self, index: Ints) -> int:
        """How many of these images show no face to the detector; refuses none."""
        unseen = index[~self.looked[index]]
        if len(unseen):
            Photos.pixels(self, unseen)
        return int((~self._found(index)).sum())

    def _framed(self, rows: Ints, pixels: Tensor) -> Tensor:
        self._look(rows, pixels)
        out, found = square(pixels, self.side, self.how), self._found(rows)
        faces = torch.from_numpy(np.flatnonzero(found))
        out[faces] = warp(pixels[faces], self.moves[rows[found]], self.side)
        return out

    def _look(self, rows: Ints, pixels: Tensor) -> None:
        new = ~self.looked[rows]
        if new.any():
            points = self.detector.detect(pixels[torch.from_numpy(new)]).points
            self.moves[rows[new]] = similarity(points, template(self.side))
            self.looked[rows] = True

    def _found(self, rows: Ints) -> NDArray[np.bool_]:
        scale = self.moves[rows, 0]
        face: NDArray[np.bool_] = np.isfinite(scale) & (scale != 0)
        return face


def open_photos(
    name: str,
    photos: Sequence[Photo],
    config: PhotosConfig,
    source: Mapping[str, Any],
    licence: str,
    find: FindDetector | None = None,
    attributes: Sequence[str] = (),
    how: Literal["crop", "pad"] = "crop",
) -> Photos:
    """Read and decode every photograph once, and leave out what cannot be used.

    Args:
        name: of the data set.
        photos: what the source offers, in any order.
        config: framing, and what to do with bad files.
        source: for the record: where the images come from.
        licence: of the images.
        find: looks up the detector of the settings.
        attributes: names of the photographs' attributes.
        how: what makes an image square where no face is aligned.

    Returns:
        Photographs by key, subjects numbered in the order of their labels. The digest covers
        keys, subjects, populations, the files' bytes and the framing: not where the files lie.

    Raises:
        DataError: nothing is left; or, with `bad_images=refuse`, something cannot be used.
        ConfigError: there is no such detector.
    """
    chosen = _detector(config, find)
    offered = sorted(photos, key=lambda photo: photo.key)
    used, hashes, left_out = _usable(offered, each(_examined, offered))
    if left_out and config.bad_images == "refuse":
        raise DataError(
            f"{name}: {left_out[0]} Remove or replace it, or set bad_images=leave-out "
            f"({len(left_out)} of {len(offered)} files)."
        )
    if not used:
        example = f" For example: {left_out[0]}" if left_out else ""
        raise DataError(
            f"{name}: none of {len(offered)} files can be used; expected photographs and who is "
            f"on them.{example}"
        )
    labels, subject = np.unique([photo.label for photo in used], return_inverse=True)
    keys = tuple(photo.key for photo in used)
    population = np.array([photo.population for photo in used], dtype=np.str_)
    framing = {
        "version": VERSION,
        "side": config.side,
        "square": how,
        "longest": LONGEST,
        "detector": dict(chosen.facts) if chosen else None,
        "template": template(config.side).tolist() if chosen else None,
        "on_undetected": config.on_undetected if chosen else None,
    }
    body = canonical_json([keys, subject.tolist(), population.tolist(), framing])
    common: dict[str, Any] = {
        "name": name,
        "keys": keys,
        "subject": subject.astype(np.int64),
        "population": population,
        "licence": licence,
        "digest": digest_bytes([body.encode(), *(h.encode() for h in hashes)]),
        "attributes": {
            column: np.array([photo.attributes[i] for photo in used], dtype=np.str_)
            for i, column in enumerate(attributes)
        },
        "facts": {
            "source": dict(source),
            "images": len(used),
            "people": len(labels),
            "preprocessing": framing,
            "left_out": {"files": len(left_out), "first": left_out[:LISTED]},
        },
        "photos": used,
        "hashes": hashes,
        "side": config.side,
        "how": how,
    }
    if chosen is None:
        return Photos(**common)
    return AlignedPhotos(
        **common,
        detector=chosen.build(),
        refuse=config.on_undetected == "refuse",
        looked=np.zeros(len(used), dtype=np.bool_),
        moves=np.full((len(used), 2), np.nan, dtype=np.complex128),
    )


def _detector(config: PhotosConfig, find: FindDetector | None) -> FoundDetector | None:
    if config.detector == "none":
        return None
    if find is None:
        raise ConfigError(
            f"The detector {config.detector!r} cannot be looked up here: build the data set with "
            "`find`, or align nothing (detector=none)."
        )
    return find(config.detector)


def _examined(photo: Photo) -> str | DataError:
    """SHA-256 of a usable photograph's file, or why it cannot be used."""
    if photo.problem:
        return DataError(f"{photo.key!r} {photo.problem}.")
    if not photo.label:
        return DataError(f"{photo.key!r} names no person.")
    try:
        data = _read(repr(photo.key), photo)
        decode(repr(photo.key), data, _GLANCE)
    except DataError as error:
        return error
    return sha256(data).hexdigest()


def _usable(
    photos: Sequence[Photo], found: Sequence[str | DataError]
) -> tuple[list[Photo], list[str], list[str]]:
    """Photographs that can be used, the SHA-256 of their files, and why the others cannot.

    A file that occurs twice counts once: a probe must not meet itself in the gallery.
    """
    used: dict[str, Photo] = {}
    left_out = []
    for photo, outcome in zip(photos, found, strict=True):
        if isinstance(outcome, DataError):
            left_out.append(str(outcome))
        elif outcome in used:
            left_out.append(f"{photo.key!r} has the same bytes as {used[outcome].key!r}.")
        else:
            used[outcome] = photo
    return list(used.values()), list(used), left_out


def _read(name: str, photo: Photo) -> bytes:
    try:
        return photo.read()
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror or error}).") from error
