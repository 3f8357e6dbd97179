"""Each metric against an independent implementation, and its edge cases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import (
    confusion_matrix,
    coverage_error,
    label_ranking_average_precision_score,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_sensitivity_at_specificity,
    multiclass_accuracy,
    multilabel_coverage_error,
    multilabel_ranking_average_precision,
)
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from privbench.errors import DataError, PluginError
from privbench.types import Evidence, Floats, Identification, ImageSet, Metric, Release
from privbench_plugins.metrics import fidelity, identification, kanonymity, verification
from privbench_plugins.metrics._common import exceedance
from privbench_plugins.metrics._kanonymity import weighted_quantiles
from privbench_plugins.metrics._operating import OperatingPoint, fixed_threshold

SPECS = (*identification.SPECS, *verification.SPECS, *kanonymity.SPECS)
RATES, CURVE, ROC, DET, _, SETS = (spec.build(spec.config()) for spec in SPECS)
POINT = OperatingPoint((0.01,))
SCORED: list[Metric] = [RATES, CURVE, ROC, DET, POINT, SETS]

IMPOSTORS = 3312
"""Comparisons of different people among 24 x 6 photographs: attacker-validation of `quick`."""


def trial(
    seed: int = 0, probes: int = 60, people: int = 25, shift: float = 1.0, decimals: int = 9
) -> Identification:
    """Noise, raised by `shift` for the true person."""
    rng = np.random.default_rng(seed)
    mated = rng.integers(people, size=probes)
    scores = rng.normal(size=(probes, people))
    scores[np.arange(probes), mated] += shift
    impostors = np.round(rng.normal(size=IMPOSTORS), decimals)
    return Identification(np.round(scores, decimals), mated, mated, impostors)


def numbers(metric: Metric, evidence: Evidence) -> dict[str, float]:
    """The point estimates by name."""
    rows = metric.rows(evidence)
    values = metric.reduce(rows, np.ones((1, len(rows))))[0]
    return dict(zip((o.name for o in metric.outputs(evidence)), values.tolist(), strict=True))


def chance(metric: Metric, evidence: Evidence) -> dict[str, float]:
    """The values under guessing by name."""
    names = (o.name for o in metric.outputs(evidence))
    return dict(zip(names, metric.chance(evidence).tolist(), strict=True))


def pooled(evidence: Identification) -> tuple[np.ndarray, np.ndarray]:
    """Binary labels and scores of all comparisons."""
    labels = np.zeros(evidence.scores.shape, dtype=int)
    labels[np.arange(len(labels)), evidence.mated] = 1
    return labels.ravel(), evidence.scores.ravel()


def untied(evidence: Identification, seed: int) -> Identification:
    """The same trial after breaking ties at random."""
    noise = np.random.default_rng(seed).random(evidence.scores.shape)
    return Identification(
        evidence.scores + 1e-6 * noise, evidence.mated, evidence.subject, evidence.impostors
    )


# --- against independent implementations ---------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_rank_k_is_top_k_accuracy(seed: int) -> None:
    """Rank-k and the CMC are scikit-learn's top-k accuracy."""
    evidence = trial(seed)
    expected = {
        k: top_k_accuracy_score(evidence.mated, evidence.scores, k=k, labels=np.arange(25))
        for k in range(1, 21)
    }
    rates, curve = numbers(RATES, evidence), numbers(CURVE, evidence)
    assert {k: rates[f"rank-{k}"] for k in (1, 5, 10)} == pytest.approx(
        {k: expected[k] for k in (1, 5, 10)}
    )
    assert list(curve.values()) == pytest.approx(list(expected.values()))


@pytest.mark.parametrize("seed", range(3))
def test_map_is_label_ranking_average_precision(seed: int) -> None:
    """With one relevant person mAP is scikit-learn's label ranking average precision."""
    evidence = trial(seed)
    labels = pooled(evidence)[0].reshape(evidence.scores.shape)
    expected = label_ranking_average_precision_score(labels, evidence.scores)
    assert numbers(RATES, evidence)["mAP"] == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_auc_is_scikit_learns(decimals: int) -> None:
    """AUC is exact, with ties too."""
    evidence = trial(decimals=decimals)
    assert numbers(ROC, evidence)["auc"] == pytest.approx(roc_auc_score(*pooled(evidence)))


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_eer_is_where_the_roc_meets_the_diagonal(decimals: int) -> None:
    """EER is the crossing of scikit-learn's ROC polygon with FAR = FRR, found by bisection."""
    evidence = trial(decimals=decimals)
    far, tar, _ = roc_curve(*pooled(evidence), drop_intermediate=False)
    # Walk along the polygon by FAR + TAR, which never stands still.
    at = np.interp(1.0, far + tar, far)
    assert numbers(ROC, evidence)["eer"] == pytest.approx(at)


@pytest.mark.parametrize("seed", range(5))
def test_tar_is_the_largest_within_the_far(seed: int) -> None:
    """Without ties TAR@FAR is the largest TAR of scikit-learn's ROC with FAR <= target."""
    evidence = trial(seed, probes=500)
    far, tar, _ = roc_curve(*pooled(evidence), drop_intermediate=False)
    found = numbers(ROC, evidence)
    for target in (0.01, 0.001):
        assert found[f"tar@far={target}"] == pytest.approx(tar[far <= target].max())


def test_tar_is_never_that_of_the_nearest_far() -> None:
    """Pitfall 3: a corner just above the target is nearer, and is not credited."""
    # Half of the probes are accepted at FAR .009, all at FAR .0101, which is nearer to .01.
    mated = np.repeat([1.0, 0.5], 5)
    impostors = np.zeros(10_000)
    impostors[:90], impostors[90:101] = 2, 0.7
    far, tar, _ = roc_curve(np.repeat([1, 0], [10, 10_000]), np.concatenate([mated, impostors]))
    rows = np.column_stack([mated, impostors.reshape(10, 1000)])
    nearest = far[np.abs(far - 0.01).argmin()]
    assert tar[far == nearest].max() == 1
    assert ROC.reduce(rows, np.ones((1, 10)))[0, 2] == 0.5


def test_tar_is_refused_on_too_few_impostors() -> None:
    """A rate needs 10 expected false accepts: 1 % wants 1,000 impostor scores, 0.1 % 10,000."""
    small, middle, large = (numbers(ROC, trial(probes=n)) for n in (41, 42, 417))
    assert np.isnan([small["tar@far=0.01"], small["tar@far=0.001"]]).all()  # 984
    assert not np.isnan(middle["tar@far=0.01"])  # 1,008
    assert np.isnan(middle["tar@far=0.001"])
    assert not np.isnan(large["tar@far=0.001"])  # 10,008


def slow_sets(evidence: Identification) -> list[int]:
    """Sizes of anonymity sets, one comparison at a time."""
    return [
        sum(score >= row[m] for score in row)
        for row, m in zip(evidence.scores.tolist(), evidence.mated.tolist(), strict=True)
    ]


@pytest.mark.parametrize("decimals", [9, 0])
def test_anonymity_sets_by_counting(decimals: int) -> None:
    """Sets are counted candidate by candidate; the median is NumPy's."""
    evidence = trial(decimals=decimals)
    sizes = slow_sets(evidence)
    expected = {f"set<{k}": np.mean([s < k for s in sizes]) for k in (2, 5, 10, 20)}
    quartiles = np.quantile(sizes, [0.25, 0.5, 0.75], method="averaged_inverted_cdf")
    names = ("lower-quartile-set", "median-set", "upper-quartile-set")
    rank1 = numbers(RATES, evidence)["rank-1"]
    assert numbers(SETS, evidence) == pytest.approx(
        {**expected, **dict(zip(names, quartiles, strict=True)), "effective-k": 1 / rank1}
    )


def test_effective_k_is_unknown_where_nobody_is_named() -> None:
    """1 / 0 people is no number."""
    assert np.isnan(numbers(SETS, trial(shift=-1000))["effective-k"])


@pytest.mark.parametrize("decimals", [9, 1])
def test_det_is_scikit_learns(decimals: int) -> None:
    """The curve is read from scikit-learn's: least FNMR within each FMR, between tied corners."""
    evidence = trial(probes=500, decimals=decimals)
    fmr, tmr, _ = roc_curve(*pooled(evidence), drop_intermediate=False)
    found = numbers(DET, evidence)
    grid = np.array([float(name.removeprefix("det-")) for name in found])
    if decimals == 9:
        expected = [1 - tmr[fmr <= target].max() for target in grid]
    else:
        expected = 1 - np.interp(grid, fmr, tmr)  # every level is tied: slanted lines all along
    assert list(found.values()) == pytest.approx(list(expected), abs=1e-12)
    assert np.all(np.diff(list(found.values())) <= 0)


def test_ranks_and_auc_are_torchmetrics() -> None:
    """Rank-k is its top-k accuracy, mAP its ranking precision, AUC its area."""
    evidence = trial(1, probes=200)
    labels, pool = (torch.from_numpy(x) for x in pooled(evidence))
    scores, mated = torch.from_numpy(evidence.scores), torch.from_numpy(evidence.mated)
    relevant = labels.reshape(scores.shape)
    expected = {
        f"rank-{k}": multiclass_accuracy(scores, mated, 25, average="micro", top_k=k)
        for k in (1, 5, 10)
    } | {"mAP": multilabel_ranking_average_precision(scores, relevant, 25)}
    assert numbers(RATES, evidence) == pytest.approx({k: float(v) for k, v in expected.items()})
    assert numbers(ROC, evidence)["auc"] == pytest.approx(
        float(binary_auroc(pool.sigmoid(), labels)), abs=1e-6
    )


@pytest.mark.parametrize("decimals", [9, 0])
def test_mean_anonymity_set_is_the_coverage_error(decimals: int) -> None:
    """The mean size is scikit-learn's and torchmetrics' coverage error, ties included."""
    evidence = trial(decimals=decimals)
    labels = pooled(evidence)[0].reshape(evidence.scores.shape)
    mean = SETS.rows(evidence)[:, -2].mean()
    assert mean == pytest.approx(coverage_error(labels, evidence.scores))
    by_torch = multilabel_coverage_error(
        torch.from_numpy(evidence.scores), torch.from_numpy(labels), 25
    )
    assert mean == pytest.approx(float(by_torch))


def test_operating_point_is_a_confusion_matrix() -> None:
    """The two rates are those of scikit-learn's counts of accepted comparisons."""
    evidence = trial(2, probes=300)
    labels, scores = pooled(evidence)
    accepted = scores > fixed_threshold(evidence.impostors, 0.01)
    rates = confusion_matrix(labels, accepted, normalize="true")
    assert list(numbers(POINT, evidence).values()) == pytest.approx([rates[1, 0], rates[0, 1]])


def test_det_agrees_with_torchmetrics() -> None:
    """FNMR at FMR is 1 - torchmetrics' largest sensitivity at a specificity of 1 - FMR."""
    evidence = trial(probes=500)
    labels, scores = (torch.from_numpy(x) for x in pooled(evidence))
    found = numbers(DET, evidence)
    for fmr in (0.001, 0.01, 0.1):
        tmr, _ = binary_sensitivity_at_specificity(scores.sigmoid(), labels, 1 - fmr)
        assert found[f"det-{fmr:g}"] == pytest.approx(1 - float(tmr), abs=1e-6)


# --- thresholds fixed beforehand -----------------------------------------------------------


@pytest.mark.parametrize("decimals", [9, 1])
@pytest.mark.parametrize("rate", [0.01, 0.29, 0.5])
def test_fixed_threshold_is_the_smallest_that_keeps_the_rate(decimals: int, rate: float) -> None:
    """Found by trying every score: the rate is kept at T, and broken at the next lower score."""
    scores = np.round(np.random.default_rng(0).normal(size=1000), decimals)
    kept = [t for t in np.unique(scores) if np.sum(scores > t) <= round(1000 * rate)]
    assert fixed_threshold(scores, rate) == min(kept)


def test_operating_point_one_comparison_at_a_time() -> None:
    """Thresholds come from attacker-validation alone, and errors are counted one by one."""
    evidence = trial(probes=80, decimals=1)
    threshold = fixed_threshold(evidence.impostors, 0.01)
    missed, matched = 0, 0
    for i, m in enumerate(evidence.mated):
        missed += evidence.scores[i, m] <= threshold
        matched += sum(evidence.scores[i, j] > threshold for j in range(25) if j != m)
    assert numbers(POINT, evidence) == pytest.approx(
        {"fnmr@fmr=0.01": missed / 80, "fmr@0.01": matched / (80 * 24)}
    )


def test_operating_point_shows_the_shift() -> None:
    """Where strangers score higher than on attacker-validation, the attained FMR says so."""
    evidence = trial(probes=2000)
    shifted = Identification(
        evidence.scores + 0.5, evidence.mated, evidence.subject, evidence.impostors
    )
    attained = numbers(POINT, shifted)["fmr@0.01"]
    assert attained == pytest.approx(norm.sf(norm.isf(0.01) - 0.5), abs=0.006)  # .034
    assert numbers(POINT, evidence)["fmr@0.01"] == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("count", [0, 999])
def test_operating_point_needs_impostors(count: int) -> None:
    """1 % wants 1,000 scores between different people of attacker-validation, else it is blank."""
    whole = trial()
    few = Identification(whole.scores, whole.mated, whole.subject, whole.impostors[:count])
    assert np.isnan(list(numbers(POINT, few).values())).all()
    enough = Identification(whole.scores, whole.mated, whole.subject, whole.impostors[:1000])
    assert not np.isnan(list(numbers(POINT, enough).values())).any()


@pytest.mark.parametrize(("count", "rate"), [(100, 0.1), (80, 0.01), (37, 0.29)])
def test_exceedance_by_simulation(count: int, rate: float) -> None:
    """How often one more score passes the smallest threshold fixed on `count` of its kind."""
    scores = np.sort(np.random.default_rng(1).normal(size=(40_000, count)), axis=1)
    threshold = scores[:, count - 1 - int(count * rate + 1e-9)]
    passed = norm.sf(threshold).mean()
    assert passed == pytest.approx(exceedance(count, rate), rel=0.02)


# --- ties ----------------------------------------------------------------------------------


def test_ties_are_broken_at_random() -> None:
    """With tied scores each number is the mean over random tie-breaking."""
    evidence = trial(probes=60, shift=2, decimals=0)
    for metric in (RATES, CURVE, ROC, DET):
        broken = [numbers(metric, untied(evidence, seed)) for seed in range(300)]
        mean = {name: np.mean([b[name] for b in broken]) for name in broken[0]}
        found = numbers(metric, evidence)
        for name in found:
            if not np.isnan(found[name]):  # refused
                assert found[name] == pytest.approx(mean[name], abs=0.012), name


def test_constant_scores_are_chance() -> None:
    """An attack that says nothing gets exactly chance, and hides everyone among all."""
    evidence = Identification(np.full((500, 25), 0.3), np.arange(500) % 25, np.arange(500) % 25)
    for metric in (RATES, CURVE, ROC, DET):
        assert numbers(metric, evidence) == pytest.approx(chance(metric, evidence), abs=1e-12)
    assert list(numbers(SETS, evidence).values()) == pytest.approx([0] * 4 + [25] * 4)


# --- known answers -------------------------------------------------------------------------


@pytest.mark.parametrize("metric", SCORED)
def test_perfect_scores_reach_the_worst_value(metric: Metric) -> None:
    """An attack that is always right gets the declared worst value in every output."""
    evidence = trial(probes=500, shift=1000)
    worst = {o.name: o.worst for o in metric.outputs(evidence)}
    assert numbers(metric, evidence) == pytest.approx(worst, abs=0.015)  # .01: the attained FMR


@pytest.mark.parametrize("metric", SCORED)
def test_noise_is_at_chance(metric: Metric) -> None:
    """Random scores give the declared chance."""
    evidence = trial(probes=4000, shift=0)
    found, expected = numbers(metric, evidence), chance(metric, evidence)
    for name in found:
        tolerance = 2.5 if name == "effective-k" else 0.6 if name.endswith("-set") else 0.025
        assert found[name] == pytest.approx(expected[name], abs=tolerance), name


def test_below_chance_stays_below() -> None:
    """Pitfall 6: no max(AUC, 1 - AUC), nor any other flip of the scores' direction."""
    evidence = trial(probes=500, shift=-1000)
    found = numbers(ROC, evidence)
    assert found == pytest.approx({"auc": 0, "eer": 1, "tar@far=0.01": 0, "tar@far=0.001": 0})
    assert numbers(RATES, evidence)["rank-10"] == 0


def test_small_galleries() -> None:
    """Ranks and sets beyond the number of people are left out; one person has no impostor."""
    three = trial(people=3)
    assert list(numbers(RATES, three)) == ["rank-1", "mAP"]
    assert list(numbers(CURVE, three)) == ["cmc-1", "cmc-2", "cmc-3"]
    assert [name for name in numbers(SETS, three) if "<" in name] == ["set<2"]
    alone = Identification(np.zeros((4, 1)), np.zeros(4, int), np.zeros(4, int))
    assert np.isnan(list(numbers(ROC, alone).values())).all()
    assert numbers(RATES, alone) == {"rank-1": 1.0, "mAP": 1.0}


@pytest.mark.parametrize("metric", SCORED)
def test_bad_evidence_is_refused(metric: Metric) -> None:
    """NaN scores, impossible columns and the wrong kind of evidence are errors, not numbers."""
    good = trial()
    scores = good.scores.copy()
    scores[3, 4] = np.nan
    with pytest.raises(DataError, match="NaN"):
        metric.rows(Identification(scores, good.mated, good.subject))
    with pytest.raises(DataError, match="Impostor"):
        metric.rows(Identification(good.scores, good.mated, good.subject, np.array([np.nan])))
    with pytest.raises(DataError, match="columns from 0 to 24"):
        metric.rows(Identification(good.scores, good.mated + 1, good.subject))
    with pytest.raises(PluginError, match="Release"):
        metric.rows(release())


# --- rows and weights ----------------------------------------------------------------------


@pytest.mark.parametrize("metric", SCORED)
def test_rows_depend_on_their_probe_alone(metric: Metric) -> None:
    """Rows computed in parts are the rows of the whole."""
    evidence = trial(decimals=1)
    parts = [
        metric.rows(
            Identification(
                evidence.scores[s], evidence.mated[s], evidence.subject[s], evidence.impostors
            )
        )
        for s in (slice(0, 1), slice(1, 37), slice(37, None))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), metric.rows(evidence))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    people=st.integers(2, 30),
    weights=st.lists(
        st.lists(st.integers(0, 3), min_size=8, max_size=8).filter(any), min_size=1, max_size=4
    ),
    decimals=st.sampled_from([9, 0]),
)
def test_weights_are_repetitions(
    seed: int, people: int, weights: list[list[int]], decimals: int
) -> None:
    """Reducing with weights is reducing rows that are physically repeated, ties or not."""
    evidence = trial(seed, probes=8, people=people, decimals=decimals)
    w = np.array(weights, dtype=np.float64)
    verify = verification.build(verification.Config(fars=(0.2, 0.5)))
    det = verification.build_curve(verification.CurveConfig(fmrs=(0.2, 0.5)))
    for metric in (*SCORED, verify, det):
        rows = metric.rows(evidence)
        repeated = [np.repeat(rows, counts, axis=0) for counts in weights]
        expected = [metric.reduce(r, np.ones((1, len(r))))[0] for r in repeated]
        np.testing.assert_allclose(metric.reduce(rows, w), expected, atol=1e-12)


@settings(deadline=None)
@given(
    values=st.lists(st.integers(1, 6), min_size=1, max_size=9),
    data=st.data(),
)
def test_weighted_quantiles_are_numpys(values: list[int], data: st.DataObject) -> None:
    """Weighted quantiles are NumPy's of repeated values; one half is the usual median."""
    size, shares = len(values), (0.25, 0.5, 0.75)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any))
    found = weighted_quantiles(np.array(values, float), np.array([weights], float), shares)[0]
    repeated = np.repeat(values, weights)
    expected = np.quantile(repeated, shares, method="averaged_inverted_cdf")
    assert found.tolist() == expected.tolist()
    assert found[1] == np.median(repeated)


@pytest.mark.parametrize("metric", SCORED)
@pytest.mark.filterwarnings("error")
def test_no_weight_is_undefined(metric: Metric) -> None:
    """A resample without rows is NaN in every output, silently."""
    rows = metric.rows(trial())
    assert np.isnan(metric.reduce(rows, np.zeros((2, len(rows))))).all()


# --- fidelity ------------------------------------------------------------------------------

SSIM, PSNR = (spec.build(spec.config()) for spec in fidelity.SPECS)


def release(n: int = 40, side: tuple[int, int] = (24, 17), noise: int = 40) -> Release:
    """Smooth images, and the same with more noise from image to image."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 255
    source = torch.nn.functional.interpolate(coarse, side, mode="bilinear").to(torch.uint8)
    change = torch.randint(-noise, noise + 1, source.shape, generator=generator)
    change = change * torch.linspace(0, 1, n)[:, None, None, None]
    released = (source + change).clamp(0, 255).to(torch.uint8)
    keys = tuple(str(i) for i in range(n))
    subject = np.arange(n)
    return Release(ImageSet(source, subject, keys), ImageSet(released, subject, keys), subject)


def part(evidence: Release, index: Sequence[int]) -> Release:
    """Some of the images."""
    taken = np.array(index)
    return Release(
        evidence.source.take(taken), evidence.released.take(taken), evidence.subject[taken]
    )


def floats(evidence: Release) -> tuple[torch.Tensor, torch.Tensor]:
    """Released and source pixels in [0, 1]."""
    return evidence.released.pixels.double() / 255, evidence.source.pixels.double() / 255


def test_ssim_is_torchmetrics() -> None:
    """SSIM per image is that of torchmetrics in double precision."""
    evidence = release()
    expected = structural_similarity_index_measure(
        *floats(evidence), data_range=1.0, reduction="none"
    )
    assert isinstance(expected, torch.Tensor)
    np.testing.assert_allclose(SSIM.rows(evidence)[:, 0], expected.numpy(), atol=2e-5)


def test_psnr_is_torchmetrics() -> None:
    """PSNR per image is that of torchmetrics; identical images get the cap, not infinity."""
    evidence = release()
    expected = peak_signal_noise_ratio(
        *floats(evidence), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    rows = PSNR.rows(evidence)[:, 0]
    np.testing.assert_allclose(rows[1:], expected.numpy()[1:], atol=1e-4)
    assert rows[0] == 100


@pytest.mark.parametrize(("metric", "best"), [(SSIM, 1.0), (PSNR, 100.0)])
def test_identical_images(metric: Metric, best: float) -> None:
    """A release that is its source gets the best value."""
    evidence = release(noise=0)
    np.testing.assert_allclose(metric.rows(evidence), best, atol=1e-6)
    assert list(numbers(metric, evidence).values()) == pytest.approx([best])
    assert np.isnan(metric.chance(evidence)).all()


@pytest.mark.parametrize("metric", [SSIM, PSNR])
def test_images_are_compared_one_by_one(metric: Metric) -> None:
    """Rows in parts, in another order, are the rows of the whole (40 images: two batches)."""
    evidence = release()
    order = np.random.default_rng(0).permutation(40)
    parts = [metric.rows(part(evidence, order[s])) for s in (slice(0, 7), slice(7, None))]
    np.testing.assert_allclose(np.concatenate(parts), metric.rows(evidence)[order], atol=1e-4)


@pytest.mark.parametrize("metric", [SSIM, PSNR])
def test_weighted_means_of_images(metric: Metric) -> None:
    """Reducing is a weighted mean over images."""
    rows = metric.rows(release())
    weights = np.random.default_rng(0).integers(0, 3, (5, 40)).astype(float)
    expected: list[Floats] = [np.average(rows, axis=0, weights=w) for w in weights]
    np.testing.assert_allclose(metric.reduce(rows, weights), expected)


def test_images_must_match() -> None:
    """A release of another size, or too small for the window, is an error."""
    with pytest.raises(DataError, match="shape"):
        PSNR.rows(Release(release().source, release(side=(20, 20)).released, np.arange(40)))
    with pytest.raises(DataError, match="6 pixels"):
        SSIM.rows(release(side=(5, 30)))
    with pytest.raises(PluginError, match="Identification"):
        SSIM.rows(trial())


# --- packaging -----------------------------------------------------------------------------


def test_specs_cost_nothing() -> None:
    """Listing the metrics imports neither torch nor NumPy."""
    modules = "fidelity, identification, kanonymity, linkability, openset, verification"
    code = (
        f"import sys; from privbench_plugins.metrics import {modules}; "
        "print([m for m in ('torch', 'numpy', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
