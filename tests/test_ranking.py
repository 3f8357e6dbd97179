"""Rank intervals, tie groups and the worst case over attacks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import ndtri
from statsmodels.stats.multitest import multipletests

from privbench import ranking
from privbench.errors import DataError
from privbench.paired import sign_flip
from privbench.types import Floats

PEOPLE, PER = 60, 2
SUBJECT = np.repeat(np.arange(PEOPLE), PER)


def hits(
    rng: np.random.Generator, means: list[float], sets: int = 1, shared: float = 0.5
) -> Floats:
    """(sets, N, K) hits with these means; probes of a person, and rows on a probe, go together."""
    size = (sets, PEOPLE, 1)
    person = np.repeat(rng.normal(size=size), PER, axis=1)
    own = rng.normal(size=(sets, PEOPLE * PER, len(means)))
    return (np.sqrt(shared) * person + np.sqrt(1 - shared) * own < ndtri(means)).astype(float)


def test_separated_rows_have_points() -> None:
    """Rows that differ beyond doubt have one rank each, in the order of their means."""
    rows = hits(np.random.default_rng(0), [0.9, 0.1, 0.5])[0]
    found = ranking.rank_intervals(rows, SUBJECT)
    assert [(r.low, r.high, r.groups) for r in found] == [
        (3, 3, ("c",)),
        (1, 1, ("a",)),
        (2, 2, ("b",)),
    ]


def test_equal_rows_are_one_group() -> None:
    """Rows that never differ have every rank and one letter."""
    row = np.random.default_rng(1).random((PEOPLE * PER, 1))
    for r in ranking.rank_intervals(np.repeat(row, 5, axis=1), SUBJECT):
        assert (r.low, r.high, r.groups) == (1, 5, ("a",))


def test_one_row_is_first() -> None:
    """Without a rival there is nothing to test."""
    (only,) = ranking.rank_intervals(np.ones((PEOPLE * PER, 1)), SUBJECT)
    assert only == ranking.Rank(1, 1, ("a",))


def test_intervals_are_pairwise_tests_with_holm() -> None:
    """One pair at a time, statsmodels' Holm, and counting: the same intervals."""
    rows = hits(np.random.default_rng(2), [0.2, 0.3, 0.35, 0.5, 0.7])[0]
    pairs = list(itertools.combinations(range(5), 2))
    p = [sign_flip((rows[:, [i]] - rows[:, [j]]), SUBJECT)[0] for i, j in pairs]
    low, high = [1] * 5, [5] * 5
    for (i, j), real in zip(pairs, multipletests(p, 0.05, "holm")[0], strict=True):
        if real:
            better, worse = sorted((i, j), key=lambda k: rows[:, k].mean())
            low[worse] += 1
            high[better] -= 1
    found = ranking.rank_intervals(rows, SUBJECT)
    assert [(r.low, r.high) for r in found] == list(zip(low, high, strict=True))
    assert any(a != b for a, b in zip(low, high, strict=True))  # neither all tied ..
    assert any(r.low > 1 for r in found)  # .. nor all apart


def test_many_rows_can_still_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least p falls with the number of pairs: with K large the first Holm step stays open."""
    monkeypatch.setattr(ranking, "FLIPS", 50)  # alone too few for 45 pairs
    rows = hits(np.random.default_rng(3), [0.02] * 9 + [0.98])[0]
    assert [r.low for r in ranking.rank_intervals(rows, SUBJECT)] == [1] * 9 + [10]


@pytest.mark.parametrize("seed", range(20))
def test_letters_say_exactly_what_is_tied(seed: int) -> None:
    """Rows share a letter exactly if tied, and no group could take in another row."""
    rng = np.random.default_rng(seed)
    tied = np.triu(rng.random((7, 7)) < 0.6, 1)
    tied = tied | tied.T
    letters = [set(groups) for groups in ranking.tie_groups(tied, rng.permutation(7))]
    for i, j in itertools.combinations(range(7), 2):
        assert bool(letters[i] & letters[j]) == tied[i, j]
    members = {x: {i for i in range(7) if x in letters[i]} for x in set.union(*letters)}
    maximal = [
        set(c)
        for size in range(1, 8)
        for c in itertools.combinations(range(7), size)
        if all(tied[i, j] for i, j in itertools.combinations(c, 2))
        and not any(all(tied[i, j] for j in c) for i in set(range(7)) - set(c))
    ]
    assert sorted(map(sorted, members.values())) == sorted(map(sorted, maximal))


def test_letters_start_with_the_best_and_outlast_the_alphabet() -> None:
    """a belongs to the best row; the 27th group is aa."""
    apart = np.zeros((28, 28), dtype=bool)
    letters = ranking.tie_groups(apart, np.arange(28)[::-1])
    assert [letters[i] for i in (27, 2, 1, 0)] == [("a",), ("z",), ("aa",), ("ab",)]


@pytest.mark.parametrize(
    "means",
    [[0.3] * 6, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.02, 0.02, 0.05, 0.3, 0.3, 0.9]],
    ids=["equal", "apart", "near-0-and-1"],
)
def test_rank_intervals_hold_the_true_ranks(
    means: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All six true ranks at once in at least 95 of 100 data sets (200 sets: two errors below)."""
    monkeypatch.setattr(ranking, "FLIPS", 1500)
    true = np.array(means)
    best, worst = (true[:, None] > true).sum(1) + 1, len(true) - (true[:, None] < true).sum(1)
    held = [
        all(r.low <= b and w <= r.high for r, b, w in zip(found, best, worst, strict=True))
        for found in (
            ranking.rank_intervals(rows, SUBJECT)
            for rows in hits(np.random.default_rng(4), means, 200)
        )
    ]
    print(f"{means}: {np.mean(held):.3f}")
    assert np.mean(held) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 200)


@pytest.mark.parametrize("means", [[0.3] * 5, [0.95] * 5, [0.05] * 3, [0.6, 0.3, 0.1]], ids=str)
def test_worst_case_interval_holds_the_largest_mean(means: list[float]) -> None:
    """At least 95 in 100, also where equal attacks make the maximum itself too large."""
    found = [
        ranking.max_over_attacks(rows, SUBJECT, resamples=600)
        for rows in hits(np.random.default_rng(5), means, 100)
    ]
    held = [
        e.low <= max(means) <= e.high for e in found if e.low is not None and e.high is not None
    ]
    bias = np.mean([e.value for e in found if e.value is not None]) - max(means)
    print(f"{means}: {np.mean(held):.3f}, bias {bias:+.3f}")
    assert len(held) == 100
    assert np.mean(held) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 100)
    assert (bias > 0.01) == (len(set(means)) == 1)


def test_worst_case_of_one_attack_is_that_attack() -> None:
    """With one attack value and interval are those of its mean; a perfect one keeps a bound."""
    rows = hits(np.random.default_rng(6), [0.4])[0]
    one = ranking.max_over_attacks(rows, SUBJECT)
    assert one.value == pytest.approx(rows.mean())
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.value < one.high
    perfect = ranking.max_over_attacks(np.ones_like(rows), SUBJECT)
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx(
        (1, 0.025 ** (1 / PEOPLE), 1)
    )


@pytest.mark.parametrize("call", [ranking.rank_intervals, ranking.max_over_attacks])
def test_rows_must_be_columns(call: object) -> None:
    """A vector, or no column at all, is refused in words."""
    for bad in (np.ones(4), np.ones((4, 0))):
        with pytest.raises(DataError, match="probes"):
            call(bad, np.arange(4))  # type: ignore[operator]
