"""Classical baselines keep their guarantees; diagnostics release what they say."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privbench.errors import PluginError
from privbench.registry import load_registry, make_config
from privbench.release import joined
from privbench.types import ImageBatch, ImageSet
from privbench_plugins.anonymizers import _regional as regional
from privbench_plugins.anonymizers._dppix import CHANNELS, DpPix, cell_means
from privbench_plugins.anonymizers._ksame import KSame, eigen_coordinates, greedy_groups
from privbench_plugins.regions import eye_band, face_mask
from spies import SpyAttack
from test_execute import go, study

REGISTRY = load_registry()
SIDE = 24


def people(count: int, images: int = 1, side: int = SIDE) -> ImageSet:
    """Random images of some people."""
    n = count * images
    pixels = np.random.default_rng(count).integers(0, 256, (n, 3, side, side), np.uint8)
    keys = tuple(f"{i}" for i in range(n))
    return ImageSet(torch.from_numpy(pixels), np.repeat(np.arange(count), images) * 7 + 3, keys)


def release(kind: KSame, images: ImageSet) -> np.ndarray:
    """(N, D) released bytes."""
    out = kind.fit(images).anonymize(images.batch(), [0] * len(images))
    return (out * 255).round().byte().flatten(1).numpy()


def made(name: str, **settings: Any) -> Any:
    """A built-in, built."""
    spec = REGISTRY.get("anonymizer", name).spec
    return spec.build(make_config(spec, settings))


def run(plugin: Any, images: ImageSet) -> torch.Tensor:
    """(N, 3, H, W) floats."""
    out: torch.Tensor = plugin.anonymize(images.batch(), list(range(len(images))))
    return out


# --- k-Same --------------------------------------------------------------------------------------

KINDS = [KSame(3), KSame(4), KSame(3, True), KSame(4, True, 5)]


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("count", [4, 7, 12, 17])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_released_image_is_shared_by_k_people(kind: KSame, count: int, images: int) -> None:
    """Every output is that of k to 2k - 1 different people, one image of each."""
    source = people(count, images)
    members = defaultdict(list)
    for subject, image in zip(source.subject, release(kind, source), strict=True):
        members[image.tobytes()].append(subject)
    for shared in members.values():
        assert kind.k <= len(shared) < 2 * kind.k
        assert len(set(shared)) == len(shared)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_several_images_of_a_person_narrow_nothing_down(kind: KSame) -> None:
    """Intersecting the groups of all images of a person still leaves k people."""
    source = people(13, 3)
    released = release(kind, source)
    same = (released[:, None] == released[None]).all(-1)
    for person in np.unique(source.subject):
        rows = np.flatnonzero(source.subject == person)
        sets = [set(source.subject[same[row]]) for row in rows]
        assert len(set.intersection(*sets)) >= kind.k


@pytest.mark.parametrize("count", [4, 7, 12, 17])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rank_one_is_at_most_one_in_k(kind: KSame, count: int) -> None:
    """The ideal attacker knows every source and every cluster, and finds one in k at best.

    A scorer sees the released pixels. Equal pixels get equal scores against every person, so that
    in a cluster at most one image is named rightly, whatever the scorer and its ties do.
    """
    source = people(count)
    released = release(kind, source)
    same = (released[:, None] == released[None]).all(-1)
    # Ideal: probability 1 / cluster size for each person of the cluster, ties broken uniformly.
    ideal = np.mean([1 / row.sum() for row in same])
    assert ideal <= 1 / kind.k
    rng = np.random.default_rng(0)
    clusters, cluster = np.unique(released, axis=0, return_inverse=True)
    nearest = ((released[:, None].astype(float) - source.pixels.flatten(1).numpy()) ** 2).sum(-1)
    scorers = [-nearest, *(rng.normal(size=(len(clusters), count))[cluster] for _ in range(200))]
    for scores in scorers:
        assert (scores.argmax(1) == np.arange(count)).mean() <= 1 / kind.k


@pytest.mark.parametrize("eigen", [False, True])
def test_the_released_face_is_the_average(eigen: bool) -> None:
    """By pixels, and by all principal components: a projection onto all of them is no loss."""
    source = people(9, 2)
    released = release(KSame(3, eigen), source)
    for image in np.unique(released, axis=0):
        shared = (released == image).all(1)
        mean = source.pixels.flatten(1).double().numpy()[shared].mean(0)
        assert np.abs(image - mean).max() <= 0.5 + 1e-6


def test_principal_components_are_those_of_sklearn() -> None:
    """Coordinates by the Gram matrix equal an independent implementation's, up to sign."""
    from sklearn.decomposition import PCA

    data = np.random.default_rng(1).normal(size=(12, 40))
    mean, basis, coordinates = eigen_coordinates(data, 5)
    expected = PCA(5, svd_solver="full").fit_transform(data)
    assert np.allclose(abs(coordinates), abs(expected))
    assert np.allclose(basis @ basis.T, np.eye(5))
    _, full, all_of_them = eigen_coordinates(data, 0)
    assert np.allclose(mean + all_of_them @ full, data)


def test_groups_are_of_near_people() -> None:
    """Greedy groups equal a plain loop's, and put neighbours together."""
    points = np.random.default_rng(2).normal(size=(23, 3))
    left, expected, number = list(range(23)), np.zeros(23, int), 0
    while len(left) >= 2 * 4:
        near = sorted(left, key=lambda j: float(((points[j] - points[left[0]]) ** 2).sum()))[:4]
        expected[near] = number
        left = [i for i in left if i not in near]
        number += 1
    expected[left] = number
    assert greedy_groups(points, 4).tolist() == expected.tolist()


def test_k_same_refuses_what_it_cannot_guarantee() -> None:
    """Too few people, unknown people, one image of two people, or an image it has not seen."""
    images = people(6)
    with pytest.raises(PluginError, match="at least 7 people"):
        KSame(7).fit(images)
    with pytest.raises(PluginError, match="got 1 with 2"):
        KSame(2).fit(replace(images, subject=np.array([0, 0, 1, 2, 3, 4])))
    with pytest.raises(PluginError, match="unknown"):
        KSame(2).fit(replace(images, subject=np.full(6, -1)))
    twins = replace(images, pixels=images.pixels[[0, 0, 1, 2, 3, 4]])
    with pytest.raises(PluginError, match="two people"):
        KSame(2).fit(twins)
    with pytest.raises(PluginError, match="fitted on; 1 of 1"):
        KSame(2).fit(images.take(range(5))).anonymize(images.take([5]).batch(), [0])
    with pytest.raises(PluginError, match="must be fitted"):
        KSame(2).anonymize(images.batch(), [0] * 6)


def test_k_same_in_a_run_and_under_its_oracle(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is released together is fitted together, the attacker's photos among themselves; the
    oracle treats what is newly asked for as one release."""
    answers = {}
    spied = SpyAttack.train

    def train(self: Any, view: Any) -> Any:
        own = view.validation
        answers["own"] = joined([view.oracle(view.train), view.oracle(own)])
        answers["live"] = view.oracle(replace(own, pixels=255 - own.pixels))
        few = own.take(np.flatnonzero(own.subject == own.subject[0]))
        with pytest.raises(PluginError, match="at least 3 people"):
            view.oracle(few, draw=1)
        return spied(replace_how(self), view)

    monkeypatch.setattr(SpyAttack, "train", train)
    what = study(faces, "k-same-pixel.k=3", anonymizers=["k-same-pixel"])
    (record,), failures = go(what, tmp_path)
    assert not failures
    assert record.anonymizer.id == "k-same-pixel"
    assert record.oracle_queries == 8 * 3 + 4 * 3 + 4 * 3 + 3
    for answer in answers.values():
        members = defaultdict(set)
        for subject, image in zip(answer.subject, answer.pixels, strict=True):
            members[image.numpy().tobytes()].add(int(subject))
        assert min(map(len, members.values())) >= 3


def replace_how(attack: Any) -> Any:
    """The same spy, asking nothing of its own."""
    return replace(attack, how="quiet")


# --- DP-Pix --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "cell"), [(32, 32, 8), (20, 27, 8), (9, 9, 16)])
def test_the_sensitivity_bound_holds(height: int, width: int, cell: int) -> None:
    """Change any m pixels in any way: the privacy loss of the noise stays within epsilon.

    For Laplace noise the loss of a vector is at most the sum of |change| / scale; the worst case
    (black to white, all in the smallest cells) reaches epsilon and does not pass it.
    """
    m, epsilon = 4, 0.7
    scale = DpPix(epsilon, cell, m).scale(height, width)
    rng = np.random.default_rng(0)
    losses = []
    for trial in range(60):
        before = rng.integers(0, 256, (3, height, width)).astype(float)
        after = before.copy()
        spots = rng.choice(height * width, m, replace=False)
        if trial == 0:  # the corner cell is the smallest one
            before[:], after[:] = 0, 0
            spots = (height - 1) * width + np.arange(width - m, width)
        y, x = np.unravel_index(spots, (height, width))
        after[:, y, x] = 255 if trial == 0 else rng.integers(0, 256, (3, m))
        pair = torch.from_numpy(np.stack([before, after]))
        moved = np.abs(np.diff(cell_means(pair, cell).numpy(), axis=0)[0])
        losses.append((moved / scale).sum())
        if height % cell == width % cell == 0:
            assert moved[0].sum() <= 255 * m / cell**2 + 1e-9
    assert max(losses) <= epsilon + 1e-9
    if width % cell == 0 or width <= cell:  # all m pixels fit one cell
        assert losses[0] == pytest.approx(epsilon)


def test_the_noise_has_the_stated_scale() -> None:
    """Laplace of scale 255 m / (b^2 eps / 3), each channel alone: by Kolmogorov and Smirnov."""
    from scipy.stats import kstest

    plugin = DpPix(400.0, 4, 2)
    scale = 255 * 2 * CHANNELS / (16 * 400)
    assert np.allclose(plugin.scale(8, 8), scale)
    pixels = torch.full((1500, 3, 8, 8), 0.5, dtype=torch.float64)
    batch = ImageBatch(pixels, np.full(1500, -1), tuple(map(str, range(1500))))
    out = plugin.anonymize(batch, range(1500))[:, :, ::4, ::4].numpy() * 255 - 127.5
    assert kstest(out.ravel(), "laplace", (0, scale)).pvalue > 0.01
    assert abs(np.corrcoef(out.reshape(1500, -1).T) - np.eye(12)).max() < 0.12


def test_epsilon_is_of_the_whole_colour_image() -> None:
    """The likelihood ratio of released means of two neighbours never passes exp(epsilon)."""
    m = 3
    plugin = DpPix(0.9, 8, m)
    rng = np.random.default_rng(3)
    one = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    other = one.clone()
    other[:, :, 0, :m] = 255
    scale = plugin.scale(16, 16)
    a, b = (cell_means(x, 8)[0].numpy() for x in (one, other))
    output = a + rng.laplace(0, scale, (5000, 3, 2, 2))
    loss = (np.abs(output - b) - np.abs(output - a)) / scale
    assert loss.sum((1, 2, 3)).max() <= 0.9 + 1e-9
    assert loss.sum((1, 2, 3)).max() == pytest.approx(0.9)  # and the bound is tight


def test_dp_pix_is_clipped_and_made_of_cells() -> None:
    """Under much noise every pixel is in range, and a cell has one colour."""
    out = run(DpPix(0.01, 8, 16), people(3))
    assert out.min() == 0
    assert out.max() == 1
    cells = out.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4)
    assert (cells == cells[..., :1]).all()


# --- regions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("eye-mask", {}), ("mask-face", {}), ("mask-face", {"fill": "black"})],
)
def test_nothing_under_the_mask_is_released(name: str, settings: dict[str, str]) -> None:
    """At a fixed place, whatever is under the mask changes nothing; the rest stays as it was."""
    images = people(3, side=64)
    plugin = made(name, locator="centre", **settings)
    points = regional.centred(images.pixels.permute(0, 2, 3, 1).numpy())
    region = eye_band(points, 64, 64) if name == "eye-mask" else face_mask(points, 64, 64) > 0
    inside = torch.from_numpy(region)[:, None].expand(-1, 3, -1, -1)
    other = replace(images, pixels=torch.where(inside, 255 - images.pixels, images.pixels))
    out = run(plugin, images)
    assert torch.equal(out, run(plugin, other))
    assert torch.equal(out[~inside], images.floats()[~inside])
    assert 0.03 < region.mean() < 0.6


def test_the_mean_fill_is_that_of_the_kept_pixels() -> None:
    """A white image with anything under the mask is released white."""
    images = people(1, side=64)
    points = regional.centred(images.pixels.permute(0, 2, 3, 1).numpy())
    inside = torch.from_numpy(face_mask(points, 64, 64) > 0)[:, None]
    framed = replace(images, pixels=images.pixels.where(inside, torch.tensor(255).byte()))
    assert torch.allclose(run(made("mask-face", locator="centre"), framed), torch.tensor(1.0))


@pytest.fixture(scope="module")
def portraits() -> ImageSet:
    """Eight shipped faces, and where the renderer put their eyes and mouths."""
    data: Any = REGISTRY.get("dataset", "synthfaces").spec
    faces = data.build(make_config(data, {}))
    rows = np.arange(0, 160, 20)
    return ImageSet(faces.pixels(rows), faces.subject[rows], tuple(faces.keys[i] for i in rows))


@pytest.mark.parametrize("name", ["eye-mask", "mask-face"])
def test_the_embedded_locator_finds_the_face(name: str, portraits: ImageSet) -> None:
    """Both estimated eyes are covered on shipped faces, and the corners of the image are kept."""
    from privbench_plugins.geometry import load_geometry

    out = run(made(name), portraits)
    points = load_geometry().landmarks(portraits.pixels.permute(0, 2, 3, 1).numpy())
    changed = (out != portraits.floats()).any(1).numpy()
    x, y = points[:, :2].round().astype(int).transpose(2, 0, 1)
    assert changed[np.arange(len(x))[:, None], y, x].mean() > 0.9
    assert not changed[:, 0, 0].any()


def test_weights_are_stated_where_they_are_used() -> None:
    """The estimator's digest is in the record exactly when its estimates are."""
    from privbench_plugins.geometry import geometry_weights

    def weights(name: str, **settings: str) -> Any:
        spec = REGISTRY.get("anonymizer", name).spec
        assert spec.weights is not None
        return spec.weights(make_config(spec, settings))

    assert geometry_weights()
    for name in ("eye-mask", "mask-face", "silhouette", "background-only"):
        assert weights(name) == geometry_weights()
    assert weights("mask-face", locator="centre") == {}
    assert weights("condition-map") == weights("condition-map", condition="softedge") == {}
    assert weights("condition-map", condition="depth") == geometry_weights()


# --- diagnostics ---------------------------------------------------------------------------------


def test_diagnostics_are_marked_and_say_so() -> None:
    """None of them is ever ranked, and the summary warns."""
    for name in ("condition-map", "silhouette", "background-only"):
        spec = REGISTRY.get("anonymizer", name).spec
        assert spec.tags.control == "diagnostic"
        assert "no anonymizer" in spec.summary


@pytest.mark.parametrize("condition", ["canny", "softedge", "depth", "landmarks"])
def test_condition_maps_are_released_as_they_are(condition: str, portraits: ImageSet) -> None:
    """The release is the very map that a ControlNet would get, in three equal channels."""
    from privbench_plugins.conditions import canny, draw_landmarks, soft_edges
    from privbench_plugins.geometry import load_geometry

    pixels = portraits.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    geometry = load_geometry()
    maps = {
        "canny": lambda: canny(pixels),
        "softedge": lambda: soft_edges(pixels),
        "depth": lambda: geometry.depth(pixels),
        "landmarks": lambda: draw_landmarks(geometry.landmarks(pixels), 128, 128),
    }
    out = run(made("condition-map", condition=condition), portraits)
    expected = torch.from_numpy(maps[condition]()).float() / 255
    assert torch.equal(out, expected[:, None].expand(-1, 3, -1, -1))


def test_silhouette_and_background_part_the_image(portraits: ImageSet) -> None:
    """The silhouette is two-valued; the background holds no pixel of it, and keeps the rest."""
    outline = run(made("silhouette"), portraits)[:, :1]
    assert set(np.unique(outline.numpy()).tolist()) == {0.0, 1.0}
    assert 0.15 < outline.mean() < 0.9
    out = run(made("background-only"), portraits)
    person = (outline > 0).expand_as(out)
    assert (out[person] == 0.5).all()
    covered = (out == 0.5).all(1, keepdim=True).expand_as(out)
    assert torch.equal(out[~covered], portraits.floats()[~covered])
    assert (~covered).float().mean() > 0.1


def test_an_unseen_outline_hides_the_centre_all_the_same() -> None:
    """Noise without a person does not pass untouched."""
    images = people(4, side=128)
    out = run(made("background-only"), images)
    assert ((out == 0.5).all(1).float().mean((1, 2)) > 0.02).all()
