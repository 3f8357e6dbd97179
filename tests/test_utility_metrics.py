"""Utility metrics, each against an independent implementation, and their edge cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.linalg
import torch
import torchmetrics.functional.image.lpips as reference_lpips
from safetensors.torch import save_file
from torch import nn
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from privbench.api import explain, make_study, plan_study, run_study
from privbench.data import PROTOCOLS, Dataset, attributes_digest, load_part, part_digest, split
from privbench.errors import ConfigError, DataError, ModelError, PluginError
from privbench.plan import Study
from privbench.registry import Registry, load_registry
from privbench.stats import bootstrap, cluster_weights
from privbench.types import Evidence, FittableMetric, Floats, ImageSet, Metric, Release
from privbench_plugins.datasets.synthfaces import ATTRIBUTES, SynthfacesConfig, build
from privbench_plugins.geometry import load_geometry
from privbench_plugins.metrics import _classifier as classifier
from privbench_plugins.metrics import distances, perceptual, semantics, structure
from privbench_plugins.metrics._attributes import AttributePreservation
from privbench_plugins.metrics._distances import FrechetDistance, KernelDistance, frechet
from privbench_plugins.metrics._downstream import DownstreamUtility, identity_folds
from privbench_plugins.metrics._features import extractor, unit
from privbench_plugins.metrics._structure import depth_error, edge_agreement, landmark_error, near
from privbench_plugins.tiny_encoder import net

SPECS = {s.id: s for s in (*distances.SPECS, *semantics.SPECS, *structure.SPECS)}
PEOPLE, SHOTS = 20, 2


def metric(name: str, fitted: Metric | None = None) -> Metric:
    """A built-in by id, with its defaults; `fitted` where it must have seen the background."""
    spec = SPECS[name]
    if spec.tags.fit_on and fitted is not None:
        return fitted
    made: Metric = spec.build(spec.config())
    return made


def numbers(measure: Metric, evidence: Evidence) -> dict[str, float]:
    """The point estimates by name."""
    rows = measure.rows(evidence)
    values = measure.reduce(rows, np.ones((1, len(rows))))[0]
    return dict(zip((o.name for o in measure.outputs(evidence)), values.tolist(), strict=True))


def repainted(images: ImageSet, pixels: np.ndarray) -> ImageSet:
    """The same samples, without labels, with other pixels (N, H, W, 3)."""
    shown = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(shown, images.subject, images.keys)


def pictures(images: ImageSet) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    return np.ascontiguousarray(images.pixels.permute(0, 2, 3, 1).numpy())


def released(images: ImageSet, pixels: np.ndarray) -> Release:
    """Evidence."""
    return Release(images, repainted(images, pixels), images.subject)


def blurred(images: ImageSet, sigma: float = 6) -> np.ndarray:
    """A release that keeps little."""
    return np.stack([cv2.GaussianBlur(x, (0, 0), sigma) for x in pictures(images)])


@pytest.fixture(scope="module")
def data() -> Dataset:
    """The embedded data set."""
    return build(SynthfacesConfig())


@pytest.fixture(scope="module")
def probes(data: Dataset) -> ImageSet:
    """20 people, 2 images each."""
    return load_part(data, split(data, PROTOCOLS["quick"]).probes[: PEOPLE * SHOTS])


@pytest.fixture(scope="module")
def background(data: Dataset) -> ImageSet:
    """40 other people, 6 images each."""
    return load_part(data, split(data, PROTOCOLS["quick"]).background)


@pytest.fixture(scope="module")
def fitted(background: ImageSet) -> AttributePreservation:
    """`attributes`, fitted."""
    spec = SPECS["attributes"]
    made = spec.build(spec.config())
    assert isinstance(made, FittableMetric)
    again = made.fit(background)
    assert isinstance(again, AttributePreservation)
    assert again is not made
    return again


@pytest.fixture(scope="module")
def unlabelled(probes: ImageSet) -> ImageSet:
    """The probes of a data set without attributes."""
    return replace(probes, attributes={})


# --- distances -----------------------------------------------------------------------------


def cloud(n: int, d: int, shift: float = 0.3, seed: int = 0) -> tuple[Floats, Floats]:
    """Two correlated sets of features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.2, 2, d)
    return x, 0.7 * x + shift + rng.normal(size=(n, d)) * rng.uniform(0.2, 2, d)


@pytest.mark.parametrize(("n", "d"), [(200, 32), (60, 64), (40, 100)])
def test_frechet_is_that_of_scipy_and_torchmetrics(n: int, d: int) -> None:
    """The trace term is that of scipy's sqrtm, with more and with fewer samples than features."""
    x, y = cloud(n, d)
    found = frechet(x, y, np.ones((1, n)))[0]
    a, b = np.cov(x.T), np.cov(y.T)
    means = torch.from_numpy(x.mean(0)), torch.from_numpy(y.mean(0))
    assert found == pytest.approx(
        float(_compute_fid(means[0], torch.from_numpy(a), means[1], torch.from_numpy(b))), rel=1e-4
    )
    if d < n:  # sqrtm fails on singular matrices
        root = scipy.linalg.sqrtm(a @ b).real
        by_scipy = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
        assert found == pytest.approx(by_scipy, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 16), (30, 80)])
def test_frechet_weights_count_repetitions(n: int, d: int) -> None:
    """A weighting is the distance of the resample that it describes."""
    x, y = cloud(n, d)
    weights = cluster_weights(np.arange(n) // 2, 3, seed=1)
    repeated = [np.repeat(np.arange(n), w.astype(int)) for w in weights]
    expected = [frechet(x[i], y[i], np.ones((1, len(i))))[0] for i in repeated]
    assert frechet(x, y, weights) == pytest.approx(expected, rel=1e-4)


def rows_of(x: Floats, y: Floats, shots: int = 1) -> Floats:
    """Rows of a distance, features as they are."""
    return np.concatenate([(np.arange(len(x)) // shots)[:, None], x, y], axis=1)


def test_kernel_distance_is_the_u_statistic() -> None:
    """With one image a person it is the textbook mean over pairs, written as loops, and
    torchmetrics' value once the pairs of an image with its own release are put back.
    """
    x, y = (unit(v) for v in cloud(24, 8))
    n = len(x)
    measure = metric("kernel")

    def k(a: Floats, b: Floats) -> float:
        return float((a @ b + 1) ** 3)

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])
    found = measure.reduce(rows_of(x, y), np.ones((1, n)))[0, 0]
    assert found == pytest.approx(total / (n * (n - 1)))
    scaled = [torch.from_numpy(v * np.sqrt(v.shape[1])) for v in (x, y)]
    cross = (x @ y.T + 1) ** 3
    own = 2 * (cross.sum() - np.trace(cross)) / (n * (n - 1)) - 2 * cross.mean()
    assert found + own == pytest.approx(float(poly_mmd(scaled[0], scaled[1])))


def test_kernel_distance_ignores_pairs_of_one_person() -> None:
    """It is the mean over pairs of different people, whatever one person's images share."""
    x, y = (unit(v) for v in cloud(12, 6))
    rows = rows_of(x, y, shots=3)
    h = (x @ x.T + 1) ** 3 + (y @ y.T + 1) ** 3 - (x @ y.T + 1) ** 3 - (y @ x.T + 1) ** 3
    apart = rows[:, :1] != rows[:, 0]
    assert metric("kernel").reduce(rows, np.ones((1, 12)))[0, 0] == pytest.approx(h[apart].mean())


@pytest.mark.parametrize("name", ["kernel", "frechet"])
def test_distances_of_one_distribution_hold_zero(name: str) -> None:
    """Sources and releases drawn alike: the corrected distance is near 0 and its interval,
    under 2,000 resamples, holds 0; the textbook Fréchet distance is far above.
    """
    rng = np.random.default_rng(3)
    x, y = unit(rng.normal(size=(120, 24)) + 1), unit(rng.normal(size=(120, 24)) + 1)
    rows, subject = rows_of(x, y, shots=2), np.arange(120) // 2
    measure = metric(name)
    nothing = Release(None, None, subject)  # type: ignore[arg-type]  # outputs do not look
    outputs, none = measure.outputs(nothing), measure.chance(nothing)
    found = {e.name: e for e in bootstrap(measure, rows, subject, outputs, none)}
    fair = found["kernel" if name == "kernel" else "frechet-inf"]
    assert fair.low is not None
    assert fair.high is not None
    assert fair.low <= 0 <= fair.high
    if name == "frechet":
        plain = found["frechet"]
        assert plain.value is not None
        assert plain.low is None
        assert plain.value > 3 * fair.high


def test_distances_are_zero_for_the_source_and_grow_with_blur(probes: ImageSet) -> None:
    """From the pixels on; and what is declared worst is not exceeded."""
    for name in ("frechet", "kernel"):
        measure = metric(name)
        same, soft, hard = (
            numbers(measure, released(probes, p))
            for p in (pictures(probes), blurred(probes, 2), blurred(probes, 6))
        )
        for output in measure.outputs(released(probes, pictures(probes))):
            assert same[output.name] == pytest.approx(0, abs=1e-5)
            assert 0 < soft[output.name] < hard[output.name] < output.worst


def test_features_are_the_layers_that_they_are_called(probes: ImageSet) -> None:
    """The embedding is tiny-encoder's own; a stage is what its blocks return, averaged."""
    model = net.load(Path(net.__file__).parents[1] / "assets" / "tiny-encoder")
    seen: dict[str, torch.Tensor] = {}
    handles = [
        model.body[i].register_forward_hook(
            lambda _m, _x, out, name=name: seen.__setitem__(name, out.mean((2, 3)))
        )
        for i, name in ((1, "stage-1"), (3, "stage-2"), (4, "stage-3"))
    ]
    with torch.inference_mode():
        embedding = model(probes.floats())
    for handle in handles:
        handle.remove()
    layers = ("embedding", "stage-1", "stage-2", "stage-3", "thumbnail")
    found = extractor("tiny-encoder", layers, 80)(probes.pixels)
    expected = (embedding, seen["stage-1"], seen["stage-2"], seen["stage-3"])
    for got, wanted in zip(found, expected, strict=False):
        assert got == pytest.approx(wanted.double().numpy(), abs=1e-4)
    assert found[4].shape == (len(probes), 192)


def test_features_of_a_transformers_model(tmp_path: Path, probes: ImageSet) -> None:
    """A vision model's folder serves as extractor; its pooled output is the feature."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    torch.manual_seed(0)
    model = ResNetModel(config).eval()
    model.save_pretrained(tmp_path)
    few = probes.take(range(6))
    found = extractor(str(tmp_path), ("stage-1",), 64)(few.pixels)[0]
    with torch.inference_mode():
        wanted = model(pixel_values=(net.resize(few.floats(), 64) - 0.5) * 4).pooler_output
    assert found == pytest.approx(wanted.flatten(1).double().numpy(), abs=1e-4)
    made = KernelDistance(str(tmp_path), "stage-1", 64, "")
    assert numbers(made, released(few, pictures(few)))["kernel"] == pytest.approx(0)
    config_of = distances.DistanceConfig(features=str(tmp_path))
    assert "model.safetensors" in distances.weights(config_of)


def test_the_embedding_is_refused_at_another_size() -> None:
    """Its last layer reads places; a stage average does not."""
    with pytest.raises(ConfigError, match="side=80"):
        extractor("tiny-encoder", ("embedding",), 64)


def test_frechet_needs_two_rows_and_four_people() -> None:
    """What cannot be said is blank."""
    x, y = (unit(v) for v in cloud(3, 4))
    found = FrechetDistance("tiny-encoder", "stage-1", 80, "").reduce(
        rows_of(x, y), np.array([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]])
    )
    assert np.isfinite(found[0, 0])
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1:]).all()


# --- attributes and downstream utility -----------------------------------------------------


def test_synthfaces_has_labels(data: Dataset, probes: ImageSet) -> None:
    """Labels reach the part; a truth value is spelled out; digests of releases are as before."""
    assert set(probes.attributes) == set(ATTRIBUTES)
    assert set(probes.attributes["glasses"]) == {"glasses", "no glasses"}
    assert probes.take([3, 1]).attributes["hair"].tolist() == [
        probes.attributes["hair"][3],
        probes.attributes["hair"][1],
    ]
    rows = np.arange(4)
    assert part_digest(data, rows) == part_digest(replace(data, attributes={}), rows)  # type: ignore[type-var]


def test_labels_must_fit_the_images(probes: ImageSet) -> None:
    """One label an image."""
    with pytest.raises(DataError, match="hair"):
        replace(probes, attributes={"hair": np.array(["bob"])})


def test_attribute_accuracy_is_that_of_the_classifiers(
    probes: ImageSet, fitted: AttributePreservation
) -> None:
    """Means of what the fitted classifiers answer, counted by hand; the source beside it."""
    evidence = released(probes, blurred(probes))
    found = numbers(fitted, evidence)
    assert fitted.classifiers is not None
    extract = classifier.embedded_features()
    clean, soft = extract(probes.pixels), extract(evidence.released.pixels)
    accuracies = []
    for name in ATTRIBUTES:
        after, before = (fitted.classifiers[name].predict(x) for x in (soft, clean))
        truth = probes.attributes[name]
        accuracies.append(np.mean(after == truth))
        assert found[name] == pytest.approx(accuracies[-1])
        assert found[f"{name}@clean"] == pytest.approx(np.mean(before == truth))
        assert found[f"{name}@agreement"] == pytest.approx(np.mean(before == after))
    assert found["mean"] == pytest.approx(np.mean(accuracies))
    assert found["sex@clean"] > 0.6  # it learnt something


def test_attribute_chance_is_the_commonest_label(probes: ImageSet) -> None:
    """An answer without looking."""
    measure = SPECS["attributes"].build(SPECS["attributes"].config())
    evidence = released(probes, pictures(probes))
    names = [o.name for o in measure.outputs(evidence)]
    chance = dict(zip(names, measure.chance(evidence), strict=True))
    counts = np.unique(probes.attributes["sex"], return_counts=True)[1]
    assert chance["sex"] == chance["sex@clean"] == counts.max() / len(probes)
    assert np.isnan(chance["sex@agreement"])
    assert chance["mean"] == pytest.approx(np.mean([chance[a] for a in ATTRIBUTES]))


def test_classifier_is_scikit_learns_on_scaled_layers() -> None:
    """Logistic regression on layers standardised and divided by the root of their width."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(80, 5)) * 7 + 2, rng.normal(size=(80, 9))]
    labels = np.where(layers[0][:, 0] + layers[1][:, 1] > 2, "yes", "no")
    fitted = classifier.train([x[:60] for x in layers], labels[:60])
    scalers = [StandardScaler().fit(x[:60]) for x in layers]
    both = np.concatenate(
        [s.transform(x) / np.sqrt(x.shape[1]) for s, x in zip(scalers, layers, strict=True)], 1
    )
    wanted = LogisticRegression(C=10, max_iter=300).fit(both[:60], labels[:60]).predict(both[60:])
    assert fitted is not None
    assert fitted.predict([x[60:] for x in layers]).tolist() == wanted.tolist()


def test_downstream_tests_on_clean_images_of_other_people(probes: ImageSet) -> None:
    """Row by row: trained without the person, on releases or on sources; tested on the source."""
    evidence = released(probes, blurred(probes))
    rows = DownstreamUtility(4).rows(evidence)
    fold = identity_folds(probes.subject, 4)
    extract = classifier.embedded_features()
    layers = {"released": extract(evidence.released.pixels), "clean": extract(probes.pixels)}
    names = sorted(ATTRIBUTES)
    column = 2 * names.index("sex")
    truth = probes.attributes["sex"]
    for j, kind in enumerate(("released", "clean")):
        expected = np.empty(len(probes))
        for row in range(len(probes)):
            rest = fold != fold[row]
            assert not set(probes.subject[rest]) & {probes.subject[row]}
            fitted = classifier.train([x[rest] for x in layers[kind]], truth[rest])
            assert fitted is not None
            answer = fitted.predict([x[row : row + 1] for x in layers["clean"]])[0]
            expected[row] = answer == truth[row]
        assert rows[:, column + j].tolist() == expected.tolist()


def test_downstream_of_the_source_loses_nothing(probes: ImageSet) -> None:
    """Training on the sources twice: difference 0, ratio 1; a flat grey release teaches less."""
    measure = metric("downstream")
    same = numbers(measure, released(probes, pictures(probes)))
    assert (same["difference"], same["ratio"]) == (0, 1)
    flat = numbers(measure, released(probes, np.full_like(pictures(probes), 128)))
    assert flat["difference"] == pytest.approx(flat["mean"] - flat["mean@clean"])
    assert flat["ratio"] == pytest.approx(flat["mean"] / flat["mean@clean"])
    assert flat["difference"] < 0


@pytest.mark.parametrize("folds", [2, 4, 7])
def test_folds_keep_people_together(folds: int) -> None:
    """A person is in one fold; folds differ by one person at most."""
    subject = np.repeat(np.arange(30) * 7, 3)
    fold = identity_folds(subject, folds)
    people = [set(subject[fold == f]) for f in range(folds)]
    assert sum(len(p) for p in people) == 30
    assert max(map(len, people)) - min(map(len, people)) <= 1


@pytest.mark.parametrize("name", ["attributes", "downstream"])
def test_a_data_set_without_labels_leaves_a_blank(
    name: str, unlabelled: ImageSet, background: ImageSet
) -> None:
    """No outputs, rows of width 0, an empty list of estimates; nothing is made up."""
    fitted = AttributePreservation().fit(replace(background, attributes={}))
    measure = metric(name, fitted)
    evidence = released(unlabelled, pictures(unlabelled))
    rows = measure.rows(evidence)
    assert measure.outputs(evidence) == ()
    assert rows.shape == (len(unlabelled), 0)
    chance = measure.chance(evidence)
    assert bootstrap(measure, rows, unlabelled.subject, (), chance, resamples=10) == []


def test_unknown_labels_are_left_out(probes: ImageSet, fitted: AttributePreservation) -> None:
    """ "" is no class and no error; an attribute that the background lacks is blank, and so is
    the mean: never an average of what happens to be there.
    """
    sex = probes.attributes["sex"].copy()
    sex[:6] = ""
    part = replace(probes, attributes={"sex": sex, "hair": probes.attributes["hair"]})
    assert fitted.classifiers is not None
    known = AttributePreservation({"sex": fitted.classifiers["sex"]})
    found = numbers(known, released(part, pictures(part)))
    answers = fitted.classifiers["sex"].predict(classifier.embedded_features()(probes.pixels))
    assert found["sex"] == pytest.approx(np.mean(answers[6:] == probes.attributes["sex"][6:]))
    assert np.isnan(found["hair"])
    assert np.isnan(found["mean"])


def test_attributes_must_be_fitted(probes: ImageSet) -> None:
    """Rows need the background; stored rows are reduced without it."""
    spec = SPECS["attributes"]
    measure = spec.build(spec.config())
    with pytest.raises(PluginError, match="background"):
        measure.rows(released(probes, pictures(probes)))
    assert measure.reduce(np.ones((3, 6)), np.ones((1, 3))).tolist() == [[1.0] * 9]


# --- structure -----------------------------------------------------------------------------


def test_landmark_error_by_hand() -> None:
    """Mean distance over the eye distance of the source, never above 1."""
    wanted = np.zeros((2, 5, 2))
    wanted[:, 1, 0] = 20  # eyes 20 pixels apart
    found = wanted.copy()
    found[0, 2] += (3, 4)  # 5 pixels on one of five points
    found[1] += 500
    assert landmark_error(wanted, found).tolist() == [pytest.approx(5 / 5 / 20), 1.0]


def test_landmarks_and_pose_come_from_the_estimator(probes: ImageSet) -> None:
    """As a loop over images would have it; another person's face is farther off."""
    measure = metric("landmarks")
    evidence = released(probes, blurred(probes, 3))
    rows = measure.rows(evidence)
    geometry = load_geometry()
    source, soft = pictures(probes), pictures(evidence.released)
    points = geometry.landmarks(source), geometry.landmarks(soft)
    turns = np.abs(geometry.pose(source) - geometry.pose(soft))
    for i, (a, b) in enumerate(zip(*points, strict=True)):
        error = np.mean([np.hypot(*(p - q)) for p, q in zip(a, b, strict=True)])
        assert rows[i, 0] == pytest.approx(error / np.hypot(*(a[0] - a[1])), rel=1e-3)
        assert rows[i, 1:3] == pytest.approx(turns[i], abs=1e-3)
    found = numbers(measure, evidence)
    assert found["landmark-error"] < found["landmark-error@other"]
    assert found["yaw-error"] < found["yaw-error@other"]


def test_edge_agreement_is_that_of_a_loop(probes: ImageSet) -> None:
    """Precision, recall and F by distance transform, image by image: edges within 2 pixels."""
    from privbench_plugins.conditions import canny

    wanted, found = canny(pictures(probes)) > 0, canny(blurred(probes, 1.5)) > 0
    got = edge_agreement(found, wanted, near(found, 2), near(wanted, 2))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    assert disc.sum() == 17  # the disc of radius 2, with its flat sides
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        near_b = cv2.dilate(b.astype(np.uint8), disc) > 0
        near_a = cv2.dilate(a.astype(np.uint8), disc) > 0
        precision, recall = near_b[a].mean(), near_a[b].mean()
        f = 2 * precision * recall / (precision + recall)
        assert got[i] == pytest.approx([f, precision, recall])


def test_more_maps_than_opencv_takes_at_once() -> None:
    """Blocks of maps are put together in order."""
    edges = np.random.default_rng(0).random((300, 9, 11)) > 0.9
    assert near(edges, 1)[255].tolist() == near(edges[255:256], 1)[0].tolist()


def test_no_edges_are_no_success() -> None:
    """An empty release has no precision and F 0; two empty maps say nothing."""
    some, none = np.zeros((1, 8, 8), bool), np.zeros((1, 8, 8), bool)
    some[0, 4] = True
    f, precision, recall = edge_agreement(none, some, near(none, 1), near(some, 1))[0]
    assert (f, recall) == (0, 0)
    assert np.isnan(precision)
    assert np.isnan(edge_agreement(none, none, near(none, 1), near(none, 1))).all()


def test_depth_error_counts_the_face_of_the_source_alone() -> None:
    """Background of the source does not dilute it; no face, no number."""
    wanted = np.zeros((2, 4, 4), np.uint8)
    wanted[0, :2] = 200
    found = np.full((2, 4, 4), 100, np.uint8)
    first, second = depth_error(wanted, found)
    assert first == pytest.approx(100 / 255)
    assert np.isnan(second)


def test_conditions_against_the_own_source_and_another(probes: ImageSet) -> None:
    """Own source: perfect. `@other` compares with a source of another person."""
    measure = metric("conditions")
    found = numbers(measure, released(probes, pictures(probes)))
    assert found["edge-f"] == found["edge-precision"] == found["edge-recall"] == 1
    assert found["depth-error"] == 0
    assert found["edge-f@other"] < 0.7
    assert found["depth-error@other"] > 0.02
    one = probes.take([0])
    alone = numbers(measure, released(one, pictures(one)))
    assert np.isnan(alone["edge-f@other"])


def test_detection_counts_what_dlib_finds(probes: ImageSet) -> None:
    """Release and source apart; a flat image has no face."""
    dlib = pytest.importorskip("dlib")
    half = pictures(probes)
    half[::2] = 128
    found = numbers(metric("detection"), released(probes, half))
    detector = dlib.get_frontal_face_detector()
    expected = [len(detector(x, 1)) > 0 for x in half]
    assert found["detected"] == np.mean(expected)
    assert found["detected"] <= 0.5 < found["detected@source"]


@pytest.mark.parametrize("name", list(SPECS))
def test_declarations_fit_the_numbers(
    name: str, probes: ImageSet, fitted: AttributePreservation
) -> None:
    """As many outputs as numbers and chances; distinct names; D rows a sample; the tag says
    release; reducing many weightings is reducing each; values lie on the useful side of worst.
    """
    measure = metric(name, fitted)
    evidence = released(probes, blurred(probes, 3))
    rows, outputs = measure.rows(evidence), measure.outputs(evidence)
    weights = np.concatenate([np.ones((1, len(rows))), cluster_weights(probes.subject, 4, seed=0)])
    values = measure.reduce(rows, weights)
    assert SPECS[name].tags.evidence == "release"
    assert values.shape == (5, len(outputs))
    assert measure.chance(evidence).shape == (len(outputs),)
    assert len({o.name for o in outputs}) == len(outputs)
    assert len(rows) == len(probes)
    single = np.concatenate([measure.reduce(rows, w[None]) for w in weights])
    assert values == pytest.approx(single, nan_ok=True)
    for output, value in zip(outputs, values[0], strict=True):
        assert value >= output.worst if output.protects == "higher" else value <= output.worst


@pytest.mark.parametrize("name", list(SPECS))
def test_another_size_is_refused(
    name: str, probes: ImageSet, fitted: AttributePreservation
) -> None:
    """A release that is not as large as its source cannot be compared."""
    small = ImageSet(probes.pixels[:, :, ::2, ::2].contiguous(), probes.subject, probes.keys)
    with pytest.raises(DataError, match="shape"):
        metric(name, fitted).rows(Release(probes, small, probes.subject))


# --- LPIPS ---------------------------------------------------------------------------------


class Fire(nn.Module):
    """torchvision's Fire module, written anew."""

    def __init__(self, i: int, s: int, e: int) -> None:
        super().__init__()
        self.squeeze, self.expand1x1 = nn.Conv2d(i, s, 1), nn.Conv2d(s, e, 1)
        self.expand3x3 = nn.Conv2d(s, e, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Squeeze and expand."""
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], 1)


def features_of(network: str) -> nn.Sequential:
    """`features` of torchvision's networks, from their papers, with random weights."""
    torch.manual_seed(0)
    if network == "alex":
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)]
        for i, o in ((192, 384), (384, 256), (256, 256)):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.MaxPool2d(3, 2))
    if network == "squeeze":
        layers = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
        layers += [Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True)]
        layers += [Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True)]
        layers += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
        return nn.Sequential(*layers)
    layers, inputs = [], 3
    for width in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512,
                  512, "M"):  # fmt: skip
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers)


@pytest.fixture
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A random backbone of a kind, saved under torchvision's names."""
    layers = features_of(request.param)
    path = tmp_path / "backbone.safetensors"
    save_file({f"features.{k}": v.contiguous() for k, v in layers.state_dict().items()}, path)
    return request.param, path


@pytest.mark.parametrize("backbone", ["alex", "vgg", "squeeze"], indirect=True)
def test_lpips_is_torchmetrics(
    backbone: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, probes: ImageSet
) -> None:
    """Formula, taps and the shipped linear heads are torchmetrics', on one random backbone."""
    network, path = backbone
    monkeypatch.setattr(
        reference_lpips, "_get_tv_model_features", lambda *_args, **_kw: features_of(network)
    )
    reference = reference_lpips._LPIPS(pretrained=True, net=network, pnet_rand=True)
    few = probes.take(range(4))
    evidence = released(few, blurred(few, 2))
    config = perceptual.LpipsConfig(net=network, backbone=str(path))  # type: ignore[arg-type]
    made = perceptual.SPECS[0].build(config)
    with torch.inference_mode():
        wanted = reference(few.floats(), evidence.released.floats(), normalize=True).flatten()
    assert made.rows(evidence)[:, 0] == pytest.approx(wanted.double().numpy(), rel=1e-4)
    assert numbers(made, released(few, pictures(few)))["lpips"] == 0
    assert set(perceptual.weights(config)) == {
        "backbone/backbone.safetensors",
        "heads/heads.safetensors",
    }


def test_lpips_says_what_it_needs(tmp_path: Path) -> None:
    """No backbone; a backbone of another network; heads that are not heads."""
    spec = perceptual.SPECS[0]
    assert spec.tags.default is False
    with pytest.raises(ConfigError, match=r"lpips\.backbone=FILE"):
        perceptual.weights(perceptual.LpipsConfig())
    path = tmp_path / "b.safetensors"
    layers: Mapping[str, torch.Tensor] = features_of("alex").state_dict()
    save_file({f"features.{k}": v for k, v in layers.items()}, path)
    with pytest.raises(ModelError, match=r"features.*squeeze"):
        spec.build(perceptual.LpipsConfig(net="squeeze", backbone=str(path)))
    with pytest.raises(ModelError, match=r"alex\.0"):
        spec.build(perceptual.LpipsConfig(backbone=str(path), heads=str(path)))


# --- in a run ------------------------------------------------------------------------------


def smoke(folder: Path, *metrics: str) -> Study:
    """A study of the smallest kind."""
    return make_study(
        ["pixelate"],
        ["random-guess"],
        metrics,
        protocol="smoke",
        device="cpu",
        settings=[f"path={folder}"],
    )


def test_a_run_fits_on_background_and_leaves_blanks(faces: Path, tmp_path: Path) -> None:
    """Without labels the semantic metrics are empty lists in the record, which also names the
    extractor; with labels they are numbers, from the same released images.
    """
    names = ("attributes", "downstream", "kernel")
    store = str(tmp_path / "store")
    (record,), _ = run_study(smoke(faces, *names), store=store, records=None)
    assert record.utility["attributes"] == record.utility["downstream"] == []
    assert record.metrics["kernel"].config["layer"] == "stage-1"
    assert "model.safetensors" in record.metrics["kernel"].weights
    table = pq.read_table(faces / "faces.parquet")
    hair = pa.array(["bob" if s % 2 else "bun" for s in table["subject"].to_pylist()])
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    pq.write_table(table.append_column("hair", hair), labelled / "faces.parquet")
    study = smoke(labelled, *names)
    states = {s.step.label: s.hit for s in explain(study, store=store)}
    assert states["pixelate: probes"]
    assert not states["attributes of pixelate"]
    (record,), _ = run_study(study, store=store, records=None)
    found = {e.name: e for e in record.utility["attributes"]}
    assert set(found) == {f"{n}{k}" for n in ("mean", "hair") for k in ("", "@clean", "@agreement")}
    assert found["hair"].value is not None
    assert {e.name for e in record.utility["downstream"]} >= {"hair", "ratio", "difference"}


def test_other_labels_make_other_rows_only(data: Dataset) -> None:
    """The labels of probes and background are in the key of what may read them."""
    study = make_study(["pixelate"], ["random-guess"], ["attributes", "ssim"], device="cpu")
    before = plan_study(study)
    keys = before.cells[0].utility["attributes"].inputs
    assert keys["fit"] == part_digest(before.data, before.split.background)
    assert set(keys["labels"]) == {"probes", "background"}
    assert set(before.cells[0].utility["ssim"].inputs["labels"]) == {"probes"}
    assert attributes_digest(data, np.arange(4)) != attributes_digest(data, np.arange(5))
    assert attributes_digest(replace(data, attributes={}), np.arange(4)) == ""  # type: ignore[type-var]


def test_the_default_set_is_what_can_run_without_a_file() -> None:
    """LPIPS waits to be named; a metric whose extra is missing is left out, not an error."""
    registry = load_registry()
    study = make_study(["pixelate"], ["random-guess"], device="cpu", registry=registry)
    usual = set(plan_study(study, registry).metrics)
    assert set(SPECS) - {"detection"} <= usual
    assert "lpips" not in usual
    plugins = dict(registry.plugins)
    plugins["metric", "kernel"] = replace(plugins["metric", "kernel"], unavailable="needs x")
    assert "kernel" not in plan_study(study, Registry(plugins, {})).metrics
