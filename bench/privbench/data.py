"""Data sets, identity-disjoint splits, protocol presets and reference protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from privbench.errors import ConfigError, DataError, did_you_mean
from privbench.keys import canonical_json, digest_bytes
from privbench.types import ImageSet, Ints, Labels


class Dataset(Protocol):
    """Labelled face images, decoded on demand.

    A data set may also have

    - `attributes`, a mapping from a name (`hair`) to (N,) labels ("" where unknown) of what the
      images show; utility metrics measure how well they are kept;
    - `facts`, a JSON-able mapping for the record: revision, preprocessing, files left out;
    - `undetected(rows)`, in how many images of a part no face was found by its detector;
    - `rendered`, True where no image shows a real person: only such images go into galleries
      unless the user says otherwise.

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
        populations: which populations take part; a data set that has none of them, or an empty
            tuple, takes part whole.
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

    @property
    def identities(self) -> int:
        """People it needs."""
        return (
            self.background
            + self.attacker_train
            + self.attacker_validation
            + self.evaluation
            + self.non_mated
        )

    @property
    def images(self) -> int:
        """Images it needs of each of them."""
        return max(self.train_images, self.references + self.probes)


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


AUTO, FIT = "auto", "fit"
LARGEST_FIT = 10
"""Images per person that `fit` uses at most."""
LEAST_PEOPLE = 10
"""People that `fit` needs: two each to train, validate and evaluate on, and some for the rest."""


def check_protocol(name: str) -> None:
    """Refuse a protocol that does not exist, before any data are read.

    Raises:
        ConfigError: no such protocol.
    """
    if name not in (known := (AUTO, FIT, *PROTOCOLS)):
        raise ConfigError(f"There is no protocol {name!r}. {did_you_mean(name, known)}")


def get_preset(name: str, data: Dataset) -> Preset:
    """A preset by name: `auto` is `quick` where the data set is large enough for it, else `fit`.

    Raises:
        ConfigError: no such protocol.
        DataError: too few identities even for `fit`.
    """
    check_protocol(name)
    if name == AUTO:
        quick = PROTOCOLS["quick"]
        name = "quick" if len(_usable(data, quick)) >= quick.identities else FIT
    return fitted_preset(data) if name == FIT else PROTOCOLS[name]


def fitted_preset(data: Dataset) -> Preset:
    """The protocol that a data set of any size allows; a function of its photo counts alone.

    The images per person, at most `LARGEST_FIT`, are those for which people x images is
    greatest; people with fewer are left out. Half of a person's images are references. Of the
    people 5 % are background, 35 % attacker-train, 10 % attacker-validation, 40 % evaluation,
    and 10 % non-mated.

    Raises:
        DataError: fewer than 10 people with two images.
    """
    counts = np.unique_counts(data.subject).counts
    people = {m: int((counts >= m).sum()) for m in range(2, LARGEST_FIT + 1)}
    enough = [m for m, n in people.items() if n >= LEAST_PEOPLE]
    if not enough:
        raise DataError(
            f"{data.name} has {people[2]} people with two images or more; identity-disjoint parts "
            f"need at least {LEAST_PEOPLE}."
        )
    images = max(enough, key=lambda m: (people[m] * m, m))
    n = people[images]
    small = max(n // 10, 1)
    background, evaluation = max(n // 20, 1), 2 * n // 5
    references = -(-images // 2)
    return Preset(
        name=FIT, version=1, populations=(), background=background,
        attacker_train=n - background - evaluation - max(small, 2) - small,
        attacker_validation=max(small, 2), evaluation=evaluation, non_mated=small,
        train_images=images, references=references, few=max(1, 3 * references // 5),
        probes=images - references, cross_references=1,
    )  # fmt: skip


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

    People with fewer images than the protocol needs take no part.

    Raises:
        DataError: too few identities.
    """
    people = _usable(data, protocol)
    if len(people) < protocol.identities:
        total = len(np.unique(data.subject))
        among = set(data.population.tolist()) & set(protocol.populations)
        whose = f" of {', '.join(sorted(among))}" if among else ""
        raise DataError(
            f"Protocol {protocol.name} needs {protocol.identities} people{whose} with "
            f"{protocol.images} images each; {data.name} has {len(people)} such people of "
            f"{total}. `--protocol fit` takes what there is."
        )
    counts = [
        protocol.background,
        protocol.attacker_train,
        protocol.attacker_validation,
        protocol.evaluation,
        protocol.non_mated,
    ]
    rng = np.random.default_rng(
        int.from_bytes(f"{protocol.name}/{protocol.version}".encode(), "big")
    )
    everyone, first = np.unique(data.subject, return_index=True)
    where = data.population[first[np.searchsorted(everyone, people)]]
    drawn = _balanced(people, where, rng)
    groups = np.split(drawn[: protocol.identities], np.cumsum(counts)[:-1])
    rows = {int(s): rng.permutation(np.flatnonzero(data.subject == s)) for s in drawn}

    def take(subjects: Ints, start: int, stop: int) -> Ints:
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


def _usable(data: Dataset, protocol: Preset) -> Ints:
    """The people of the protocol's populations with enough images, in ascending order."""
    chosen = np.isin(data.population, protocol.populations)
    found = np.unique_counts(data.subject[chosen if chosen.any() else slice(None)])
    return np.asarray(found.values[found.counts >= protocol.images])


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


def facts_of(data: Dataset) -> dict[str, Any]:
    """What a data set says about itself for the record."""
    return dict(getattr(data, "facts", {}))


def undetected_in(data: Dataset, rows: Ints) -> int | None:
    """In how many images of a part no face was found; None where nobody looked."""
    count = getattr(data, "undetected", None)
    found = count(rows) if count else None
    return None if found is None else int(found)


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
