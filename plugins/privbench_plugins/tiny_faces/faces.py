"""The training renders: shards read from a folder, with identities held out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Faces:
    """Rendered faces.

    images: (N, 128, 128, 3) uint8 RGB. subjects: (N,) int64, the identity of each image.
    captions: N texts.
    """

    images: npt.NDArray[np.uint8]
    subjects: npt.NDArray[np.int64]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Faces:
        captions = tuple(self.captions[row] for row in rows)
        return Faces(self.images[rows], self.subjects[rows], captions)


def shard_count(folder: Path) -> int:
    """Return how many shards of `folder` are complete by now."""
    return len(list(folder.glob("*.jsonl")))


def load_faces(folder: Path) -> Faces:
    """Read the shards of `folder` that are complete by now: those whose JSON lines exist."""
    images: list[npt.NDArray[np.uint8]] = []
    subjects: list[int] = []
    captions: list[str] = []
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        images.append(np.load(path.with_name(f"{path.stem}-images.npy"), allow_pickle=False))
        subjects.extend(int(row["subject"]) for row in rows)
        captions.extend(str(row["caption"]) for row in rows)
    if not images:
        raise FileNotFoundError(f"No complete shard (*.jsonl) of training renders in {folder}.")
    return Faces(np.concatenate(images), np.array(subjects, np.int64), tuple(captions))


def split_faces(faces: Faces, every: int = 20) -> tuple[Faces, Faces]:
    """(training, held out): each `every`-th identity never trains.

    A rule on the identity's number, not a share of what has been read: shards appear one by
    one, and a share would move.
    """
    held_out = faces.subjects % every == every - 1
    return faces[np.flatnonzero(~held_out)], faces[np.flatnonzero(held_out)]
