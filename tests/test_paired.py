"""Paired differences: hits, sign flips, Holm's correction, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from privbench import paired
from privbench.errors import DataError
from privbench.types import Floats, Identification, Ints
from privbench_plugins.metrics._identification import IdentificationRates


def people(count: int, per: int, rng: np.random.Generator, gap: float) -> tuple[Ints, Floats]:
    """Hits of two sides on the same probes: hard people are hard for both, B by `gap` less."""
    ease = np.clip(rng.beta(2, 2, count), gap, 1)
    subject = np.repeat(np.arange(count), per)
    luck = rng.random((len(subject), 1))
    sides = np.stack([ease, ease - gap], axis=1)[subject]
    return subject, ((0.7 * luck + 0.3 * rng.random(sides.shape)) < sides).astype(np.float64)


def test_hits_are_the_metric_s_rank_1() -> None:
    """The hits that a study keeps are those of `identification`, ties included."""
    rng = np.random.default_rng(0)
    mated = rng.integers(6, size=200)
    evidence = Identification(rng.integers(4, size=(200, 6)).astype(float), mated, mated)
    expected = IdentificationRates((1,)).rows(evidence)[:, 0]
    np.testing.assert_allclose(paired.rank1_hits(evidence), expected)
    assert len(np.unique(expected)) > 3  # ties did occur


def test_sign_flips_agree_with_mcnemar_s_exact_test() -> None:
    """With one probe a person, the p-value is the binomial test on the discordant pairs."""
    rng = np.random.default_rng(1)
    a, b = (rng.random((80, 5)) < 0.6, rng.random((80, 5)) < [0.6, 0.5, 0.4, 0.3, 0.9])
    p = paired.sign_flip(a * 1.0 - b, np.arange(80), seed=2)
    only_a, only_b = (a & ~b).sum(axis=0), (~a & b).sum(axis=0)
    exact = [binomtest(int(x), int(x + y)).pvalue for x, y in zip(only_a, only_b, strict=True)]
    np.testing.assert_allclose(p, exact, atol=0.012)
    assert min(exact) < 0.01 < 0.2 < max(exact)


def test_sign_flips_keep_their_level_although_photos_of_a_person_agree() -> None:
    """Under the null at most 5 % of p-values are below .05; testing photo by photo fails that."""
    rng = np.random.default_rng(3)
    sets = 400
    each = rng.choice([-1.0, 0.0, 1.0], size=(40, sets))  # a person's photos all move together
    subject = np.repeat(np.arange(40), 4)
    rows = np.repeat(each, 4, axis=0)
    by_person = paired.sign_flip(rows, subject, flips=999, seed=4)
    by_photo = paired.sign_flip(rows, np.arange(160), flips=999, seed=4)
    assert (by_person < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
    assert (by_photo < 0.05).mean() > 0.2


def test_no_difference_has_p_one_and_p_is_never_zero() -> None:
    """Equal sides give p = 1; the strongest possible difference the smallest that flips allow."""
    rows = np.stack([np.zeros(50), np.ones(50)], axis=1)
    p = paired.sign_flip(rows, np.arange(50), flips=99)
    assert p.tolist() == [1.0, 0.01]


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels_holm(seed: int) -> None:
    """Adjusted p-values equal an independent implementation's, ties and ones included."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(30) ** 3, 2 if seed % 2 else 6)
    np.testing.assert_allclose(paired.holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_of_no_tests_is_empty() -> None:
    """A study without references has an empty family."""
    assert paired.holm(np.array([])).tolist() == []


def test_swapping_the_sides_turns_the_sign() -> None:
    """A minus B is the negative of B minus A, bounds swapped, and has the same p."""
    subject, hits = people(60, 3, np.random.default_rng(5), 0.15)
    (one,) = paired.differences(hits[:, :1], hits[:, 1], subject)
    (other,) = paired.differences(hits[:, 1:], hits[:, 0], subject)
    a, b = one.estimate, other.estimate
    assert a.value == pytest.approx(hits[:, 0].mean() - hits[:, 1].mean())
    assert b.low is not None
    assert b.high is not None
    assert (a.value, a.low, a.high) == pytest.approx((-(b.value or 0), -b.high, -b.low), abs=1e-9)
    assert one.p == other.p < 0.05


def test_many_columns_are_the_columns_one_by_one() -> None:
    """Variants tested together get the intervals and p-values they get alone."""
    subject, hits = people(40, 2, np.random.default_rng(6), 0.1)
    columns = np.concatenate([hits, 1 - hits], axis=1)
    together = paired.differences(columns, hits[:, 0], subject, resamples=300)
    alone = [
        paired.differences(columns[:, [i]], hits[:, 0], subject, resamples=300)[0] for i in range(4)
    ]
    assert [d.p for d in together] == [d.p for d in alone]
    for one, other in zip(together, alone, strict=True):
        found = [(e.value, e.low, e.high) for e in (one.estimate, other.estimate)]
        assert found[0] == pytest.approx(found[1])


def test_probes_must_match() -> None:
    """Different probes cannot be paired."""
    with pytest.raises(DataError, match="Paired"):
        paired.differences(np.ones((3, 1)), np.ones(2), np.arange(3))


def test_paired_intervals_cover() -> None:
    """95 % intervals of a difference hold the true one about 95 times in 100, clustered or not."""
    rng = np.random.default_rng(7)
    gap, sets, inside = 0.1, 300, 0
    truth = np.diff(people(400_000, 1, rng, gap)[1].mean(axis=0))[0] * -1
    for _ in range(sets):
        subject, hits = people(100, 2, rng, gap)
        (found,) = paired.differences(hits[:, :1], hits[:, 1], subject, resamples=500)
        assert found.estimate.low is not None
        assert found.estimate.high is not None
        inside += found.estimate.low <= truth <= found.estimate.high
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / sets) < inside / sets
