"""Evidence of every kind that the kit makes up for metrics, from no protection to a full one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch

from privbench.spec import EvidenceKind
from privbench.testing.drawings import portraits, static
from privbench.types import (
    NOT_ENROLLED,
    Evidence,
    Identification,
    ImageSet,
    Ints,
    Inversion,
    Judgement,
    Membership,
    OpenSet,
    Release,
)

Protection = Literal["none", "some", "full"]
"""What the evidence shows: everybody found and everything kept, a bit of it, or nothing."""

SIGNAL: Mapping[Protection, float] = {"none": 50.0, "some": 1.5, "full": 0.0}
"""How much higher true pairs score, in standard deviations."""

PEOPLE, PHOTOS = 12, 2
"""Identities, and probes of each."""

STRANGERS = 8
"""Identities that are probed and are in no gallery."""


def subjects(people: int = PEOPLE) -> Ints:
    """(N,) identity of each probe."""
    found: Ints = np.repeat(np.arange(people), PHOTOS)
    return found


def identification(protection: Protection) -> Identification:
    """Scores of every probe against every person."""
    rng, who = np.random.default_rng(1), subjects()
    scores = rng.normal(size=(len(who), PEOPLE))
    scores[np.arange(len(who)), who] += SIGNAL[protection]
    return Identification(scores, who, who, rng.normal(size=1000))


def open_set(protection: Protection) -> OpenSet:
    """The same, with people behind them who are in no gallery."""
    closed, rng = identification(protection), np.random.default_rng(2)
    strangers = PEOPLE + subjects(STRANGERS)
    return OpenSet(
        np.concatenate([closed.scores, rng.normal(size=(len(strangers), PEOPLE))]),
        np.concatenate([closed.mated, np.full(len(strangers), NOT_ENROLLED)]),
        np.concatenate([closed.subject, strangers]),
    )


@cache
def photos() -> ImageSet:
    """Sources, with labels of what they show."""
    images = portraits(range(300, 300 + PEOPLE), range(1, 1 + PHOTOS))
    return replace(images, subject=subjects(), attributes=labels(images))


@cache
def background() -> ImageSet:
    """Other people, for metrics that learn first."""
    images = portraits(range(100, 140), range(1, 2))
    return replace(images, attributes=labels(images))


def labels(images: ImageSet) -> dict[str, np.ndarray]:
    """What pictures show: whether they are light, and whether they are reddish."""
    red, whole = images.floats()[:, 0].mean((1, 2)), images.floats().mean((1, 2, 3))
    return {
        "tone": np.where((whole > whole.median()).numpy(), "light", "dark"),
        "tint": np.where((red > whole).numpy(), "warm", "cold"),
    }


def released(protection: Protection) -> ImageSet:
    """The sources themselves, with noise, or noise."""
    sources = replace(photos(), attributes={})
    if protection == "none":
        return sources
    if protection == "full":
        return static(sources)
    mixed = (sources.pixels.int() * 3 + static(sources).pixels.int()) // 4
    return replace(sources, pixels=mixed.to(torch.uint8))


def release(protection: Protection) -> Release:
    """Sources beside what was released for them; no protection is full utility."""
    return Release(photos(), released(protection), subjects())


def inversion(protection: Protection) -> Inversion:
    """Reconstructions of noisy releases, judged by two recognisers."""
    rng, n = np.random.default_rng(3), len(subjects())
    judgements = tuple(
        Judgement(
            name,
            identification("full"),
            identification(protection),
            np.tanh(rng.normal(size=n)),
            np.tanh(rng.normal(size=n) + SIGNAL[protection]),
        )
        for name in ("first", "second")
    )
    return Inversion(photos(), released("full"), released(protection), subjects(), judgements)


def membership(protection: Protection) -> Membership:
    """Scores of members and others, one image a person."""
    rng, n = np.random.default_rng(4), 40
    member = np.arange(n) % 2 == 0
    scores = rng.normal(size=n) + SIGNAL[protection] * member
    return Membership(scores, member, np.arange(n), rng.normal(size=200))


EVIDENCE: Mapping[EvidenceKind, Callable[[Protection], Evidence]] = {
    "identification": identification,
    "open-set": open_set,
    "release": release,
    "inversion": inversion,
    "membership": membership,
}


def taken(evidence: Any, rows: Ints) -> Any:
    """The same evidence of some samples: every part that has a row for each is cut alike."""
    count = len(evidence.subject if hasattr(evidence, "subject") else evidence.released_source)

    def cut(name: str, value: Any) -> Any:
        if isinstance(value, ImageSet):
            return value.take(rows)
        if isinstance(value, tuple):
            return tuple(taken(part, rows) for part in value)
        if is_dataclass(value):
            return taken(value, rows)
        by_sample = isinstance(value, np.ndarray) and len(value) == count
        return value[rows] if by_sample and name not in ("impostors", "calibration") else value

    return replace(
        evidence, **{f.name: cut(f.name, getattr(evidence, f.name)) for f in fields(evidence)}
    )


def arrays(evidence: Any) -> list[Any]:
    """Copies of all arrays in evidence, in order."""
    found: list[Any] = []
    for field in fields(evidence):
        value = getattr(evidence, field.name)
        if isinstance(value, ImageSet):
            found += [value.pixels.numpy().copy(), value.subject.copy()]
        elif isinstance(value, tuple):
            found += [array for part in value for array in arrays(part)]
        elif is_dataclass(value):
            found += arrays(value)
        elif isinstance(value, np.ndarray):
            found.append(value.copy())
    return found
