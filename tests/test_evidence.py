"""Fusion of references and the with/without-source trials."""

from __future__ import annotations

import numpy as np
import pytest

from privbench.data import Trial
from privbench.errors import DataError
from privbench.evidence import identification


def slow(trial: Trial, gallery: np.ndarray, source: np.ndarray, mated: np.ndarray, how: str):
    """The definition, one score at a time."""
    probes, people, _ = gallery.shape
    out = np.empty((probes, people))
    for i in range(probes):
        for j in range(people):
            scores = list(gallery[i, j, : trial.references])
            if trial.source and j == mated[i]:
                scores[0] = source[i]
            out[i, j] = max(scores) if how == "max" else sum(scores) / len(scores)
    return out


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize("references", [1, 3])
def test_trials_equal_the_definition(how: str, source: bool, references: int) -> None:
    """Every trial equals a loop over probes, people and references."""
    rng = np.random.default_rng(0)
    gallery, own = rng.normal(size=(6, 4, 3)), rng.normal(size=6)
    mated = np.array([0, 0, 1, 2, 3, 3])
    trial = Trial("t", references, source)
    found = identification(trial, gallery, own, mated, mated + 10, how)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.scores, slow(trial, gallery, own, mated, how))
    np.testing.assert_array_equal(found.subject, mated + 10)


def test_too_few_references() -> None:
    """A trial that needs more references than there are is refused."""
    with pytest.raises(DataError, match="needs 3"):
        identification(
            Trial("t", 3), np.zeros((2, 2, 1)), np.zeros(2), np.arange(2), np.arange(2), "max"
        )
