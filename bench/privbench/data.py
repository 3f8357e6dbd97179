"""Data sets, identity-disjoint splits, protocol presets and reference protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from privbench.errors import ConfigError, DataError, did_you_mean
from privbench.keys import canonical_json, digest_bytes
from privbench.types import ImageSet, Ints, Labels


class Dataset(Protocol):
    """Labelled face images, decoded on demand.

    A data set may also have `attributes`, a mapping from a name (`hair`) to (N,) labels ("" where
    unknown) of what the images show; utility metrics measure how well they are kept.

    Attributes:
        name: for the record.
        keys: N distinct sample ids.
        subject: (N,) int64 identity of each image.
        population: (N,) str, where the image was taken.
        licence: of the images.
        digest: SHA-256 over keys, subjects and encoded images.
    """

    name: str
    keys: tuple[str, ...]
    subject: Ints
    population: np.ndarray[tuple[int], np.dtype[np.str_]]
    licence: str
    digest: str

    def pixels(self, index: Ints) -> torch.Tensor:
        """(n, 3, H, W) uint8 RGB.

        Raises:
            DataError: an image cannot be decoded; names it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Preset:
    """How many identities and images play which part. Versioned: numbers of two versions
    are never put into one table.

    Attributes:
        name: preset.
        version: raised when any number below changes.
        populations: which populations take part.
        background: identities for fitting and pretraining.
        attacker_train: identities whose images the attacker owns and may query.
        attacker_validation: identities on which the attacker chooses.
        evaluation: identities in the gallery, each also a probe.
        non_mated: identities that are probed and are in no gallery.
        train_images: images per attacker identity.
        references: gallery images per evaluation identity (Full-Ref).
        few: references in Few-Ref.
        probes: probe images per evaluation identity.
        cross_references: anonymized gallery images per identity in the cross-image trial.
        resamples: bootstrap resamples.
    """

    name: str
    version: int
    populations: tuple[str, ...]
    background: int
    attacker_train: int
    attacker_validation: int
    evaluation: int
    non_mated: int
    train_images: int
    references: int
    few: int
    probes: int
    cross_references: int
    resamples: int = 2000


_POPULATIONS = ("campus-a", "campus-b", "wild")
PROTOCOLS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="smoke", version=1, populations=_POPULATIONS, background=4,
            attacker_train=8, attacker_validation=4, evaluation=8, non_mated=2,
            train_images=3, references=2, few=2, probes=1, cross_references=1, resamples=200,
        ),
        Preset(
            name="quick", version=1, populations=_POPULATIONS, background=40,
            attacker_train=100, attacker_validation=24, evaluation=100, non_mated=40,
            train_images=6, references=5, few=3, probes=2, cross_references=1,
        ),
        Preset(
            name="standard", version=1, populations=_POPULATIONS, background=40,
            attacker_train=160, attacker_validation=32, evaluation=160, non_mated=60,
            train_images=6, references=6, few=3, probes=3, cross_references=1,
        ),
        Preset(
            name="full", version=1, populations=_POPULATIONS, background=40,
            attacker_train=180, attacker_validation=40, evaluation=160, non_mated=60,
            train_images=10, references=6, few=3, probes=4, cross_references=6,
        ),
    )
}  # fmt: skip
"""`smoke` proves that a plugin runs; `quick` is what `make run` uses; `standard` is the
leaderboard's; `full` uses every image."""


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"There is no protocol {name!r}. {did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of a data set by the part they play; no identity plays two parts.

    All arrays are (n,) int64 rows. `gallery` is ordered by identity, `references` per
    identity; `probes` likewise. `cross_gallery` is the part of the gallery that is anonymized
    for the cross-image trial: the first `cross_references` of each identity.
    """

    background: Ints
    attacker_train: Ints
    attacker_validation: Ints
    gallery: Ints
    cross_gallery: Ints
    probes: Ints
    non_mated: Ints

    def parts(self) -> dict[str, Ints]:
        """Part name -> rows."""
        return {
            "background": self.background,
            "attacker-train": self.attacker_train,
            "attacker-validation": self.attacker_validation,
            "gallery": self.gallery,
            "cross-gallery": self.cross_gallery,
            "probes": self.probes,
            "non-mated": self.non_mated,
        }


def split(data: Dataset, protocol: Preset) -> Split:
    """Split by identity, before anything is anonymized.

    The draw depends on the protocol's name and version and on nothing else, so that every
    anonymizer and every seed meets the same people.

    Raises:
        DataError: too few identities, or too few images of one.
    """
    chosen = np.isin(data.population, protocol.populations)
    people, first = np.unique(data.subject[chosen], return_index=True)
    counts = [
        protocol.background,
        protocol.attacker_train,
        protocol.attacker_validation,
        protocol.evaluation,
        protocol.non_mated,
    ]
    if len(people) < sum(counts):
        raise DataError(
            f"Protocol {protocol.name} needs {sum(counts)} identities of "
            f"{', '.join(protocol.populations)}; {data.name} has {len(people)}."
        )
    rng = np.random.default_rng(
        int.from_bytes(f"{protocol.name}/{protocol.version}".encode(), "big")
    )
    drawn = _balanced(people, data.population[chosen][first], rng)
    groups = np.split(drawn[: sum(counts)], np.cumsum(counts)[:-1])
    rows = {int(s): rng.permutation(np.flatnonzero(data.subject == s)) for s in drawn}

    def take(subjects: Ints, start: int, stop: int) -> Ints:
        short = [s for s in subjects if len(rows[int(s)]) < stop]
        if short:
            raise DataError(
                f"Protocol {protocol.name} needs {stop} images of each identity; subject "
                f"{short[0]} of {data.name} has {len(rows[int(short[0])])}."
            )
        picked = [rows[int(s)][start:stop] for s in subjects]
        return np.concatenate(picked) if picked else np.empty(0, dtype=np.int64)

    background, train, validation, evaluation, non_mated = groups
    refs = protocol.references
    return Split(
        background=take(background, 0, protocol.train_images),
        attacker_train=take(train, 0, protocol.train_images),
        attacker_validation=take(validation, 0, protocol.train_images),
        gallery=take(evaluation, 0, refs),
        cross_gallery=take(evaluation, 0, protocol.cross_references),
        probes=take(evaluation, refs, refs + protocol.probes),
        non_mated=take(non_mated, 0, protocol.probes),
    )


def _balanced(people: Ints, population: np.ndarray, rng: np.random.Generator) -> Ints:
    """A random order in which every prefix mixes the populations in proportion."""
    place = np.empty(len(people))
    for name in np.unique(population):
        where = np.flatnonzero(population == name)
        place[where] = (rng.permutation(len(where)) + rng.uniform()) / len(where)
    return people[np.argsort(place, kind="stable")]


def load_part(data: Dataset, rows: Ints) -> ImageSet:
    """Decode one part."""
    keys = tuple(data.keys[i] for i in rows)
    labels = {name: values[rows] for name, values in attributes_of(data).items()}
    return ImageSet(data.pixels(rows), data.subject[rows], keys, labels)


def attributes_of(data: Dataset) -> Mapping[str, Labels]:
    """What the images show, by name; empty where a data set has no such labels."""
    found: Mapping[str, Labels] = getattr(data, "attributes", {})
    return found


def attributes_digest(data: Dataset, rows: Ints) -> str:
    """SHA-256 of the attributes of one part; "" where there are none.

    Apart from `part_digest`, so that a relabelled data set needs no new release.
    """
    labels = {name: values[rows].tolist() for name, values in attributes_of(data).items()}
    return digest_bytes([canonical_json(labels).encode()]) if labels else ""


def part_digest(data: Dataset, rows: Ints) -> str:
    """SHA-256 of a part: the data set's own digest and which of its samples are in it."""
    keys = canonical_json([data.keys[i] for i in rows])
    return digest_bytes([data.digest.encode(), keys.encode()])


@dataclass(frozen=True, slots=True)
class Trial:
    """A reference protocol of paper A: what the gallery holds.

    Attributes:
        name: `full-ref`, `few-ref`, `single-ref`, each also `+source`, and `cross`.
        references: gallery images per person.
        source: the probe's own source photo takes the place of its person's first reference
            (same-photo linkage) instead of being absent (cross-photo identity).
        anonymized: the gallery is anonymized as well (the cross-image variant).
    """

    name: str
    references: int
    source: bool = False
    anonymized: bool = False


PRIMARY_TRIAL = "full-ref"
"""The trial that ranks: several other photographs of each person, none of them the source."""


def trials(protocol: Preset) -> tuple[Trial, ...]:
    """Every reference protocol of a preset, the primary one first."""
    sizes = (("full-ref", protocol.references), ("few-ref", protocol.few), ("single-ref", 1))
    return (
        *(Trial(name, n) for name, n in sizes),
        *(Trial(f"{name}+source", n, source=True) for name, n in sizes),
        Trial("cross", protocol.cross_references, anonymized=True),
    )
