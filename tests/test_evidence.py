"""Fusion of references, the with/without-source trials, open sets, and validation impostors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from privbench.data import Trial
from privbench.errors import DataError
from privbench.evidence import Fusion, Scores, identification, impostors, open_set
from privbench.types import NOT_ENROLLED

MATED = np.array([0, 0, 1, 2, 3, 3])
PEOPLE, REFERENCES, HELD_OUT = 4, 3, np.repeat([9, 5, 6], 3)


def drawn(fusion: Fusion, **more: np.ndarray) -> Scores:
    """Scores of 6 probes, 2 non-mated probes and 9 validation photos."""
    rng = np.random.default_rng(0)
    width, held_out = PEOPLE * REFERENCES, len(HELD_OUT)
    arrays = {
        "gallery": rng.normal(size=(len(MATED), width)),
        "source": rng.normal(size=len(MATED)),
        "cross": rng.normal(size=(len(MATED), width)),
        "non-mated": rng.normal(size=(2, width)),
        "non-mated-cross": rng.normal(size=(2, width)),
        "validation": rng.normal(size=(held_out, held_out)),
        "validation-cross": rng.normal(size=(held_out, held_out)),
    }
    return Scores(arrays | more, MATED, MATED + 10, np.array([70, 71]), HELD_OUT, fusion)


def combined(scores: list[float], how: Fusion) -> float:
    """The definition of fusion."""
    return max(scores) if how == "max" else sum(scores) / len(scores)


def slow(trial: Trial, scores: Scores) -> np.ndarray:
    """The definition, one score at a time."""
    gallery = scores.arrays["cross" if trial.anonymized else "gallery"]
    gallery = gallery.reshape(len(MATED), PEOPLE, REFERENCES)
    out = np.empty((len(MATED), PEOPLE))
    for i, j in product(range(len(MATED)), range(PEOPLE)):
        values = list(gallery[i, j, : trial.references])
        if trial.source and j == MATED[i]:
            values[0] = scores.arrays["source"][i]
        out[i, j] = combined(values, scores.fusion)
    return out


TRIALS = [
    Trial("t", references, source, anonymized)
    for references, source, anonymized in product((1, 3), (False, True), (False, True))
    if not (source and anonymized)
]


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_trials_equal_the_definition(how: Fusion, trial: Trial) -> None:
    """Every trial equals a loop over probes, people and references."""
    scores = drawn(how)
    found = identification(trial, scores)
    np.testing.assert_allclose(found.scores, slow(trial, scores))
    np.testing.assert_array_equal(found.subject, MATED + 10)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_an_open_set_appends_the_non_mated_probes(how: Fusion) -> None:
    """The mated rows are those of the closed set; the others are marked and fused alike."""
    scores, trial = drawn(how), Trial("t", 2)
    closed = identification(trial, scores)
    found = open_set(trial, closed, scores)
    np.testing.assert_array_equal(found.scores[:6], closed.scores)
    np.testing.assert_array_equal(found.mated, [*MATED, NOT_ENROLLED, NOT_ENROLLED])
    np.testing.assert_array_equal(found.subject[6:], [70, 71])
    strange = scores.arrays["non-mated"].reshape(2, PEOPLE, REFERENCES)
    for i, j in product(range(2), range(PEOPLE)):
        assert found.scores[6 + i, j] == pytest.approx(combined(list(strange[i, j, :2]), how))


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize("anonymized", [False, True])
def test_impostors_are_of_different_validation_people(how: Fusion, anonymized: bool) -> None:
    """Every photo against every *other* person, fused over as many references as the trial's."""
    scores = drawn(how)
    photos = scores.arrays["validation-cross" if anonymized else "validation"]
    expected = [
        combined([photos[i, k] for k in np.flatnonzero(person == HELD_OUT)[:2]], how)
        for i in range(9)
        for person in (5, 6, 9)
        if HELD_OUT[i] != person
    ]
    found = impostors(Trial("t", 2, anonymized=anonymized), scores)
    np.testing.assert_allclose(np.sort(found), np.sort(expected))


def test_without_queries_the_threshold_comes_from_clear_photos() -> None:
    """An attack that may not ask has no released validation photos."""
    clear = np.full((9, 9), 7.0)
    found = impostors(Trial("t", 1), drawn("max", **{"validation-clear": clear}))
    np.testing.assert_array_equal(found, np.full(18, 7.0))


def test_too_few_references() -> None:
    """A trial that needs more references than there are is refused."""
    with pytest.raises(DataError, match="needs 4"):
        identification(Trial("t", 4), drawn("max"))
