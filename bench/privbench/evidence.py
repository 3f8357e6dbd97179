"""From photo-level scores to the evidence of each reference protocol. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from privbench.data import Trial
from privbench.errors import DataError
from privbench.types import NOT_ENROLLED, Floats, Identification, Ints, OpenSet

Fusion = Literal["max", "mean"]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """An attack's photo-level scores, and the truth that the harness holds.

    Attributes:
        arrays: `gallery` (N, S R) and `cross` (N, S C): N probes against R clear, or C released
            references of each of S people, ordered by person; `source` (N,): each probe against
            its own source photo; `non-mated` and `non-mated-cross`: the same galleries for M
            probes of people who are in none; `validation` and `validation-cross` (V, V): released
            photos of attacker-validation people against the clear, or released photos of all of
            them; `validation-clear` (V, V): clear against clear, for an attack that may not ask.
        mated: (N,) column of the true person.
        subject: (N,) identity of each probe.
        strangers: (M,) identity of each non-mated probe.
        held_out: (V,) identity of each validation photo, person by person, equally many of each.
        fusion: how references of one person combine.
    """

    arrays: Mapping[str, np.ndarray]
    mated: Ints
    subject: Ints
    strangers: Ints
    held_out: Ints
    fusion: Fusion

    def of(self, name: str) -> Floats:
        """One array as float64."""
        values: Floats = self.arrays[name].astype(np.float64)
        return values


def identification(trial: Trial, scores: Scores) -> Identification:
    """Evidence of one closed-set trial.

    With `trial.source` the probe's own source photo takes the place of its person's first
    reference, so that both variants hold the same number of references.

    Raises:
        DataError: the gallery has fewer references than the trial needs.
    """
    references = _references(trial, scores, "cross" if trial.anonymized else "gallery")
    fused = fuse(references, scores.fusion)
    if trial.source:
        probes = np.arange(len(scores.mated))
        own = references[probes, scores.mated].copy()
        own[:, 0] = scores.of("source")
        fused[probes, scores.mated] = fuse(own, scores.fusion)
    return Identification(fused, scores.mated, scores.subject, impostors(trial, scores))


def open_set(trial: Trial, closed: Identification, scores: Scores) -> OpenSet:
    """The same trial with the non-mated probes behind the mated ones."""
    name = "non-mated-cross" if trial.anonymized else "non-mated"
    strange = fuse(_references(trial, scores, name), scores.fusion)
    return OpenSet(
        np.concatenate([closed.scores, strange]),
        np.concatenate([closed.mated, np.full(len(strange), NOT_ENROLLED)]),
        np.concatenate([closed.subject, scores.strangers]),
    )


def impostors(trial: Trial, scores: Scores) -> Floats:
    """(V (P - 1),) scores between different validation people, fused over as many references.

    An attack that may not ask the anonymizer has no released photos to fix a threshold on: its
    impostor scores are clear against clear, and what that costs it shows in the rates attained.
    Empty where nobody scored validation.
    """
    name = "validation-cross" if trial.anonymized else "validation"
    if "validation-clear" in scores.arrays:
        name = "validation-clear"
    if name not in scores.arrays:
        return np.empty(0)
    people = scores.held_out[np.sort(np.unique(scores.held_out, return_index=True)[1])]
    photos = scores.of(name).reshape(len(scores.held_out), len(people), -1)
    fused = fuse(photos[:, :, : trial.references], scores.fusion)
    different: Floats = fused[scores.held_out[:, None] != people[None, :]]
    return different


def _references(trial: Trial, scores: Scores, name: str) -> Floats:
    """(N, S, r) scores against the trial's references."""
    people = scores.mated.max() + 1
    values = scores.of(name)
    references = values.reshape(len(values), people, -1)
    if references.shape[2] < trial.references:
        raise DataError(
            f"Trial {trial.name} needs {trial.references} references a person; "
            f"the gallery has {references.shape[2]}."
        )
    return references[:, :, : trial.references]


def fuse(scores: Floats, fusion: Fusion) -> Floats:
    """Combine scores over the last axis (references of one person)."""
    fused: Floats = scores.max(-1) if fusion == "max" else scores.mean(-1)
    return fused
