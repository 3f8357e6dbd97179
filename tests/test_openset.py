"""Open-set identification against a search over thresholds, and its chance level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from privbench.errors import DataError, PluginError
from privbench.types import NOT_ENROLLED, Floats, Identification, OpenSet
from privbench_plugins.metrics import openset

FPIRS = (0.01, 0.1)
(SPEC,) = openset.SPECS
METRIC = SPEC.build(SPEC.config())


def trial(
    seed: int = 0,
    enrolled: int = 60,
    strangers: int = 120,
    people: int = 20,
    shift: float = 2.0,
    decimals: int = 9,
) -> OpenSet:
    """Noise, raised by `shift` for the true person of a mated probe."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(enrolled + strangers, people))
    mated = np.full(len(scores), NOT_ENROLLED)
    mated[:enrolled] = rng.integers(people, size=enrolled)
    scores[np.arange(enrolled), mated[:enrolled]] += shift
    return OpenSet(np.round(scores, decimals), mated, np.arange(len(scores)))


def numbers(evidence: OpenSet) -> list[float]:
    """DIR at each FPIR."""
    rows = METRIC.rows(evidence)
    values: list[float] = METRIC.reduce(rows, np.ones((1, len(rows))))[0].tolist()
    return values


def searched(evidence: OpenSet, fpir: float) -> float:
    """By the definition: every threshold in turn, probes one at a time; no ties."""
    strangers = [max(s) for s, m in zip(evidence.scores, evidence.mated, strict=True) if m < 0]
    known = [(s, m) for s, m in zip(evidence.scores, evidence.mated, strict=True) if m >= 0]
    for threshold in sorted([-np.inf, *evidence.scores.ravel()]):
        if sum(best > threshold for best in strangers) <= fpir * len(strangers):
            return sum(s[m] > threshold and s[m] == max(s) for s, m in known) / len(known)
    raise AssertionError


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strangers", [100, 120, 157])
def test_dir_by_searching_thresholds(seed: int, strangers: int) -> None:
    """DIR is that at the smallest of all thresholds whose FPIR is within the target."""
    evidence = trial(seed, strangers=strangers)
    assert numbers(evidence) == pytest.approx([searched(evidence, f) for f in FPIRS])


@pytest.mark.parametrize("seed", range(3))
def test_dir_by_scikit_learns_roc(seed: int) -> None:
    """The thresholds are those of scikit-learn's ROC of best scores, strangers as negatives."""
    evidence = trial(seed)
    known = evidence.mated != NOT_ENROLLED
    best = evidence.scores.max(axis=1)
    fpir, _, threshold = roc_curve(known, best, drop_intermediate=False)
    right = best[known & (evidence.scores.argmax(axis=1) == evidence.mated)]
    expected = [np.sum(right >= threshold[fpir <= f].min()) / known.sum() for f in FPIRS]
    assert numbers(evidence) == pytest.approx(expected)


def test_threshold_is_never_the_nearest() -> None:
    """Pitfall 3: an FPIR just above the target is nearer, and is not credited."""
    scores = np.zeros((220, 2))
    scores[:20, 0] = np.repeat([3.0, 1.0], 10)  # half above all strangers, half below two
    scores[20:22, 1] = 2.0  # two of 200 strangers: FPIR .01
    scores[22:, 1] = np.linspace(0, 0.5, 198)
    mated = np.repeat([0, NOT_ENROLLED], [20, 200])
    assert numbers(OpenSet(scores, mated, np.arange(220)))[0] == 1.0
    scores[22, 1] = 1.5  # a third: FPIR .015 at the second half's scores
    assert numbers(OpenSet(scores, mated, np.arange(220)))[0] == 0.5


def test_ties_are_broken_at_random() -> None:
    """With tied scores the value is the mean over random tie-breaking."""
    evidence = trial(enrolled=150, strangers=200, decimals=0)
    rng = np.random.default_rng(0)
    broken = [
        numbers(
            OpenSet(
                evidence.scores + 1e-6 * rng.random(evidence.scores.shape),
                evidence.mated,
                evidence.subject,
            )
        )
        for _ in range(400)
    ]
    assert numbers(evidence) == pytest.approx(np.mean(broken, axis=0), abs=0.01)


def test_constant_scores_name_the_share_allowed() -> None:
    """An attack that says nothing names FPIR / S: accepted as seldom as strangers, then a guess."""
    evidence = trial()
    blind = OpenSet(np.zeros_like(evidence.scores), evidence.mated, evidence.subject)
    assert numbers(blind) == pytest.approx([f / 20 for f in FPIRS])


def test_perfect_and_hopeless_attacks() -> None:
    """Always right reaches the worst value; always wrong names nobody."""
    assert numbers(trial(shift=1000)) == [o.worst for o in METRIC.outputs(trial())]
    assert numbers(trial(shift=-1000)) == [0, 0]


def test_right_but_below_the_threshold_is_no_identification() -> None:
    """Rank-1 of 1 helps nobody whose scores are below those of strangers."""
    evidence = trial(shift=1000)
    scores = evidence.scores.copy()
    scores[evidence.mated == NOT_ENROLLED] += 5000
    assert numbers(OpenSet(scores, evidence.mated, evidence.subject)) == [0, 0]


@pytest.mark.parametrize("strangers", [50, 119])
def test_chance_by_simulation(strangers: int) -> None:
    """Scores without any information give the declared chance, on average over 2,000 trials."""
    metric = SPEC.build(SPEC.config(fpirs=(0.1,)))
    found = []
    for seed in range(2000):
        evidence = trial(seed, enrolled=40, strangers=strangers, people=3, shift=0)
        rows = metric.rows(evidence)
        found.append(metric.reduce(rows, np.ones((1, len(rows))))[0, 0])
    expected = metric.chance(evidence)[0]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert expected >= 0.1 / 3  # a threshold from few strangers is generous


def test_too_few_strangers_are_refused() -> None:
    """FPIR of 1 % wants 100 non-mated probes, 10 % wants 10."""
    assert np.isnan(numbers(trial(strangers=99))).tolist() == [True, False]
    assert np.isnan(numbers(trial(strangers=9))).all()
    assert np.isnan(numbers(trial(strangers=0))).all()
    assert not np.isnan(numbers(trial(strangers=100))).any()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.integers(0, 3), min_size=24, max_size=24),
    decimals=st.sampled_from([9, 0]),
)
def test_weights_are_repetitions(seed: int, weights: list[int], decimals: int) -> None:
    """Reducing with weights is reducing rows that are physically repeated, ties or not."""
    metric = SPEC.build(SPEC.config(fpirs=(0.1, 0.3)))
    rows = metric.rows(trial(seed, enrolled=10, strangers=14, people=4, decimals=decimals))
    repeated = np.repeat(rows, weights, axis=0)
    if not repeated[:, 0].any():
        assert np.isnan(metric.reduce(rows, np.array([weights], float))).all()
        return
    expected = metric.reduce(repeated, np.ones((1, len(repeated))))
    np.testing.assert_allclose(metric.reduce(rows, np.array([weights], float)), expected)


def test_rows_depend_on_their_probe_alone() -> None:
    """Rows computed in parts are the rows of the whole."""
    whole = trial(decimals=1)

    def rows(s: slice) -> Floats:
        part = METRIC.rows(OpenSet(whole.scores[s], whole.mated[s], whole.subject[s]))
        assert isinstance(part, np.ndarray)
        return part

    parts = [rows(s) for s in (slice(0, 7), slice(7, 90), slice(90, None))]
    np.testing.assert_array_equal(np.concatenate(parts), METRIC.rows(whole))


@pytest.mark.filterwarnings("error")
def test_no_weight_is_undefined() -> None:
    """A resample without rows, or without one of the two kinds, is NaN, silently."""
    evidence = trial()
    rows = METRIC.rows(evidence)
    mated = (evidence.mated != NOT_ENROLLED).astype(float)
    assert np.isnan(METRIC.reduce(rows, np.stack([0 * mated, mated, 1 - mated]))).all()


def test_bad_evidence_is_refused() -> None:
    """NaN scores, strangers before mated probes, wrong columns and other evidence are errors."""
    good = trial()
    scores = good.scores.copy()
    scores[3, 4] = np.nan
    with pytest.raises(DataError, match="NaN"):
        METRIC.rows(OpenSet(scores, good.mated, good.subject))
    with pytest.raises(DataError, match="before"):
        METRIC.rows(OpenSet(good.scores, good.mated[::-1], good.subject))
    with pytest.raises(DataError, match="columns from -1 to 19"):
        METRIC.rows(OpenSet(good.scores, good.mated + 20, good.subject))
    with pytest.raises(PluginError, match="Identification"):
        METRIC.rows(Identification(good.scores, good.mated, good.subject))
