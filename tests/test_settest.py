"""Inference about sets: against scipy, under the null, and with planted violations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from privbench.errors import DataError
from privbench.settest import (
    ALPHA,
    by_person,
    cdi_test,
    combined,
    false_positive_rate,
    korn_graubard,
    power,
    refusal,
    rejections,
    welch,
)
from privbench.stats import exact_binomial
from privbench.types import Floats

MEMBER_SHIFT = 0.5


def people(n: int, seed: int, shift: float = 0.0, features: int = 0) -> Floats:
    """Standard normal scores, or features, raised by `shift`."""
    shape = (n, features) if features else (n,)
    return np.random.default_rng(seed).normal(shift, 1.0, shape)


# --- by person ---------------------------------------------------------------------------------


def test_photos_of_a_person_are_one_observation() -> None:
    """Means of each person, whatever the order of the rows; features alike."""
    subject = np.array([4, 2, 4, 9, 2, 4])
    scores = people(6, 0, features=3)
    expected = np.stack([scores[subject == s].mean(axis=0) for s in (2, 4, 9)])
    assert by_person(scores, subject) == pytest.approx(expected)
    mixed = np.random.default_rng(1).permutation(6)
    assert by_person(scores[mixed, 0], subject[mixed]) == pytest.approx(expected[:, 0])
    with pytest.raises(DataError, match="one subject per score"):
        by_person(scores, subject[:-1])


def test_counting_photos_as_people_would_reject_too_often() -> None:
    """The null with ten alike photos a person: right by person, far off by photo."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(20), 10)
    mine, naive = [], []
    for _ in range(400):
        a, b = (rng.normal(size=20)[subject] + rng.normal(0, 0.3, 200) for _ in range(2))
        mine.append(welch(by_person(a, subject), by_person(b, subject)).p)
        naive.append(welch(a, b).p)
    assert rejections(np.array(mine)).nominal_within
    assert rejections(np.array(naive)).share > 0.2


# --- Welch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "shift"), [(2, 2, 0.0), (30, 7, 0.5), (400, 300, -0.2)])
def test_welch_is_scipys(n: int, m: int, shift: float) -> None:
    """One-sided p, t, degrees of freedom and the two-sided interval."""
    suspect, unpublished = people(n, 0, shift), 2 * people(m, 1)
    found = welch(suspect, unpublished)
    one = stats.ttest_ind(suspect, unpublished, equal_var=False, alternative="greater")
    two = stats.ttest_ind(suspect, unpublished, equal_var=False).confidence_interval()
    assert (found.p, found.t, found.df) == pytest.approx((one.pvalue, one.statistic, one.df))
    assert (found.low, found.high) == pytest.approx((two.low, two.high))
    assert (found.n_suspect, found.n_unpublished) == (n, m)


def test_only_higher_scores_are_evidence() -> None:
    """The direction is fixed: suspects who score lower are no finding, however many."""
    low, high = people(200, 0), people(200, 1, 2.0)
    assert welch(high, low).p < 1e-9
    assert welch(low, high).p > 0.999


@pytest.mark.parametrize("value", [0.1, -1e9])
def test_constant_scores_show_nothing(value: float) -> None:
    """An attack that says the same of everybody is never a rejection, rounding or not."""
    found = welch(np.full(37, value), np.full(11, value))
    assert (found.t, found.p, found.difference) == (0.0, 0.5, 0.0)


@pytest.mark.parametrize("bad", [np.array([1.0]), np.array([1.0, np.nan]), np.ones((3, 2))])
def test_welch_needs_two_people_with_one_score_each(bad: Floats) -> None:
    """Anything else is refused, on either side."""
    for sides in ((bad, people(5, 0)), (people(5, 0), bad)):
        with pytest.raises(DataError):
            welch(*sides)


# --- features ----------------------------------------------------------------------------------


def test_a_learnt_score_keeps_the_level() -> None:
    """30 features of noise and 40 people a side: rejected at most as often as it says.

    Fitted and tested on the same people, the same scorer would nearly always reject.
    """
    ours, naive = [], []
    for i in range(200):
        a, b = people(40, 2 * i, features=30), people(40, 2 * i + 1, features=30)
        ours.append(cdi_test(a, b, seed=i).p)
        if i < 20:
            scorer = LogisticRegression().fit(np.concatenate([a, b]), np.repeat([1, 0], 40))
            naive.append(welch(scorer.decision_function(a), scorer.decision_function(b)).p)
    assert rejections(np.array(ours)).nominal_within
    assert rejections(np.array(naive)).share > 0.9


def test_a_learnt_score_finds_what_one_score_misses() -> None:
    """A signal in another feature, in the other direction and another unit."""
    a, b = people(100, 0, features=4), people(100, 1, features=4)
    a[:, 2] -= 1.0
    a[:, 2], b[:, 2] = 1000 * a[:, 2], 1000 * b[:, 2]
    assert welch(a[:, 0], b[:, 0]).p > ALPHA
    found = cdi_test(a, b, seed=0)
    assert found.p < 1e-4
    assert (found.n_suspect, found.n_unpublished) == (50, 50)
    assert cdi_test(a, b, seed=0) == found
    assert cdi_test(a, b, seed=1).t != found.t


@pytest.mark.parametrize("bad", [people(3, 0, features=2), people(9, 0), people(9, 0, features=3)])
def test_features_must_match_and_people_suffice(bad: Floats) -> None:
    """Four people and the other side's features."""
    with pytest.raises(DataError):
        cdi_test(bad, people(9, 1, features=2), seed=0)


# --- power -------------------------------------------------------------------------------------


def loop(suspect: Floats, unpublished: Floats, n: int, draws: int) -> float:
    """Power as one would write it."""
    rng = np.random.default_rng(5)
    found = [
        stats.ttest_ind(
            rng.choice(suspect, n, replace=False),
            rng.choice(unpublished, n, replace=False),
            equal_var=False,
            alternative="greater",
        ).pvalue
        for _ in range(draws)
    ]
    return float((np.array(found) < ALPHA).mean())


def test_power_is_that_of_the_plain_loop() -> None:
    """Without a loop over draws; it rises with n, and what cannot be drawn is said."""
    members, others = people(300, 0, MEMBER_SHIFT), people(280, 1)
    found = power(members, others, (1, 10, 50, 280, 290, 1000), draws=500, seed=0)
    for n in (10, 50):
        point = found.points[n]
        assert point.share == pytest.approx(loop(members, others, n, 500), abs=0.09)
        assert (point.low, point.high) == exact_binomial(point.rejected, 500)
    assert 0.05 < found.points[10].share < found.points[50].share < found.points[280].share == 1
    assert found.disjoint == {10: 28, 50: 5, 280: 1}
    assert found.left_out == {
        1: "the test needs 2 people on a side",
        290: "needs 290 unpublished; there are 280",
        1000: "needs 1,000 members; there are 300",
    }


def test_power_of_a_size_does_not_depend_on_the_others() -> None:
    """Nor on anything but the seed."""
    members, others = people(100, 0, MEMBER_SHIFT), people(100, 1)
    alone = power(members, others, (20,), draws=200, seed=3)
    beside = power(members, others, (50, 20), draws=200, seed=3)
    assert alone.points[20] == beside.points[20]
    assert power(members, others, (20,), draws=200, seed=4).points != alone.points


def test_contamination_lowers_power_to_the_level() -> None:
    """Non-members among the suspects dilute the difference; with nobody else it is the null."""
    members, others, foreign = people(400, 0, MEMBER_SHIFT), people(400, 1), people(400, 2)
    shares = [
        power(members, others, (60,), 400, 0, contamination=c, nonmembers=foreign).points[60].share
        for c in (0.0, 0.5, 1.0)
    ]
    assert shares[0] > shares[1] + 0.2 > shares[2] + 0.4
    assert shares[2] < 0.12
    short = power(members, others, (60,), 10, 0, contamination=0.5, nonmembers=foreign[:29])
    assert short.left_out == {60: "needs 30 non-members; there are 29"}
    pure = power(members, members[:0], (60,), 10, 0)
    assert pure.left_out == {60: "needs 60 unpublished; there are 0"}
    with pytest.raises(DataError, match="needs nonmembers"):
        power(members, others, (60,), 10, 0, contamination=0.1)


def test_power_of_features() -> None:
    """Features are fitted anew in each draw."""
    members, others = people(120, 0, 0.6, features=3), people(120, 1, features=3)
    found = power(members, others, (2, 60), draws=30, seed=0)
    assert found.points[60].share > 0.9
    assert found.left_out == {2: "the test needs 4 people on a side"}


# --- null calibration --------------------------------------------------------------------------


@pytest.mark.parametrize("features", [0, 3])
def test_nobody_is_called_a_member_more_often_than_the_level(features: int) -> None:
    """Six models, 400 people each: 60 tests that share nobody, and many more that do."""
    scores = [people(410, i, features=features) for i in range(6)]
    found = false_positive_rate(scores, size=20, draws=30 if features else 200, seed=0)
    assert found.disjoint.trials == 60
    assert found.disjoint.nominal_within
    assert found.overlapping.trials == 6 * (30 if features else 200)
    assert found.overlapping.share < 0.08
    with pytest.raises(DataError, match="needs 412 people"):
        false_positive_rate(scores, size=206, draws=1, seed=0)


def test_a_test_that_is_too_ready_is_found_out() -> None:
    """Planted: every score six times, so that ten people pass for sixty."""
    p = [
        welch(np.repeat(people(10, 2 * i), 6), np.repeat(people(10, 2 * i + 1), 6)).p
        for i in range(200)
    ]
    found = rejections(np.array(p))
    assert not found.nominal_within
    assert found.low > ALPHA


def test_permuted_labels_are_uniform() -> None:
    """People of both sides dealt out at random: p is uniform, members or not."""
    pool = np.concatenate([people(100, 0, MEMBER_SHIFT), people(100, 1)])
    rng = np.random.default_rng(0)
    p = [welch(*np.split(rng.permutation(pool), 2)).p for _ in range(500)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert welch(pool[:100], pool[100:]).p < np.quantile(p, 0.01)


# --- several targets ---------------------------------------------------------------------------


def test_one_target_has_the_interval_of_its_people() -> None:
    """And says that it is one."""
    found = combined([0.7], [0.02])
    assert (found.low, found.high) == pytest.approx((0.7 - 1.95996 * 0.02, 0.7 + 1.95996 * 0.02))
    assert (found.targets, found.between) == (1, None)


def test_several_targets_without_people_are_students_interval() -> None:
    """With no error of people it is the t interval of the targets, cut at 1."""
    values = [0.61, 0.66, 0.7, 0.58]
    found = combined(values, [0.0] * 4)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert combined([0.99, 0.9], [0.01, 0.01]).high == 1.0
    with pytest.raises(DataError, match="one error per target"):
        combined([0.5, 0.6], [0.1])


def test_the_interval_covers_targets_and_people() -> None:
    """Truth .7, targets .03, people .02 (shared by all): 95 % at least; people alone do not."""
    rng = np.random.default_rng(0)
    covered, naive = [], []
    for _ in range(500):
        values = 0.7 + rng.normal(0, 0.02) + rng.normal(0, 0.03, 4)
        found = combined(values.tolist(), [0.02] * 4)
        covered.append(found.low <= 0.7 <= found.high)
        naive.append(abs(values[0] - 0.7) <= 1.96 * 0.02)
    assert np.mean(covered) > 0.94
    assert np.mean(naive) < 0.8


# --- shares of images --------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (1, 40), (17, 40), (40, 40), (1, 1)])
def test_one_image_a_person_is_clopper_and_pearson(hits: int, n: int) -> None:
    """The design effect is exactly 1."""
    found = korn_graubard(np.arange(n) < hits, np.arange(n))
    assert found == pytest.approx(exact_binomial(hits, n))


def test_images_that_always_agree_count_as_people() -> None:
    """Five copies of each of 40 people: about the interval of 40, and that of 0 of 40 exactly."""
    subject = np.repeat(np.arange(40), 5)
    hits = np.repeat(np.arange(40) < 13, 5)
    low, high = korn_graubard(hits, subject)
    assert (low, high) == pytest.approx(exact_binomial(13, 40), abs=0.01)
    assert korn_graubard(hits & False, subject) == pytest.approx(exact_binomial(0, 40))


def test_coverage_of_a_clustered_share() -> None:
    """60 people x 4 images, correlated: 95 % at least, where images as units fall short."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(60), 4)
    covered, naive = [], []
    for _ in range(400):
        hits = rng.random(240) < rng.beta(0.1, 0.9, 60)[subject]
        for interval, kept in (
            (korn_graubard(hits, subject), covered),
            (exact_binomial(int(hits.sum()), 240), naive),
        ):
            kept.append(interval[0] <= 0.1 <= interval[1])
    assert np.mean(covered) > 0.93
    assert np.mean(naive) < 0.85


@pytest.mark.parametrize("arguments", [(np.empty(0, bool), np.empty(0, int)), ([True], [])])
def test_a_share_needs_images_and_people(arguments: Any) -> None:
    """No images, or images of nobody, are refused."""
    with pytest.raises(DataError):
        korn_graubard(*(np.array(a) for a in arguments))


def test_a_rate_is_refused_with_the_reason() -> None:
    """1,000 non-members for 0.1 %, 100 for 1 %."""
    assert refusal(0.001, 1000) == refusal(0.01, 100) == ""
    assert refusal(0.001, 999) == "TPR at FPR <= 0.1 % needs 1,000 non-members; there are 999."
    assert refusal(0.01, 99) == "TPR at FPR <= 1 % needs 100 non-members; there are 99."


# --- measured for the page ---------------------------------------------------------------------


@pytest.mark.study
@pytest.mark.timeout(3600)
def test_coverage_of_clustered_shares_at_study_size() -> None:
    """`pytest -m study tests/test_settest.py -s` makes the numbers of docs/metrics.md."""
    rng = np.random.default_rng(1)
    for group, images, share in ((300, 3, 0.01), (300, 3, 0.05), (60, 4, 0.1), (60, 4, 0.3)):
        subject = np.repeat(np.arange(group), images)
        covered = []
        for _ in range(2000):  # a beta distribution of a + b = 1 has intraclass correlation .5
            hits = rng.random(len(subject)) < rng.beta(share, 1 - share, group)[subject]
            intervals = korn_graubard(hits, subject), exact_binomial(int(hits.sum()), len(hits))
            covered.append([low <= share <= high for low, high in intervals])
        ours, naive = np.mean(covered, axis=0)
        print(f"{group} x {images}, {share}: {ours:.3f}, images as units {naive:.3f}")
        assert ours > 0.925
        assert naive < 0.9


@pytest.mark.study
@pytest.mark.timeout(3600)
def test_level_of_welch_at_study_size() -> None:
    """Nominal 5 % on normal, skewed and unequally spread scores of 10 to 500 people."""
    rng = np.random.default_rng(1)
    for n in (10, 50, 100, 500):
        for name, left, right in (
            ("normal", rng.normal, rng.normal),
            ("log-normal", rng.lognormal, rng.lognormal),
            ("spread", rng.normal, lambda size: 3 * rng.normal(size=size)),
        ):
            found = [welch(left(size=n), right(size=n)).p < ALPHA for _ in range(4000)]
            print(f"{n} people, {name}: {np.mean(found):.3f}")
            assert 0.03 < np.mean(found) < 0.06


@pytest.mark.study
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shared", [True, False])
def test_coverage_of_several_targets_at_study_size(shared: bool) -> None:
    """Truth .7, targets .03, people .02: 95 % at least, whoever the people are."""
    rng = np.random.default_rng(1)
    for targets in (2, 3, 5):
        covered = []
        for _ in range(4000):
            noise = rng.normal(0, 0.02, 1 if shared else targets)
            found = combined(
                (0.7 + noise + rng.normal(0, 0.03, targets)).tolist(), [0.02] * targets
            )
            covered.append(found.low <= 0.7 <= found.high)
        print(f"{targets} targets, people shared: {shared}: {np.mean(covered):.3f}")
        assert np.mean(covered) > 0.95
