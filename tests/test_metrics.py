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
from sklearn.metrics import (
    label_ranking_average_precision_score,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from privbench.errors import DataError, PluginError
from privbench.types import Evidence, Floats, Identification, ImageSet, Metric, Release
from privbench_plugins.metrics import fidelity, identification, kanonymity, verification
from privbench_plugins.metrics._kanonymity import weighted_median

SPECS = (*identification.SPECS, *verification.SPECS, *kanonymity.SPECS)
RATES, CURVE, ROC, SETS = (spec.build(spec.config()) for spec in SPECS)
SCORED: list[Metric] = [RATES, CURVE, ROC, SETS]


def trial(
    seed: int = 0, probes: int = 60, people: int = 25, shift: float = 1.0, decimals: int = 9
) -> Identification:
    """Noise, raised by `shift` for the true person."""
    rng = np.random.default_rng(seed)
    mated = rng.integers(people, size=probes)
    scores = rng.normal(size=(probes, people))
    scores[np.arange(probes), mated] += shift
    return Identification(np.round(scores, decimals), mated, mated)


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
    return Identification(evidence.scores + 1e-6 * noise, evidence.mated, evidence.subject)


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
    assert numbers(SETS, evidence) == pytest.approx({**expected, "median-set": np.median(sizes)})


# --- ties ----------------------------------------------------------------------------------


def test_ties_are_broken_at_random() -> None:
    """With tied scores each number is the mean over random tie-breaking."""
    evidence = trial(probes=60, shift=2, decimals=0)
    for metric in (RATES, CURVE, ROC):
        broken = [numbers(metric, untied(evidence, seed)) for seed in range(300)]
        mean = {name: np.mean([b[name] for b in broken]) for name in broken[0]}
        found = numbers(metric, evidence)
        for name in found:
            if name != "tar@far=0.001":  # refused
                assert found[name] == pytest.approx(mean[name], abs=0.012), name


def test_constant_scores_are_chance() -> None:
    """An attack that says nothing gets exactly chance, and hides everyone among all."""
    evidence = Identification(np.full((500, 25), 0.3), np.arange(500) % 25, np.arange(500) % 25)
    for metric in (RATES, CURVE, ROC):
        assert numbers(metric, evidence) == pytest.approx(chance(metric, evidence), abs=1e-12)
    assert set(numbers(SETS, evidence).values()) == {0.0, 25.0}


# --- known answers -------------------------------------------------------------------------


@pytest.mark.parametrize("metric", SCORED)
def test_perfect_scores_reach_the_worst_value(metric: Metric) -> None:
    """An attack that is always right gets the declared worst value in every output."""
    evidence = trial(probes=500, shift=1000)
    worst = {o.name: o.worst for o in metric.outputs(evidence)}
    assert numbers(metric, evidence) == pytest.approx(worst)


@pytest.mark.parametrize("metric", SCORED)
def test_noise_is_at_chance(metric: Metric) -> None:
    """Random scores give the declared chance."""
    evidence = trial(probes=4000, shift=0)
    found, expected = numbers(metric, evidence), chance(metric, evidence)
    for name in found:
        tolerance = 0.6 if name == "median-set" else 0.025
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
    assert list(numbers(SETS, three)) == ["set<2", "median-set"]
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
        metric.rows(Identification(evidence.scores[s], evidence.mated[s], evidence.subject[s]))
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
    for metric in (*SCORED, verification.build(verification.Config(fars=(0.2, 0.5)))):
        rows = metric.rows(evidence)
        repeated = [np.repeat(rows, counts, axis=0) for counts in weights]
        expected = [metric.reduce(r, np.ones((1, len(r))))[0] for r in repeated]
        np.testing.assert_allclose(metric.reduce(rows, w), expected, atol=1e-12)


@settings(deadline=None)
@given(
    values=st.lists(st.integers(1, 6), min_size=1, max_size=9),
    data=st.data(),
)
def test_weighted_median_is_numpys(values: list[int], data: st.DataObject) -> None:
    """The weighted median is NumPy's median of repeated values."""
    size = len(values)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any))
    found = weighted_median(np.array(values, float), np.array([weights], float))
    assert found.tolist() == [np.median(np.repeat(values, weights))]


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
    modules = "fidelity, identification, kanonymity, verification"
    code = (
        f"import sys; from privbench_plugins.metrics import {modules}; "
        "print([m for m in ('torch', 'numpy', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
