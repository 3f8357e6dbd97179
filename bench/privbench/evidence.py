"""From photo-level scores to the evidence of each reference protocol. Pure numpy."""

from __future__ import annotations

from typing import Literal

import numpy as np

from privbench.data import Trial
from privbench.errors import DataError
from privbench.types import Floats, Identification, Ints

Fusion = Literal["max", "mean"]


def identification(
    trial: Trial,
    gallery: Floats,
    source: Floats,
    mated: Ints,
    subject: Ints,
    fusion: Fusion,
) -> Identification:
    """Evidence of one trial.

    Args:
        trial: which references the gallery holds.
        gallery: (N, S, R) scores of N probes against R references of each of S people;
            the anonymized gallery where `trial.anonymized`.
        source: (N,) score of each probe against its own source photo.
        mated: (N,) column of the true person.
        subject: (N,) identity of each probe.
        fusion: how references of one person combine.

    Returns:
        Scores (N, S). With `trial.source` the probe's own source photo takes the place of its
        person's first reference, so that both variants hold the same number of references.

    Raises:
        DataError: the gallery has fewer references than the trial needs.
    """
    if gallery.shape[2] < trial.references:
        raise DataError(
            f"Trial {trial.name} needs {trial.references} references a person; "
            f"the gallery has {gallery.shape[2]}."
        )
    references = gallery[:, :, : trial.references]
    scores = fuse(references, fusion)
    if trial.source:
        probes = np.arange(len(mated))
        own = references[probes, mated].copy()
        own[:, 0] = source
        scores[probes, mated] = fuse(own, fusion)
    return Identification(scores, mated, subject)


def fuse(scores: Floats, fusion: Fusion) -> Floats:
    """Combine scores over the last axis (references of one person)."""
    fused: Floats = scores.max(-1) if fusion == "max" else scores.mean(-1)
    return fused
