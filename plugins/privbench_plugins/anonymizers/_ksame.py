"""k-Same: averages of faces of at least k people, shared bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import PluginError
from privbench.types import UNKNOWN, Floats, ImageBatch, ImageSet, Ints, quantize


def greedy_groups(features: Floats, k: int) -> Ints:
    """Groups of near points, as k-Same forms them (Newton, Sweeney and Malin 2005, section 4).

    Again and again, the first point that is left and its k - 1 nearest make a group. When fewer
    than 2 k are left they make the last one.

    Args:
        features: (P, D) points, P >= k.
        k: smallest size of a group.

    Returns:
        (P,) group of each point; every group has at least k and fewer than 2 k points.

    >>> greedy_groups(np.array([[0.0], [9.0], [1.0], [8.0], [2.0]]), 2).tolist()
    [0, 1, 0, 1, 1]
    """
    square = (features**2).sum(1)
    distance = square[:, None] + square[None, :] - 2 * features @ features.T
    np.fill_diagonal(distance, -1)
    groups = np.full(len(features), -1, np.int64)
    left = np.arange(len(features))
    number = 0
    while len(left) >= 2 * k:
        nearest = left[np.argsort(distance[left[0], left], kind="stable")[:k]]
        groups[nearest] = number
        left = np.setdiff1d(left, nearest, assume_unique=True)
        number += 1
    groups[left] = number
    return groups


def eigen_coordinates(pixels: Floats, components: int) -> tuple[Floats, Floats, Floats]:
    """Principal components by the Gram matrix (Turk and Pentland 1991): mean, basis, coordinates.

    Args:
        pixels: (N, D) images as vectors.
        components: at most so many; 0: all.

    Returns:
        (D,) mean, (C, D) orthonormal rows, (N, C) coordinates; strongest component first.
    """
    mean = pixels.mean(0)
    centred = pixels - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = int((values > max(float(values[0]), 1.0) * 1e-10).sum())
    kept = min(kept, components) if components else kept
    scale = np.sqrt(values[:kept])
    basis = (vectors[:, :kept] / scale).T @ centred
    return mean, basis, vectors[:, :kept] * scale


@dataclass(frozen=True, slots=True)
class KSame:
    """`k-same-pixel` and `k-same-eigen`, before they have seen what is to be released.

    Attributes:
        k: people that share one released image, at least.
        eigen: average in the space of principal components.
        components: of that space; 0: all.
    """

    k: int
    eigen: bool = False
    components: int = 0

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """Refused: the set that is released together must be seen first."""
        raise PluginError("k-Same must be fitted on the images that are released together.")

    def fit(self, reference: ImageSet) -> FittedKSame:
        """Group the people, and average the faces of each group.

        The groups are of *people*, one grouping for all their images, so that several released
        images of one person narrow nothing down. The first image of each person of a group
        makes one average, the second ones the next, and so on.

        Raises:
            PluginError: a subject is unknown, one image belongs to two people, or fewer than k
                people have equally many images.
        """
        digests = image_digests(reference.pixels)
        rows = _distinct(reference.subject, digests)
        people, person = np.unique(reference.subject[rows], return_inverse=True)
        counts = np.bincount(person, minlength=len(people))
        pixels = reference.pixels[torch.from_numpy(rows)].flatten(1).numpy().astype(np.float64)
        mean, basis, features = (
            eigen_coordinates(pixels, self.components)
            if self.eigen
            else (np.zeros(0), np.zeros((0, 0)), pixels)
        )
        groups = self._groups(_means(features, person, len(people)), counts)
        label = groups[person] * int(counts.max()) + _turn(person)
        _, cluster = np.unique(label, return_inverse=True)
        average = _means(features, cluster, int(cluster.max()) + 1)
        if self.eigen:
            average = mean + average @ basis
        faces = np.rint(average.clip(0, 255)).astype(np.uint8)
        shape = (-1, *reference.pixels.shape[1:])
        return FittedKSame(
            torch.from_numpy(faces).reshape(shape),
            {digests[row]: int(c) for row, c in zip(rows, cluster, strict=True)},
        )

    def _groups(self, features: Floats, counts: Ints) -> Ints:
        """(P,) group of each person; only people with equally many images share one."""
        groups = np.full(len(counts), -1, np.int64)
        for count in np.unique(counts):
            same = np.flatnonzero(counts == count)
            if len(same) < self.k:
                raise PluginError(
                    f"k-Same with k = {self.k} needs at least {self.k} people with equally many "
                    f"images; got {len(same)} with {count}. Lower k, or release as many images "
                    "of each person."
                )
            groups[same] = groups.max() + 1 + greedy_groups(features[same], self.k)
        return groups


@dataclass(frozen=True, slots=True, eq=False)
class FittedKSame:
    """k-Same, ready to release the images that it has seen.

    Attributes:
        faces: (C, 3, H, W) uint8, one average for each cluster.
        cluster: digest of an image -> its cluster.
    """

    faces: Tensor
    cluster: Mapping[bytes, int]

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1]: the average of each image's cluster.

        Raises:
            PluginError: an image was not in the set, so that nothing is guaranteed for it.
        """
        found = [self.cluster.get(d, -1) for d in image_digests(quantize(batch.pixels))]
        if missing := found.count(-1):
            raise PluginError(
                f"k-Same knows only the images that it was fitted on; {missing} of "
                f"{len(found)} are others. Fit it on all images that are released together."
            )
        return self.faces[torch.tensor(found, dtype=torch.int64)].float() / 255


def image_digests(pixels: Tensor) -> list[bytes]:
    """One digest for each image of (N, 3, H, W) uint8."""
    return [hashlib.blake2b(p.numpy().tobytes(), digest_size=16).digest() for p in pixels]


def _distinct(subject: Ints, digests: Sequence[bytes]) -> Ints:
    """Rows without repetitions of one image."""
    if (subject == UNKNOWN).any():
        raise PluginError("k-Same must know who is who: some subjects are unknown.")
    owner: dict[bytes, int] = {}
    rows = []
    for row, digest in enumerate(digests):
        if digest not in owner:
            rows.append(row)
        elif owner[digest] != subject[row]:
            raise PluginError("k-Same: one and the same image belongs to two people.")
        owner[digest] = int(subject[row])
    return np.array(rows, np.int64)


def _means(values: Floats, group: NDArray[np.int64], count: int) -> Floats:
    """(count, D) mean of the rows of each group, by one matrix product."""
    weights = np.zeros((count, len(values)))
    weights[group, np.arange(len(values))] = 1
    means: Floats = weights @ values / weights.sum(1, keepdims=True)
    return means


def _turn(person: NDArray[np.int64]) -> Ints:
    """How many earlier rows show the same person.

    >>> _turn(np.array([4, 2, 4, 4, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(person, kind="stable")
    ordered = person[order]
    turn = np.empty(len(person), np.int64)
    turn[order] = np.arange(len(person)) - np.searchsorted(ordered, ordered)
    return turn
