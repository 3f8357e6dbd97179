"""Resampling, intervals, exact bounds and permutation nulls."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from privbench import stats
from privbench.errors import DataError
from privbench.types import NOT_ENROLLED, Floats, Identification, Metric, OpenSet, Output
from privbench_plugins.metrics._identification import IdentificationRates
from privbench_plugins.metrics._kanonymity import AnonymitySets
from privbench_plugins.metrics._linkability import Linkability
from privbench_plugins.metrics._openset import OpenSetRates
from privbench_plugins.metrics._operating import OperatingPoint
from privbench_plugins.metrics._verification import ErrorTradeoff, Verification


class Mean:
    """Every column of the rows is a number of its own."""

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means."""
        return (weights @ rows) / weights.sum(axis=1, keepdims=True)


def shares(count: int, unit: str = "share") -> list[Output]:
    """Outputs that stand for the columns of rows."""
    return [Output(f"x{i}", "lower", 1.0, unit) for i in range(count)]


def trial(seed: int, identities: int = 30, per: int = 3, shift: float = 1.5) -> Identification:
    """Noise, raised for the true person; some people are easier than others."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(identities), per)
    scores = rng.normal(size=(len(subject), identities))
    scores[np.arange(len(subject)), subject] += shift + np.repeat(rng.normal(size=identities), per)
    return Identification(scores, subject, subject)


def test_weights_count_whole_identities() -> None:
    """Rows of one identity share a multiplicity, and C identities are drawn per resample."""
    subject = np.array([5, 2, 5, 9, 2, 5])
    weights = stats.cluster_weights(subject, 500, seed=3)
    first = weights[:, [1, 0, 3]]  # one row of each of 2, 5, 9
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights, first[:, [1, 0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(first.sum(axis=1), 3)
    np.testing.assert_allclose(first.mean(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(first.var(axis=0), 2 / 3, atol=0.15)  # of a multinomial


def test_identities_need_names() -> None:
    """A row whose identity is withheld cannot be resampled."""
    with pytest.raises(DataError, match="identity"):
        stats.cluster_weights(np.array([0, -1]), 2, seed=0)


@pytest.mark.parametrize("metric", [IdentificationRates((1, 5)), Verification((0.01,))])
def test_vectorised_bootstrap_is_the_loop(metric: IdentificationRates | Verification) -> None:
    """All resamples at once give what concatenating the drawn people's rows one by one gives."""
    evidence = trial(0)
    rows = metric.rows(evidence)
    weights = stats.cluster_weights(evidence.subject, 40, seed=1)
    loop = [
        metric.reduce(np.repeat(rows, w.astype(int), axis=0), np.ones((1, int(w.sum()))))[0]
        for w in weights
    ]
    np.testing.assert_allclose(metric.reduce(rows, weights), loop, atol=1e-12)


def test_deterministic_and_independent_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed decides the intervals; how many resamples fit in memory does not."""
    evidence = trial(1)
    metric = Verification((0.01,))
    rows = metric.rows(evidence)

    def run(seed: int) -> list[stats.Estimate]:
        return stats.bootstrap(
            metric,
            rows,
            evidence.subject,
            metric.outputs(evidence),
            metric.chance(evidence),
            resamples=200,
            seed=seed,
        )

    whole = run(0)
    null = stats.permutation_null(evidence, 200)
    monkeypatch.setattr(stats, "BLOCK_BYTES", 100_000)
    assert run(0) == whole
    assert run(1) != whole
    assert stats.permutation_null(evidence, 200) == null


def test_memory_is_bounded() -> None:
    """2,000 resamples of 1,600 probes stay within a few times the block budget."""
    evidence = trial(2, identities=400, per=4)
    metric = Verification((0.01,))
    rows = metric.rows(evidence)
    tracemalloc.start()
    stats.bootstrap(
        metric, rows, evidence.subject, metric.outputs(evidence), metric.chance(evidence)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < stats.BLOCK_BYTES


def test_estimate_carries_everything() -> None:
    """Counts, chance, direction, worst value and unit come with the number."""
    evidence = trial(3)
    metric = AnonymitySets((2, 5))
    found = stats.bootstrap(
        metric,
        metric.rows(evidence),
        evidence.subject,
        metric.outputs(evidence),
        metric.chance(evidence),
        resamples=100,
    )
    (median,) = (e for e in found if e.name == "median-set")
    assert (median.name, median.n, median.clusters) == ("median-set", 90, 30)
    assert (median.chance, median.protects, median.worst, median.unit) == (
        15.5,
        "higher",
        1.0,
        "people",
    )
    assert median.low is not None
    assert median.high is not None
    assert median.value is not None
    assert median.low <= median.value <= median.high


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_boundary_is_clopper_pearson_over_identities(value: float) -> None:
    """When all people agree the interval is that of C in C identities, not of N images."""
    subject = np.repeat(np.arange(40), 5)
    (e,) = stats.bootstrap(Mean(), np.full((200, 1), value), subject, shares(1), np.zeros(1))
    expected = binomtest(int(40 * value), 40).proportion_ci(0.95, "exact")
    assert (e.value, e.low, e.high) == pytest.approx((value, expected.low, expected.high))


def test_the_end_of_the_range_is_no_certainty() -> None:
    """FNMR of 1 at a low FMR: that a few resamples differ does not make the interval narrower."""
    rng = np.random.default_rng(0)
    scores = rng.random((100, 100))
    subject = np.arange(100)
    scores[subject, subject] = 0.5
    scores[0, 0] = np.sort(scores[~np.eye(100, dtype=bool)])[-101]  # 100 of 9,900 are above
    metric = ErrorTradeoff((0.01,))
    evidence = Identification(scores, subject, subject)
    rows, outputs = metric.rows(evidence), metric.outputs(evidence)
    weights = stats.cluster_weights(subject, 2000, seed=0)
    below = (metric.reduce(rows, weights) < 1).mean()
    (e,) = stats.bootstrap(metric, rows, subject, outputs, metric.chance(evidence))
    print(f"{below:.3f} of resamples below 1")
    assert 0 < below < 0.5
    assert (e.value, e.low, e.high) == pytest.approx((1, 0.025 ** (1 / 100), 1))


def test_boundary_of_an_open_set_counts_mated_people() -> None:
    """All 30 enrolled people named: 60 strangers do not make the next one any surer."""
    subject = np.arange(90)
    mated = np.where(subject < 30, subject, NOT_ENROLLED)
    scores = np.random.default_rng(0).random((90, 30))
    scores[subject[:30], mated[:30]] += 9
    metric = OpenSetRates((0.1,))
    evidence = OpenSet(scores, mated, subject)
    rows, outputs = metric.rows(evidence), metric.outputs(evidence)
    (e,) = stats.bootstrap(
        metric, rows, subject, outputs, metric.chance(evidence), 200, decisive=mated >= 0
    )
    assert (e.value, e.low, e.high) == pytest.approx((1, 0.025 ** (1 / 30), 1))


def test_perfect_roc_has_an_interval() -> None:
    """Perfect separation is bounded for every output, though one person alone has no TAR."""
    evidence = trial(4, identities=40, shift=50)
    metric = Verification((0.01,))
    for e in stats.bootstrap(
        metric,
        metric.rows(evidence),
        evidence.subject,
        metric.outputs(evidence),
        metric.chance(evidence),
        resamples=200,
    ):
        bound = 1 - 0.025 ** (1 / 40)
        ends = (0, bound) if e.name == "eer" else (1 - bound, 1)
        assert (e.low, e.high) == pytest.approx(ends, abs=1e-12)


def test_constant_without_range_has_no_interval() -> None:
    """Equal decibels for everyone say nothing about the next person."""
    (e,) = stats.bootstrap(
        Mean(), np.full((8, 1), 100.0), np.arange(8), shares(1, "dB"), np.array([np.nan])
    )
    assert (e.value, e.low, e.high, e.chance) == (100, None, None, None)


def test_median_that_never_moves_keeps_its_interval() -> None:
    """Agreeing resamples of people who differ are evidence, not degeneracy."""
    rows = np.ones((50, 2))
    rows[0] = 9
    _, median, *_ = stats.bootstrap(
        AnonymitySets(()), rows, np.arange(50), shares(4, "people"), np.zeros(4)
    )
    assert (median.low, median.high) == (1, 1)


class Undefined(Mean):
    """NaN unless person 0 was drawn at least `needed` times."""

    def __init__(self, needed: int) -> None:
        self.needed = needed

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means where defined."""
        return np.where(weights[:, :1] >= self.needed, super().reduce(rows, weights), np.nan)


@pytest.mark.parametrize(("needed", "value", "interval"), [(1, True, False), (2, False, False)])
def test_undefined_resamples(needed: int, value: bool, interval: bool) -> None:
    """No interval from a third of resamples undefined; no value when the estimate itself is."""
    rows = np.random.default_rng(0).random((30, 1))
    (e,) = stats.bootstrap(Undefined(needed), rows, np.arange(30), shares(1), np.zeros(1))
    assert (e.value is not None, e.low is not None, e.high is not None) == (
        value,
        interval,
        interval,
    )


def coverage(rows: Floats, subject: np.ndarray, truth: float, unit: str) -> tuple[float, float]:
    """Share of columns of `rows` (data sets) whose interval holds the truth: ours, percentile."""
    outputs = shares(rows.shape[1], unit)
    found = stats.bootstrap(Mean(), rows, subject, outputs, np.zeros(rows.shape[1]))
    ours = [e.low is not None and e.high is not None and e.low <= truth <= e.high for e in found]
    replicates = Mean().reduce(rows, stats.cluster_weights(subject, 2000, seed=0))
    low, high = np.quantile(replicates, [0.025, 0.975], axis=0)
    return float(np.mean(ours)), float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize(
    ("identities", "mean", "least", "most"),
    [
        (100, 0.01, 0.94, 1.0),
        (100, 0.05, 0.93, 0.97),
        (100, 0.3, 0.93, 0.97),
        (100, 0.565, 0.93, 0.97),
        (100, 0.9, 0.93, 0.97),
        (100, 0.99, 0.94, 1.0),
        (20, 0.565, 0.93, 0.98),
        (10, 0.565, 0.93, 0.98),
    ],
)
def test_coverage_of_shares(identities: int, mean: float, least: float, most: float) -> None:
    """95 % intervals of rank-1 hold the truth about 95 times in 100, with clustered probes.

    1,000 data sets of 3 probes a person; a person's chance of a hit is beta-distributed with
    intraclass correlation 0.4. Near 0 and 1 the interval errs on the wide side; the percentile
    interval misses the truth there in 12 of 100 data sets or more.
    """
    rng = np.random.default_rng(0)
    chance = rng.beta(mean * 1.5, (1 - mean) * 1.5, size=(identities, 1000))
    rows = (rng.random((identities * 3, 1000)) < np.repeat(chance, 3, axis=0)).astype(float)
    ours, percentile = coverage(rows, np.repeat(np.arange(identities), 3), mean, "share")
    print(f"C={identities} p={mean}: {ours:.3f}, percentile {percentile:.3f}")
    assert least <= ours <= most
    if mean in (0.01, 0.99):
        assert percentile < 0.9


@pytest.mark.parametrize("identities", [10, 20, 100])
def test_coverage_of_decibels(identities: int) -> None:
    """Few people are enough for a number that is not a share: the t quantiles see to it."""
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.normal(size=(identities, 1000)), 3, axis=0)
    rows += rng.normal(size=rows.shape)
    ours, percentile = coverage(rows, np.repeat(np.arange(identities), 3), 0.0, "dB")
    print(f"C={identities} normal: {ours:.3f}, percentile {percentile:.3f}")
    assert 0.93 <= ours <= 0.97
    if identities == 10:
        assert percentile < 0.93


def draw(
    rng: np.random.Generator, people: int, impostors: Floats
) -> tuple[Identification, OpenSet]:
    """A trial of `people` x 3 probes against 100 people, and as many probes of strangers.

    Random effects: people differ in how well they match themselves and everyone.
    """
    subject = np.repeat(np.arange(2 * people), 3)
    scores = rng.normal(size=(len(subject), 100))
    scores += np.repeat(0.5 * rng.normal(size=2 * people), 3)[:, None]
    known = subject < people
    mated = np.where(known, subject % 100, NOT_ENROLLED)
    own = 1.5 + np.repeat(rng.normal(size=people), 3)
    scores[np.flatnonzero(known), mated[known]] += own
    closed = Identification(scores[known], mated[known], subject[known], impostors)
    return closed, OpenSet(scores, mated, subject)


MEASURED: tuple[Metric, ...] = (
    IdentificationRates((1,)),
    Verification((0.01, 0.001)),
    OperatingPoint((0.01,)),
    Linkability(1.0, 100, 1),
    AnonymitySets((5,)),
    OpenSetRates((0.01, 0.1)),
)


def measured_coverage(trials: int, resamples: int) -> dict[str, tuple[float, float, float]]:
    """Output -> share of 95 % intervals that hold the value of a population, that value, bias."""
    rng = np.random.default_rng(5)
    # An attacker fixes its threshold once; people of attacker-validation match everyone, too.
    impostors = rng.normal(size=4000) + np.repeat(0.5 * rng.normal(size=40), 100)
    population = draw(rng, 10_000, impostors)
    held: dict[str, list[bool]] = {}
    error: dict[str, list[float]] = {}
    truth: dict[str, float] = {}
    for metric in MEASURED:
        rows = metric.rows(population[isinstance(metric, OpenSetRates)])
        values = metric.reduce(rows, np.ones((1, len(rows))))[0]
        truth |= dict(
            zip((o.name for o in metric.outputs(population[0])), values.tolist(), strict=True)
        )
    for _ in range(trials):
        sample = draw(rng, 100, impostors)
        for metric in MEASURED:
            e = sample[isinstance(metric, OpenSetRates)]
            outputs = metric.outputs(sample[0])
            nothing = np.full(len(outputs), np.nan)
            for found in stats.bootstrap(
                metric, metric.rows(e), e.subject, outputs, nothing, resamples
            ):
                true = truth[found.name]
                low, high = found.low, found.high
                held.setdefault(found.name, []).append(
                    low is not None and high is not None and low <= true <= high
                )
                error.setdefault(found.name, []).append((found.value or 0) - true)
    for name, true in truth.items():
        print(f"{name}: {true:.3f} {np.mean(held[name]):.3f} {np.mean(error[name]):+.4f}")
    return {
        name: (float(np.mean(held[name])), true, float(np.mean(error[name])))
        for name, true in truth.items()
    }


CLAIMED = ("rank-1", "mAP", "auc", "dir@fpir=0.1", "fnmr@fmr=0.01")


def test_coverage_of_scores() -> None:
    """Intervals of what is read off scores hold values known from a population of 10,000 people.

    100 trials: three standard errors below .95. The study has 1,000.
    """
    found = measured_coverage(100, 400)
    assert {name: found[name][0] for name in CLAIMED if found[name][0] < 0.88} == {}


@pytest.mark.study
@pytest.mark.timeout(3600)
def test_coverage_of_scores_at_study_size() -> None:
    """`pytest -m study tests/test_stats.py -s` makes the table of docs/metrics.md.

    D_sys is not claimed: its estimate is biased upward, and so is every resample of it.
    """
    found = measured_coverage(1000, 1000)
    off = {name: found[name][0] for name in CLAIMED if not 0.93 <= found[name][0] <= 0.97}
    assert off == {}
    assert found["d-sys"][2] > 0


def test_d_sys_near_no_link_is_not_covered() -> None:
    """A histogram's D_sys is biased upward: without a link its interval misses the truth, 0.

    It lies at the permutation null instead, which is why that is its chance level.
    """
    metric = Linkability(1.0, 100, 100)
    values, lows, nulls = [], [], []
    for seed in range(40):
        subject = np.repeat(np.arange(100), 3)
        scores = np.random.default_rng(seed).normal(size=(300, 100))
        noise = Identification(scores, subject, subject)
        chance = metric.chance(noise)
        (e,) = stats.bootstrap(
            metric, metric.rows(noise), noise.subject, metric.outputs(noise), chance, 400
        )
        assert e.value is not None
        assert e.low is not None
        values.append(e.value)
        lows.append(e.low)
        nulls.append(chance[0])
    assert np.mean(np.array(lows) <= 0) < 0.5
    assert np.mean(values) == pytest.approx(np.mean(nulls), abs=0.01)


def test_resampling_images_alone_covers_too_little() -> None:
    """Pitfall 8: treating photographs of one person as independent gives a false interval."""
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.normal(size=(60, 400)), 5, axis=0) + rng.normal(size=(300, 400))
    people, _ = coverage(rows, np.repeat(np.arange(60), 5), 0.0, "dB")
    images, _ = coverage(rows, np.arange(300), 0.0, "dB")
    print(f"by person {people:.3f}, by image {images:.3f}")
    assert people > 0.92
    assert images < 0.85


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (1, 7), (50, 300)])
def test_exact_binomial_is_scipys(k: int, n: int) -> None:
    """Clopper-Pearson, as SciPy's binomial test computes it."""
    expected = binomtest(k, n).proportion_ci(0.9, "exact")
    assert stats.exact_binomial(k, n, 0.9) == pytest.approx((expected.low, expected.high))


def test_exact_binomial_refuses_nonsense() -> None:
    """More successes than trials is an error, not a number."""
    with pytest.raises(DataError, match="8 of 7"):
        stats.exact_binomial(8, 7)


def test_permutation_null_against_relabelling() -> None:
    """The one-ranking null is what recomputing rank-1 and AUC under each relabelling gives."""
    evidence = trial(5, identities=12)
    evidence = Identification(np.round(evidence.scores), evidence.mated, evidence.subject)
    rank1, auc = stats.permutation_null(evidence, 300, seed=4)
    rng = np.random.default_rng(4)
    names = rng.permuted(np.broadcast_to(np.arange(12), (300, 12)), axis=1)
    metric = IdentificationRates((1,))
    slow = []
    for permuted in [np.arange(12), *names]:
        mated = permuted[evidence.mated]
        rows = metric.rows(Identification(evidence.scores, mated, evidence.subject))
        truth = np.zeros(evidence.scores.shape)
        truth[np.arange(36), mated] = 1
        slow.append((rows[:, 0].mean(), roc_auc_score(truth.ravel(), evidence.scores.ravel())))
    observed, null = slow[0], np.array(slow[1:])
    for i, found in enumerate((rank1, auc)):
        low, high = np.quantile(null[:, i], [0.025, 0.975])
        p = (1 + np.sum(null[:, i] >= observed[i] - 1e-12)) / 301
        assert (found.observed, found.mean, found.low, found.high, found.p) == pytest.approx(
            (observed[i], null[:, i].mean(), low, high, p)
        )


def test_permutation_null_centres_on_chance() -> None:
    """Rank-1 is 1 / S and AUC 1 / 2 under the null, even where one face matches everyone."""
    evidence = trial(6, identities=50)
    evidence.scores[:, 7] += 3
    rank1, auc = stats.permutation_null(evidence, 4000)
    assert rank1.mean == pytest.approx(1 / 50, abs=0.002)
    assert auc.mean == pytest.approx(0.5, abs=0.005)
    assert rank1.observed > rank1.high
    assert rank1.p < 0.01


def test_paired_difference_sees_through_shared_noise() -> None:
    """Pairing removes what both sides share: the interval excludes 0 where single ones overlap."""
    rng = np.random.default_rng(7)
    subject = np.repeat(np.arange(60), 3)
    a = np.repeat(rng.random((60, 1)), 3, axis=0)
    b = a - 0.05 + 0.02 * rng.normal(size=a.shape)
    (difference,) = stats.paired_difference(Mean(), a, b, subject, shares(1))
    (one,), (other,) = (
        stats.bootstrap(Mean(), rows, subject, shares(1), np.zeros(1)) for rows in (a, b)
    )
    assert difference.value == pytest.approx((a - b).mean())
    assert difference.chance == 0
    assert difference.low is not None
    assert difference.low > 0
    assert one.low is not None
    assert other.high is not None
    assert one.low < other.high


def test_paired_difference_of_equals_is_bounded() -> None:
    """Two sides that agree on all C people may still differ on the next ones."""
    rows = np.random.default_rng(8).random((30, 1))
    (e,) = stats.paired_difference(Mean(), rows, rows, np.arange(30), shares(1))
    bound = 1 - 0.025 ** (1 / 30)
    assert (e.value, e.low, e.high) == pytest.approx((0, -bound, bound))


def test_paired_rows_must_match() -> None:
    """Different probes cannot be paired."""
    with pytest.raises(DataError, match="Paired"):
        stats.paired_difference(Mean(), np.ones((3, 1)), np.ones((2, 1)), np.arange(3), shares(1))
