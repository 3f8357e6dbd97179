"""The metric `membership` against scikit-learn, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from privbench.errors import DataError, PluginError
from privbench.settest import refusal
from privbench.stats import bootstrap
from privbench.types import Evidence, Floats, Identification, Membership
from privbench_plugins.metrics import membership
from privbench_plugins.metrics._membership import MembershipRates, enough, threshold

METRIC = membership.build(membership.Config())
NAMES = ("auc", "tpr@fpr=0.01", "tpr@fpr=0.001", "tpr@calibrated=0.01", "fpr@calibrated=0.01")


def trial(
    seed: int = 0,
    members: int = 900,
    others: int = 1200,
    shift: float = 1.0,
    decimals: int = 9,
    calibration: int = 300,
) -> Membership:
    """Noise, raised by `shift` for members; one photo a person, in a mixed order."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(members + others) < members)
    scores = rng.normal(size=len(member)) + shift * member
    person = np.where(member, np.cumsum(member), 10_000 + np.cumsum(~member))
    return Membership(
        np.round(scores, decimals), member, person, np.round(rng.normal(size=calibration), decimals)
    )


def numbers(evidence: Membership, weights: Floats | None = None) -> dict[str, float]:
    """The outputs by name, of all rows alike unless weights are given."""
    rows = METRIC.rows(evidence)
    each = np.ones(len(rows)) if weights is None else weights
    return dict(zip(NAMES, METRIC.reduce(rows, each[None])[0].tolist(), strict=True))


def largest(evidence: Membership, rate: float) -> float:
    """Largest TPR of scikit-learn's curve whose FPR is within the rate."""
    fpr, tpr, _ = roc_curve(evidence.member, evidence.scores, drop_intermediate=False)
    return float(tpr[fpr <= rate].max())


def test_several_photos_of_a_person_are_one_trial() -> None:
    """1,200 photos of 400 people do not show a rate of 0.1 %, and of 40 people not one of 1 %."""
    plain = trial()
    for each, shown in ((1, {0.01, 0.001}), (3, {0.01}), (30, set())):
        few = Membership(plain.scores, plain.member, plain.subject // each, plain.calibration)
        found = numbers(few)
        for rate in (0.01, 0.001):
            assert np.isnan(found[f"tpr@fpr={rate:g}"]) == (rate not in shown)


def test_outputs_have_the_names_of_the_page() -> None:
    """One AUC, two TPRs at rates of the evaluation people, two rates at a fixed threshold."""
    assert tuple(o.name for o in METRIC.outputs(trial())) == NAMES


@pytest.mark.parametrize("seed", range(4))
def test_rates_are_scikit_learns(seed: int) -> None:
    """AUC, and the largest TPR within the target."""
    evidence = trial(seed)
    found = numbers(evidence)
    assert found["auc"] == pytest.approx(roc_auc_score(evidence.member, evidence.scores))
    assert found["tpr@fpr=0.01"] == pytest.approx(largest(evidence, 0.01))
    assert found["tpr@fpr=0.001"] == pytest.approx(largest(evidence, 0.001))


def test_the_nearest_rate_would_report_more() -> None:
    """1,900 non-members: FPR 1/1900 is within .1 %, 2/1900 is not, though it is nearer."""
    others = np.linspace(0, 1, 1900)
    members = np.array([0.9999, 0.9995, 0.9990, 0.5])
    evidence = Membership(
        np.concatenate([others, members]), np.arange(1904) >= 1900, np.arange(1904), np.empty(0)
    )
    fpr, tpr, _ = roc_curve(evidence.member, evidence.scores, drop_intermediate=False)
    nearest = tpr[np.abs(fpr - 0.001) == np.abs(fpr - 0.001).min()].max()
    assert numbers(evidence)["tpr@fpr=0.001"] == 0.5
    assert nearest > 0.5


def test_ties_are_broken_at_random() -> None:
    """Of tied scores the expected value; all scores equal give exactly chance."""
    evidence = trial(decimals=0, shift=0.5)
    noise = np.random.default_rng(0).random((300, len(evidence.scores)))
    broken = [numbers(replace(evidence, scores=evidence.scores + 1e-6 * n)) for n in noise]
    found = numbers(evidence)
    assert found["auc"] == pytest.approx(roc_auc_score(evidence.member, evidence.scores))
    for name in NAMES[:2]:
        assert found[name] == pytest.approx(np.mean([b[name] for b in broken]), abs=2e-3)
    flat = numbers(replace(evidence, scores=np.zeros_like(evidence.scores)))
    assert [flat[name] for name in NAMES[:3]] == pytest.approx([0.5, 0.01, 0.001])


def test_a_wrong_direction_stays_wrong() -> None:
    """No max(AUC, 1 - AUC): the attack fixes the direction."""
    evidence = trial(shift=-1.0)
    assert numbers(evidence)["auc"] < 0.3


def test_weights_are_multiplicities() -> None:
    """Rows of weight 2 count as two rows, of weight 0 as none."""
    evidence = trial(members=300, others=1500)
    times = np.random.default_rng(1).integers(0, 3, len(evidence.scores))
    drawn = np.repeat(np.arange(len(times)), times)
    again = Membership(
        evidence.scores[drawn],
        evidence.member[drawn],
        evidence.subject[drawn],
        evidence.calibration,
    )
    assert numbers(evidence, times.astype(float)) == pytest.approx(numbers(again))


def test_a_threshold_is_fixed_beforehand() -> None:
    """Both rates are those of a confusion matrix; evaluation scores do not move the threshold."""
    evidence = trial(calibration=500)
    limit = np.sort(evidence.calibration)[-6]  # 5 of 500 above it
    matrix = confusion_matrix(evidence.member, evidence.scores > limit)
    found = numbers(evidence)
    assert found["fpr@calibrated=0.01"] == pytest.approx(matrix[0, 1] / matrix[0].sum())
    assert found["tpr@calibrated=0.01"] == pytest.approx(matrix[1, 1] / matrix[1].sum())
    moved = METRIC.rows(replace(evidence, scores=evidence.scores + 10))
    assert moved[:, 2].all()


def test_a_threshold_that_does_not_carry_over_shows() -> None:
    """Own images of another kind: the attained rate is far from 1 %, and says so."""
    evidence = trial(calibration=500, shift=0.0)
    found = numbers(replace(evidence, calibration=evidence.calibration - 2))
    assert found["fpr@calibrated=0.01"] > 0.3
    assert found["tpr@calibrated=0.01"] == pytest.approx(found["fpr@calibrated=0.01"], abs=0.05)


@pytest.mark.parametrize(("count", "above"), [(100, 1), (199, 1), (200, 2), (1000, 10)])
def test_the_calibration_rate_is_never_exceeded(count: int, above: int) -> None:
    """At most 1 % of the attacker's own scores lie above T, and T is the smallest such."""
    scores = np.random.default_rng(0).permutation(count).astype(float)
    assert (scores > threshold(scores, 0.01)).sum() == above
    tied = np.repeat([0.0, 1.0], [count - above - 1, above + 1])
    assert threshold(tied, 0.01) == 1.0


def test_what_too_few_cannot_show_is_blank() -> None:
    """999 non-members show no rate of .1 %, 99 none of 1 %, 99 own images no threshold."""
    blank = {
        name: [np.isnan(numbers(trial(others=n, calibration=c))[name]) for n, c in cases]
        for name, cases in {
            "tpr@fpr=0.001": [(999, 99), (1000, 99)],
            "tpr@fpr=0.01": [(99, 99), (100, 99)],
            "tpr@calibrated=0.01": [(99, 99), (99, 100)],
            "fpr@calibrated=0.01": [(99, 99), (99, 100)],
            "auc": [(99, 99), (1, 0)],
        }.items()
    }
    assert blank.pop("auc") == [False, False]
    assert set(map(tuple, blank.values())) == {(True, False)}


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1, 0.03, 0.01, 0.007, 0.001, 0.00033])
def test_the_page_refuses_what_the_metric_refuses(rate: float) -> None:
    """`settest.refusal` gives a reason exactly where the number is blank."""
    near = round(1 / rate) + np.arange(-3, 4)
    assert [enough(int(n), rate) for n in near] == [not refusal(rate, int(n)) for n in near]


def test_a_resample_with_fewer_non_members_is_not_refused() -> None:
    """What counts is how many there are: exactly 1,000 still get an interval."""
    evidence = trial(members=600, others=1000)
    found = bootstrap(
        METRIC,
        METRIC.rows(evidence),
        evidence.subject,
        METRIC.outputs(evidence),
        METRIC.chance(evidence),
        resamples=200,
    )
    for estimate in found:
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize(("members", "others"), [(400, 1000), (500, 1500)])
def test_chance_is_what_noise_gets(members: int, others: int) -> None:
    """A TPR within a rate is above that rate on noise, since its threshold is the next score's."""
    evidence = [trial(s, members, others, shift=0.0) for s in range(1000)]
    found = np.mean([list(numbers(e).values()) for e in evidence], axis=0)
    chance = METRIC.chance(evidence[0])
    assert (np.abs(found - chance)[:3] < [2e-3, 6e-4, 3e-4]).all()
    assert chance[2] > 0.0013
    assert np.isnan(chance[3:]).all()


def test_noise_claims_nothing() -> None:
    """Intervals on noise hold chance in nearly all of 40 trials, AUC and TPR alike."""
    missed = np.zeros(2)
    for seed in range(40):
        evidence = trial(seed, 300, 1000, shift=0.0)
        found = bootstrap(
            METRIC,
            METRIC.rows(evidence),
            evidence.subject,
            METRIC.outputs(evidence),
            METRIC.chance(evidence),
            resamples=200,
        )
        assert found[0].low is not None
        assert found[1].low is not None
        missed += [found[0].low > 0.5, found[1].low > (found[1].chance or 0)]
    assert (missed <= 4).all()


def test_a_row_is_its_image() -> None:
    """Rows in another order are the same rows."""
    evidence = trial()
    order = np.random.default_rng(0).permutation(len(evidence.scores))
    mixed = Membership(
        evidence.scores[order],
        evidence.member[order],
        evidence.subject[order],
        evidence.calibration[::-1],
    )
    assert np.array_equal(METRIC.rows(mixed), METRIC.rows(evidence)[order])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full(2100, np.nan)}, "must not be NaN"),
        ({"calibration": np.array([np.nan])}, "must not be NaN"),
        ({"scores": np.zeros(7)}, "one per image"),
        ({"member": np.ones(2100, bool)}, "one of them is missing"),
        ({"member": np.zeros(2100, bool)}, "one of them is missing"),
    ],
)
def test_bad_evidence_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    """Numbers that would flatter or damn silently are an error."""
    with pytest.raises(DataError, match=message):
        METRIC.rows(replace(trial(), **change))


def test_other_evidence_is_refused() -> None:
    """Identification scores are another question."""
    wrong: Evidence = Identification(np.ones((1, 2)), np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(PluginError, match="membership scores"):
        METRIC.rows(wrong)


def test_a_resample_without_one_side_is_undefined() -> None:
    """Weights that leave only members, or only others, give NaN and no warning."""
    rows = METRIC.rows(trial())
    member = rows[:, 1]
    found = METRIC.reduce(rows, np.stack([member, 1 - member]))
    assert np.isnan(found[:, :3]).all()
    assert np.isnan(found[0, 4])
    assert np.isnan(found[1, 3])


def test_settings_name_the_outputs() -> None:
    """Other rates, in their order."""
    metric = MembershipRates((0.1,), 0.05)
    names = [o.name for o in metric.outputs(trial())]
    assert names == ["auc", "tpr@fpr=0.1", "tpr@calibrated=0.05", "fpr@calibrated=0.05"]
    rows = metric.rows(trial())
    assert metric.reduce(rows, np.ones((3, len(rows)))).shape == (3, 4)


@pytest.mark.study
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("people", "images", "shift"),
    [(1000, 1, 0.1), (1000, 1, 0.5), (350, 3, 0.1), (350, 3, 0.5), (350, 3, 1.5)],
)
def test_coverage_at_study_size(people: int, images: int, shift: float) -> None:
    """`pytest -m study tests/test_membership_metrics.py -s` makes the table of docs/metrics.md.

    Members and as many others; half of the variance between people; 300 data sets.
    """
    calibration = np.random.default_rng(99).normal(size=1000)
    limit = np.array([*norm.isf([0.01, 0.001]), threshold(calibration, 0.01)])
    truth = np.array([norm.cdf(shift / 2**0.5), *norm.sf(limit - shift), norm.sf(limit[2])])
    subject = np.repeat(np.arange(2 * people), images)
    member = subject < people
    held, values = [], []
    for seed in range(300):
        rng = np.random.default_rng(1000 + seed)
        noise = rng.normal(size=2 * people)[subject] + rng.normal(size=len(subject))
        trial = Membership(noise / 2**0.5 + shift * member, member, subject, calibration)
        found = bootstrap(
            METRIC,
            METRIC.rows(trial),
            subject,
            METRIC.outputs(trial),
            METRIC.chance(trial),
            resamples=1000,
            seed=seed,
        )
        values.append([e.value for e in found])
        held.append([e.low <= t <= e.high for e, t in zip(found, truth, strict=True)])
    for row in zip(
        NAMES, truth, np.mean(values, axis=0) - truth, np.mean(held, axis=0), strict=True
    ):
        print("{}: truth {:.4f}, mean error {:+.4f}, coverage {:.3f}".format(*row))
    coverage = np.mean(held, axis=0)
    assert (np.delete(coverage, 2) > 0.9).all()
    assert coverage[2] > 0.75  # the second largest of 1,000 scores is no threshold to rely on
