"""Was this set of images trained on? Inference about many people at once.

One person's membership may be hard to tell and that of a hundred easy. A suspect set is compared
with unpublished photos of the same kind: their scores differ in the mean only if the model saw one
of them (dataset inference, Maini et al. 2021; CDI, Dubinski et al. 2025). The unit is the person:
every function but `by_person` and `korn_graubard` takes one row per person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from privbench.errors import DataError
from privbench.stats import exact_binomial
from privbench.types import Floats, Ints

ALPHA = 0.05
"""Level of every test here."""

_SAME = 1e-12  # differences below this share of the scores are rounding


@dataclass(frozen=True, slots=True)
class SetTest:
    """Welch's test of a suspect set against an unpublished one.

    Attributes:
        p: one-sided: the chance of so large a t if both sets are of one kind.
        t: difference over its standard error.
        df: degrees of freedom of Welch and Satterthwaite.
        n_suspect: people.
        n_unpublished: people.
        difference: mean of the suspect set minus that of the other.
        low: lower end of its two-sided 95 % interval.
        high: upper end.
    """

    p: float
    t: float
    df: float
    n_suspect: int
    n_unpublished: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rejections:
    """How often tests rejected.

    Attributes:
        rejected: tests with p < `ALPHA`.
        trials: tests.
        share: of tests that rejected.
        low: lower end of its exact 95 % interval, right if the tests are independent.
        high: upper end.
        nominal_within: the interval holds `ALPHA`.
    """

    rejected: int
    trials: int
    share: float
    low: float
    high: float
    nominal_within: bool


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """How often a set test rejects where nobody is a member.

    Attributes:
        disjoint: over tests no two of which share a person under one model: the number to judge by.
        overlapping: over random halves that share people: steadier, but its interval is too short.
    """

    disjoint: Rejections
    overlapping: Rejections


@dataclass(frozen=True, slots=True)
class Power:
    """How often a set test detects membership, by the number of people.

    Attributes:
        contamination: share of the suspect set that are no members.
        points: by people on each side.
        disjoint: by people on each side, how many pairs of sets that share nobody there are; the
            intervals of `points` are too short where these are fewer than the draws.
        left_out: by people on each side, why there is no number.
    """

    contamination: float
    points: Mapping[int, Rejections]
    disjoint: Mapping[int, int]
    left_out: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Combined:
    """A share measured on several targets that were trained anew.

    Attributes:
        value: mean over targets.
        low: lower end of the 95 % interval.
        high: upper end.
        targets: how many; with 1 the interval is of people alone.
        between: standard deviation between targets; None with one.
        within: root mean square of the targets' own standard errors.
    """

    value: float
    low: float
    high: float
    targets: int
    between: float | None
    within: float


def by_person(scores: Floats, subject: Ints) -> Floats:
    """Mean scores of each person, in ascending order of `subject`.

    Args:
        scores: (N,) or (N, D).
        subject: (N,) identity of each image.

    Returns:
        (P,) or (P, D).

    >>> by_person(np.array([1.0, 3.0, 5.0]), np.array([7, 7, 2]))
    array([5., 2.])
    """
    if len(scores) != len(subject):
        raise DataError(f"Need one subject per score; got {len(subject)} for {len(scores)}.")
    _, identity, images = np.unique(subject, return_inverse=True, return_counts=True)
    total = np.zeros((len(images), *scores.shape[1:]))
    np.add.at(total, identity, scores)
    means: Floats = (total.T / images).T
    return means


def welch(suspect: Floats, unpublished: Floats) -> SetTest:
    """Do suspects score higher? Welch's unequal variances t-test, one-sided (Biometrika 34, 1947).

    Sets without any spread, of one value, give t = 0 and p = .5.

    Args:
        suspect: (n,) scores of one person each; see `by_person`.
        unpublished: (m,) likewise, of people who are certainly no members.

    Raises:
        DataError: fewer than two people on a side, or a score that is no number.
    """
    for people in (suspect, unpublished):
        _check(people, least=2)
        if people.ndim != 1:
            raise DataError(f"One score per person, please; got shape {people.shape}.")
    difference, error, df = _moments(suspect[None], unpublished[None])
    t, p = _one_sided(difference, error, df)
    half = stats.t.isf(ALPHA / 2, df[0]) * error[0]
    return SetTest(
        p=float(p[0]),
        t=float(t[0]),
        df=float(df[0]),
        n_suspect=len(suspect),
        n_unpublished=len(unpublished),
        difference=float(difference[0]),
        low=float(difference[0] - half),
        high=float(difference[0] + half),
    )


def cdi_test(suspect: Floats, unpublished: Floats, seed: int) -> SetTest:
    """Welch's test of a score that is learnt from one half of the people and tested on the other.

    The score is a logistic regression on standardised features. As a row is a person, nobody is
    tested by what their own images taught.

    Args:
        suspect: (n, D) features of one person each, the attack's score among them.
        unpublished: (m, D).
        seed: of the split into halves.

    Raises:
        DataError: fewer than four people on a side, other features, or one that is no number.
    """
    for people in (suspect, unpublished):
        _check(people, least=4)
    if suspect.ndim != 2 or suspect.shape[1:] != unpublished.shape[1:]:
        raise DataError(
            f"Both sides need the same features; got {suspect.shape} and {unpublished.shape}."
        )
    rng = np.random.default_rng(seed)
    learn, test = zip(*(_halves(people, rng) for people in (suspect, unpublished)), strict=True)
    scorer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scorer.fit(np.concatenate(learn), np.repeat([1, 0], [len(half) for half in learn]))
    return welch(*(scorer.decision_function(half) for half in test))


def power(
    suspect: Floats,
    unpublished: Floats,
    sizes: Sequence[int],
    draws: int,
    seed: int,
    contamination: float = 0.0,
    nonmembers: Floats | None = None,
) -> Power:
    """How often n people a side are enough, for each n.

    Each draw takes n people of each side without replacement; smaller sizes are parts of larger
    ones. All draws come from the same people and one target, so that the intervals hold the chance
    of the draw alone; where n is everybody, all draws are one.

    Args:
        suspect: (P,) scores of members, or (P, D) features; one row per person.
        unpublished: (Q,) or (Q, D).
        sizes: people on each side.
        draws: tests per size. Features are fitted anew for each.
        seed: of draws and splits.
        contamination: share of the suspect set, rounded to whole people, that are no members.
        nonmembers: whom to take these from; people who are in neither of the other sets.

    Raises:
        DataError: contamination outside [0, 1], or above 0 without `nonmembers`; others as the
            tests.
    """
    if not 0 <= contamination <= 1 or (contamination and nonmembers is None):
        raise DataError("Contamination must be a share, and needs nonmembers where it is above 0.")
    foreign = suspect[:0] if nonmembers is None else nonmembers
    for people in (suspect, unpublished, foreign):
        _check(people, least=0)
    rng = np.random.default_rng(seed)
    orders = [_orders(rng, draws, len(people)) for people in (suspect, unpublished, foreign)]
    points, disjoint, left_out = {}, {}, {}
    for n in sizes:
        strangers = round(contamination * n)
        taken, there = (n - strangers, n, strangers), [order.shape[1] for order in orders]
        if reason := _missing(n, taken, there, suspect.ndim):
            left_out[n] = reason
            continue
        members, ours, theirs = (
            people[order[:, :count]]
            for people, order, count in zip(
                (suspect, unpublished, foreign), orders, taken, strict=True
            )
        )
        points[n] = rejections(_p_values(np.concatenate([members, theirs], axis=1), ours, seed))
        disjoint[n] = min(have // want for have, want in zip(there, taken, strict=True) if want)
    return Power(contamination, points, disjoint, left_out)


def false_positive_rate(
    nonmembers: Sequence[Floats], size: int, draws: int, seed: int
) -> FalsePositives:
    """How often the test calls people members whom no model has seen.

    For each model its people are shuffled and cut into as many disjoint pairs of sets as there are;
    these tests share nobody. Where several models score the same people, their tests share those,
    and are independent only as far as the models' training makes the scores so.

    Args:
        nonmembers: of each model that was not trained on them, (P,) scores or (P, D) features of
            people; one row per person.
        size: people on each side.
        draws: overlapping tests per model: random pairs of disjoint sets.
        seed: of all draws.

    Raises:
        DataError: a model has fewer than 2 `size` people.
    """
    rng = np.random.default_rng(seed)
    disjoint, overlapping = [], []
    for people in nonmembers:
        _check(people, least=2 * size)
        cut = people[_orders(rng, 1, len(people))[0]]
        pairs = cut[: len(people) // (2 * size) * 2 * size].reshape(-1, size, *people.shape[1:])
        disjoint.append(_p_values(pairs[0::2], pairs[1::2], seed))
        drawn = people[_orders(rng, draws, len(people))[:, : 2 * size]]
        overlapping.append(_p_values(drawn[:, :size], drawn[:, size:], seed))
    return FalsePositives(
        rejections(np.concatenate(disjoint)), rejections(np.concatenate(overlapping))
    )


def rejections(p: Floats) -> Rejections:
    """Count tests with p < `ALPHA`.

    Args:
        p: (T,) at least one; of whole sets that different models scored, say.
    """
    rejected, trials = int((p < ALPHA).sum()), len(p)
    low, high = exact_binomial(rejected, trials)
    return Rejections(rejected, trials, rejected / trials, low, high, low <= ALPHA <= high)


def combined(values: Sequence[float], errors: Sequence[float]) -> Combined:
    """An interval that covers the training of targets as well as the choice of people.

    Half its width is sqrt(t^2 s^2 / R + z^2 v): s the standard deviation between R targets, t the
    97.5 % quantile of Student's with R - 1 degrees of freedom, v the mean of the squared errors, z
    = 1.96. Targets may share their people, so v is not divided by R: too wide where they do not.

    Args:
        values: (R,) shares, such as the AUC of each target.
        errors: (R,) standard errors of them over people.

    Raises:
        DataError: no values, not one error each, or one that is no number.
    """
    shares, people = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if not len(shares) or shares.shape != people.shape or np.isnan([shares, people]).any():
        raise DataError(f"Need one number and one error per target; got {values} and {errors}.")
    targets = len(shares)
    between = float(shares.std(ddof=1)) if targets > 1 else None
    within = float(np.sqrt((people**2).mean()))
    half = stats.norm.isf(ALPHA / 2) * within
    if between is not None:
        half = np.hypot(half, stats.t.isf(ALPHA / 2, targets - 1) * between / np.sqrt(targets))
    value = float(shares.mean())
    low, high = np.clip([value - half, value + half], 0, 1)
    return Combined(value, float(low), float(high), targets, between, within)


def korn_graubard(
    hits: NDArray[np.bool_], subject: Ints, level: float = 0.95
) -> tuple[float, float]:
    """Clopper-Pearson interval of a share of images when people have several (Korn and Graubard,
    Survey Methodology 24, 1998).

    The number of images is divided by the design effect that people make, estimated (at least 1),
    and corrected for the degrees of freedom. With one image a person it is that of Clopper and
    Pearson. Where all images agree nothing can be estimated: people then count as if their images
    always agreed.

    Args:
        hits: (N,) e.g. members above a threshold that was fixed beforehand.
        subject: (N,) identity of each.
        level: confidence level.

    Raises:
        DataError: no images, or not one subject each.
    """
    n = len(hits)
    if not n or hits.shape != subject.shape:
        raise DataError(f"Need images, and one subject each; got {n} and {len(subject)}.")
    _, identity = np.unique(subject, return_inverse=True)
    images = np.bincount(identity).astype(np.float64)
    people, share = len(images), float(hits.mean())
    if people < 2 or share in (0.0, 1.0):
        effective = n**2 / (images**2).sum()
    else:
        residual = np.bincount(identity, weights=hits - share)
        variance = people / (people - 1) * (residual**2).sum() / n**2
        simple = share * (1 - share) / (n - 1)
        tails = stats.t.isf((1 - level) / 2, [n - 1, people - 1])
        effective = min(n / max(variance / simple, 1.0) * (tails[0] / tails[1]) ** 2, n)
    successes, failures, tail = share * effective, (1 - share) * effective, (1 - level) / 2
    low = stats.beta.ppf(tail, successes, failures + 1) if share > 0 else 0.0
    high = stats.beta.isf(tail, successes + 1, failures) if share < 1 else 1.0
    return float(low), float(high)


def tpr_interval(
    members: Floats, subject: Ints, others: Floats, other_subject: Ints, rate: float
) -> tuple[float, float]:
    """95 % interval of the TPR at the threshold that `rate` of all non-members exceed.

    That threshold is estimated, so two intervals are joined (Bonferroni, 97.5 % each): the exact
    binomial one of its rank among the non-members, where people count instead of images, and
    `korn_graubard`'s of the share of members above either end of it. Noise claims more than `rate`
    in at most 2.5 % of studies.

    Args:
        members: (A,) scores.
        subject: (A,) identity of each.
        others: (B,) scores.
        other_subject: (B,) identity of each.
        rate: false positive rate.
    """
    people, level = len(np.unique(other_subject)), 1 - ALPHA / 2
    tails = stats.binom.ppf([ALPHA / 4, 1 - ALPHA / 4], people, rate) / people
    falling = np.sort(others)[::-1]
    first, last = int(np.floor(tails[0] * len(others))), int(np.ceil(tails[1] * len(others)))
    high_end = np.inf if first == 0 else falling[first - 1]
    low_end = -np.inf if last >= len(others) else falling[last]
    low, _ = korn_graubard(members > high_end, subject, level)
    _, high = korn_graubard(members > low_end, subject, level)
    return low, high


def group_rejections(suspect: Floats, unpublished: Floats, size: int, seed: int) -> Rejections:
    """Tests of groups of suspects against as many others, as many as share nobody.

    Under a target that never saw the suspects they are tests of a true null.

    Args:
        suspect: (P,) scores or (P, D) features, one row per person.
        unpublished: (Q,) or (Q, D).
        size: people on each side of a test.
        seed: of the grouping.

    Raises:
        DataError: fewer than `size` people on a side.
    """
    rng = np.random.default_rng(seed)
    groups = min(len(suspect), len(unpublished)) // size
    sides = []
    for people in (suspect, unpublished):
        _check(people, least=size)
        shuffled = people[rng.permutation(len(people))][: groups * size]
        sides.append(shuffled.reshape(groups, size, *people.shape[1:]))
    suspects, others = sides
    return rejections(_p_values(suspects, others, seed))


def refusal(rate: float, non_members: int) -> str:
    """Why there is no TPR at FPR <= `rate`; "" where there is one.

    Args:
        non_members: people, not images.

    >>> refusal(0.001, 978)
    'TPR at FPR <= 0.1 % needs 1,000 non-members; there are 978.'
    """
    least = int(np.ceil(1 / rate - 1e-9))
    if non_members >= least:
        return ""
    return f"TPR at FPR <= {100 * rate:g} % needs {least:,} non-members; there are {non_members:,}."


def _check(people: Floats, least: int) -> None:
    if len(people) < least:
        raise DataError(f"The test needs {least} people on a side; got {len(people)}.")
    if np.isnan(people).any():
        raise DataError("Scores must not be NaN.")


def _moments(suspect: Floats, unpublished: Floats) -> tuple[Floats, Floats, Floats]:
    """(T,) differences of means, their standard errors and Welch's degrees of freedom.

    Args:
        suspect: (T, n).
        unpublished: (T, m).
    """
    sides = (suspect, unpublished)
    difference = suspect.mean(axis=1) - unpublished.mean(axis=1)
    scale = np.maximum(*(np.abs(side).max(axis=1) for side in sides))
    first, second = (side.var(axis=1, ddof=1) / side.shape[1] for side in sides)
    error = np.sqrt(first + second)
    error[error <= _SAME * scale] = 0
    difference[np.abs(difference) <= _SAME * scale] = 0
    n, m = suspect.shape[1], unpublished.shape[1]
    with np.errstate(invalid="ignore"):  # 0 / 0 without any spread
        df = (first + second) ** 2 / (first**2 / (n - 1) + second**2 / (m - 1))
    return difference, error, np.where(error > 0, df, min(n, m) - 1.0)


def _one_sided(difference: Floats, error: Floats, df: Floats) -> tuple[Floats, Floats]:
    """(T,) t and p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, difference / error)
    return t, stats.t.sf(t, df)


def _p_values(suspect: Floats, unpublished: Floats, seed: int) -> Floats:
    """(T,) p of T pairs of sets, (T, n) of scores or (T, n, D) of features."""
    if suspect.ndim == 2:
        return _one_sided(*_moments(suspect, unpublished))[1]
    pairs = zip(suspect, unpublished, strict=True)
    return np.array([cdi_test(*pair, seed=seed + i).p for i, pair in enumerate(pairs)])


def _orders(rng: np.random.Generator, draws: int, people: int) -> NDArray[np.int64]:
    """(draws, people) random orders."""
    return rng.permuted(np.tile(np.arange(people), (draws, 1)), axis=1)


def _halves(people: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A random half of the rows and the rest, which is not smaller."""
    shuffled = people[rng.permutation(len(people))]
    half = len(people) // 2
    return shuffled[:half], shuffled[half:]


def _missing(n: int, taken: Sequence[int], there: Sequence[int], dimensions: int) -> str:
    """Why no sets of n people can be drawn; "" where they can."""
    least = 2 if dimensions == 1 else 4
    if n < least:
        return f"the test needs {least} people on a side"
    for who, want, have in zip(
        ("members", "unpublished", "non-members"), taken, there, strict=True
    ):
        if want > have:
            return f"needs {want:,} {who}; there are {have:,}"
    return ""
