"""Attacks by edges without a query, and control attacks that see one signal alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from privbench.errors import PluginError
from privbench.progress import Silent
from privbench.registry import load_registry
from privbench.testing import Workbench
from privbench.types import AttackerView, DrawScorer, ImageSet
from privbench_plugins.anonymizers import diagnostics as anonymizers
from privbench_plugins.attacks import diagnostics, edges
from privbench_plugins.attacks.edge_match import Maps, edge_maps, similarity
from privbench_plugins.attacks.edges import EdgeMatchConfig, EdgeSurrogateConfig
from privbench_plugins.attacks.through import EdgeOracle, Through, drawn, one_signal
from privbench_plugins.conditions import CANNY_HIGH, CANNY_LOW, canny
from privbench_plugins.datasets import synthfaces

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SPECS = (*edges.SPECS, *diagnostics.SPECS)
PLAIN = {"scale": 0.0, "shift": 0.0, "degrees": 0.0, "flip": 0.0, "jitter": 0.0, "grey": 0.0}
SMALL: dict[str, Any] = {
    "backbone": "tiny", "side": 32, "batch": 32, "steps": 40, "checkpoints": 4,
    "learning_rate": 2e-3, "erase": 0, **PLAIN,
}  # fmt: skip


def people(count: int, photos: int, first: int = 0, side: int = 32) -> ImageSet:
    """Photos of a person share the outlines of light and dark cells, each in its own colours."""
    pixels, subject = [], []
    for person in range(first, first + count):
        cells = np.random.default_rng(person).integers(0, 2, (4, 4)).repeat(side // 4, 0)
        outline = cells.repeat(side // 4, 1)[None]
        for photo in range(photos):
            rng = np.random.default_rng([person, photo])
            dark, light = rng.integers(0, 80, (3, 1, 1)), rng.integers(170, 256, (3, 1, 1))
            pixels.append(np.where(outline, dark, light).astype(np.uint8))
            subject.append(person)
    keys = tuple(f"{first}-{i}" for i in range(len(pixels)))
    return ImageSet(torch.from_numpy(np.stack(pixels)), np.array(subject), keys)


def noise(images: ImageSet) -> ImageSet:
    """Releases that keep nothing."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, images.pixels.shape, dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, images.subject, images.keys)


def edge_map(images: ImageSet) -> ImageSet:
    """Releases that are the canny map of their source, as `condition-map` makes them."""
    return drawn(images, canny(images.pixels.permute(0, 2, 3, 1).contiguous().numpy()))


class Forbidden:
    """An oracle that nobody may ask."""

    queries = 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Refuse."""
        raise AssertionError("a black-box attack asked the oracle")


def view_of(oracle: Any = None, train: int = 30, validation: int = 8) -> AttackerView:
    """An attacker with people of its own, 4 photos each."""
    return AttackerView(
        train=people(train, 4), validation=people(validation, 4, first=1000), oracle=oracle,
        seed=5, device=CPU, reporter=Silent(),
    )  # fmt: skip


def rank1(trained: Any, release: Callable[[ImageSet], ImageSet], count: int = 40) -> float:
    """Share of probes of `count` unseen people whose three clear photos score highest."""
    photos = people(count, 4, first=2000)
    gallery = photos.take(np.flatnonzero(np.arange(len(photos)) % 4 > 0))
    probes = release(photos.take(np.arange(0, len(photos), 4)))
    scores = trained.enroll(gallery, anonymized=False).score(probes)
    person = scores.view(count, count, 3).mean(2)
    return float((person.argmax(1) == torch.arange(count)).double().mean())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_smoke_settings_train_and_score(spec: Any) -> None:
    """Each attack runs with its smoke settings: finite scores, in clear and cross trials."""
    bench = Workbench(spec)
    oracle = Inverter() if spec.tags.knowledge == "adaptive" else None
    trained = spec.build(bench.config).train(view_of(oracle, 4, 2))
    images = people(3, 2, first=3000)
    for anonymized in (False, True):
        scores = trained.enroll(images, anonymized).score(images.take([4, 0]))
        assert scores.shape == (2, 6)
        assert scores.isfinite().all()


def test_ids_need_no_kind() -> None:
    """`--set ID.setting=value` reaches one plugin: no attack is called like an anonymizer."""
    registry = load_registry()
    attacks, others = (
        {r.spec.id for r in registry.of_kind(kind)}  # type: ignore[arg-type]
        for kind in ("attack", "anonymizer")
    )
    assert not attacks & others
    assert {spec.id for spec in SPECS} <= attacks


def test_threat_models() -> None:
    """The edge attacks are black-box, the controls adaptive and never ranked."""
    found = {spec.id: (spec.tags.knowledge, spec.tags.control) for spec in SPECS}
    assert found == {
        "edge-match": ("black-box", None),
        "edge-surrogate": ("black-box", None),
        "silhouette-reid": ("adaptive", "diagnostic"),
        "background-reid": ("adaptive", "diagnostic"),
    }


# --- edge-match --------------------------------------------------------------------------------


def random_maps(count: int, seed: int, tolerance: float) -> tuple[np.ndarray, Maps]:
    """Sparse random edges, and their distances by scipy."""
    lines = np.random.default_rng(seed).random((count, 13, 11)) < 0.1
    far = [distance_transform_edt(~line) / tolerance for line in lines]
    field_ = torch.from_numpy(np.minimum(np.stack(far), 1)).float()
    return lines, Maps(torch.from_numpy(lines).float(), field_)


def slow_similarity(a: np.ndarray, b: np.ndarray, tolerance: float, shift: int) -> float:
    """Minus the symmetric truncated chamfer distance, pixel by pixel, at the best move of a."""
    inside = [slice(shift, n - shift) for n in a.shape]
    points = [np.argwhere(x[tuple(inside)]) + shift for x in (a, b)]
    fields = [np.minimum(distance_transform_edt(~x) / tolerance, 1) for x in (a, b)]
    best = np.inf
    for dy in range(-shift, shift + 1):
        for dx in range(-shift, shift + 1):
            there = np.mean([fields[1][y + dy, x + dx] for y, x in points[0]])
            back = np.mean([fields[0][y - dy, x - dx] for y, x in points[1]])
            best = min(best, there + back)
    return -best / 2


@pytest.mark.parametrize("shift", [0, 2])
def test_chamfer_by_matmul_is_chamfer(shift: int) -> None:
    """All pairs at once equal a loop over pairs, moves and edge pixels."""
    tolerance = 3.0
    probes, probe_maps = random_maps(4, 0, tolerance)
    gallery, gallery_maps = random_maps(3, 1, tolerance)
    expected = [[slow_similarity(p, g, tolerance, shift) for g in gallery] for p in probes]
    found = similarity(probe_maps, gallery_maps, shift)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_maps_are_canny_and_exact_distances() -> None:
    """Edges are the anonymizers' canny, and distances Euclid's by scipy."""
    images = people(3, 1, side=64)
    maps = edge_maps(images, EdgeMatchConfig(tolerance=5), CPU)
    lines = edge_map(images).pixels[:, 0].numpy() > 0
    np.testing.assert_array_equal(maps.edges.numpy(), lines)
    expected = [np.minimum(distance_transform_edt(~line) / 5, 1) for line in lines]
    np.testing.assert_allclose(maps.far.numpy(), np.stack(expected), atol=1e-4)


def test_the_same_edges_are_nearest() -> None:
    """A map is at distance 0 from itself, moved within the shift still, and never farther than
    its worst."""
    images = people(4, 1, side=64)
    maps = edge_maps(images, EdgeMatchConfig(), CPU)
    moved = Maps(maps.edges.roll((1, -2), (1, 2)), maps.far.roll((1, -2), (1, 2)))
    own = similarity(moved, maps, 4).diagonal()
    assert similarity(maps, maps, 0).diagonal().abs().max() == 0
    assert (own > similarity(moved, maps, 0).diagonal()).all()
    scores = similarity(maps, maps, 4)
    assert scores.min() >= -1
    assert scores.max() <= 0


def test_no_edges_match_nothing() -> None:
    """A release without edges is at the largest distance from every photo, and from itself."""
    images = people(2, 1)
    blank = ImageSet(torch.zeros_like(images.pixels), images.subject, images.keys)
    config = EdgeMatchConfig(side=32)
    both = [edge_maps(x, config, CPU) for x in (blank, images)]
    assert (similarity(both[0], both[1], 2) == -1).all()
    assert (similarity(both[0], both[0], 2) == -1).all()


def test_large_images_are_shrunk() -> None:
    """Distances are in pixels of one size, whatever the image's."""
    images = people(2, 1, side=128)
    maps = edge_maps(images, EdgeMatchConfig(side=64), CPU)
    assert maps.edges.shape == (2, 64, 64)


def test_edges_identify_without_training() -> None:
    """Planted outlines are found among 40 people; noise stays at chance (P(> 5 of 40) = .004)."""
    trained = edges.build_edge_match(EdgeMatchConfig(side=32, tolerance=2)).train(
        view_of(Forbidden())
    )
    assert rank1(trained, lambda images: images) > 0.9
    assert rank1(trained, noise) <= 5 / 40


def test_edges_identify_renders() -> None:
    """Edges of one photo of 20 rendered people against those of three others: chance .05."""
    data = synthfaces.build(synthfaces.SynthfacesConfig())
    who = np.unique(data.subject)[::15][:20]
    rows = np.stack([np.flatnonzero(data.subject == p)[:4] for p in who])
    keys = tuple(data.keys[i] for i in rows.ravel())
    images = ImageSet(data.pixels(rows.ravel()), data.subject[rows.ravel()], keys)
    trained = edges.build_edge_match(EdgeMatchConfig()).train(view_of())
    order = np.arange(80).reshape(20, 4)
    scorer = trained.enroll(images.take(order[:, 1:].ravel()), anonymized=False)
    person = scorer.score(images.take(order[:, 0])).view(20, 20, 3).amax(2)
    assert (person.argmax(1) == torch.arange(20)).double().mean() >= 0.4


# --- edge-surrogate ----------------------------------------------------------------------------


def test_the_surrogate_learns_edges_and_never_asks() -> None:
    """From scratch, and with an oracle that refuses: unseen people are found by the edges of what
    is released, and above chance (P(> 5 of 40) = .004) where the release is itself an edge map, of
    which canny draws both sides of each line; noise stays at chance."""
    config = EdgeSurrogateConfig(**SMALL)
    trained = edges.build_edge_surrogate(config).train(view_of(Forbidden(), 60))
    assert rank1(trained, lambda images: images) > 0.9
    assert rank1(trained, edge_map) > 5 / 40
    assert rank1(trained, noise) <= 5 / 40


def test_no_oracle_suffices() -> None:
    """Below the adaptive threat model the view has no oracle; the scores are the same."""
    config = EdgeSurrogateConfig(**SMALL | {"steps": 3, "checkpoints": 1})
    images = people(4, 2, first=3000)
    scores = [
        edges.build_edge_surrogate(config)
        .train(view_of(oracle, 8, 3))
        .enroll(images, True)
        .score(images)
        for oracle in (None, Forbidden())
    ]
    assert torch.equal(scores[0], scores[1])


def test_training_photos_take_turns() -> None:
    """Training edges vary in threshold from photo to photo and draw to draw; others do not."""
    train, other = people(2, 3), people(2, 3, first=9)
    oracle = EdgeOracle(frozenset(train.keys), (1.0, 0.5))
    images = train.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    maps = [canny(images, f * CANNY_LOW, f * CANNY_HIGH) for f in (1.0, 0.5)]
    for draw in (0, 1):
        answer = oracle(train, draw)
        expected = np.stack([maps[(i + draw) % 2][i] for i in range(6)])
        np.testing.assert_array_equal(answer.pixels[:, 1].numpy(), expected)
        assert torch.equal(oracle(other, draw).pixels, edge_map(other).pixels)
    assert answer.keys == train.keys
    assert oracle.queries == 0


# --- composition -------------------------------------------------------------------------------


@dataclass
class Watcher:
    """An attack that remembers what it was shown; its scores count the probes' pixels."""

    seen: list[ImageSet] = field(default_factory=list)
    draws: bool = False
    fusion: Any = "max"
    report: dict[str, Any] = field(default_factory=dict)

    def train(self, view: AttackerView) -> Watcher:
        """Ask for everything."""
        assert view.oracle is not None
        self.seen += [view.train, view.validation, view.oracle(view.train.take([2, 0]), 3)]
        return self

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Any:
        """Remember the gallery."""
        self.seen.append(gallery)
        return WatchingDraws() if self.draws else Watching()


class Watching:
    """Scores by the mean pixel."""

    def score(self, probes: ImageSet) -> torch.Tensor:
        """(N, 1)."""
        return probes.pixels.float().mean((1, 2, 3))[:, None]


class WatchingDraws(Watching):
    """Scores by the mean pixel of all draws."""

    def score_draws(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """(N, 1)."""
        return torch.stack([self.score(images) for images in draws]).amax(0)


class Halve:
    """A signal: half as bright."""

    def anonymize(self, batch: Any, seeds: Sequence[int]) -> torch.Tensor:
        """Darken."""
        assert len(seeds) == len(batch)
        return batch.pixels / 2


class Inverter:
    """An oracle that inverts, and counts."""

    queries = 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Invert, a little darker in each draw."""
        self.queries += len(images)
        return ImageSet(255 - images.pixels - draw, images.subject, images.keys)


def half(pixels: torch.Tensor) -> torch.Tensor:
    """What `Halve` leaves."""
    return (pixels.double() / 2).round().byte()


def test_a_signal_is_all_that_is_seen() -> None:
    """Clear photos, the oracle's answers *for the photos themselves*, galleries and probes: each
    goes through the signal once."""
    inner, oracle = Watcher(), Inverter()
    view = view_of(oracle, 20, 2)  # more than one block
    trained = one_signal(inner, Halve()).train(view)
    train, validation, answer = inner.seen
    torch.testing.assert_close(train.pixels, half(view.train.pixels), rtol=0, atol=1)
    torch.testing.assert_close(validation.pixels, half(view.validation.pixels), rtol=0, atol=1)
    expected = half(255 - view.train.pixels[[2, 0]] - 3)
    torch.testing.assert_close(answer.pixels, expected, rtol=0, atol=1)
    assert (answer.keys, oracle.queries) == ((view.train.keys[2], view.train.keys[0]), 2)
    images = people(2, 2, first=50)
    scorer = trained.enroll(images, anonymized=False)
    torch.testing.assert_close(inner.seen[-1].pixels, half(images.pixels), rtol=0, atol=1)
    means = images.pixels.float().mean((1, 2, 3))[:, None]
    torch.testing.assert_close(scorer.score(images), means / 2, rtol=0, atol=1)
    assert len(scorer.score(images.take([]))) == 0


@pytest.mark.parametrize("draws", [False, True])
def test_draws_pass_through(draws: bool) -> None:
    """Several draws reach an inner scorer that takes them, as seen; one that does not has no
    such method here either."""
    attack = Through(Watcher(draws=draws), lambda view: view, lambda x: x, noise)
    images = people(3, 1)
    scorer = attack.train(view_of(Inverter(), 2, 2)).enroll(images, True)
    assert isinstance(scorer, DrawScorer) is draws
    if isinstance(scorer, DrawScorer):
        expected = Watching().score(noise(images))
        torch.testing.assert_close(scorer.score_draws([images, images]), expected)


def test_controls_see_what_the_diagnostics_release() -> None:
    """The look of `silhouette-reid` and of `background-reid` is the release of `silhouette` and
    `background-only`."""
    data = synthfaces.build(synthfaces.SynthfacesConfig())
    rows = np.arange(5)
    images = ImageSet(data.pixels(rows), data.subject[rows], tuple("abcde"))
    made = (
        (diagnostics.SPECS[0], anonymizers.SPECS[1]),
        (diagnostics.SPECS[1], anonymizers.SPECS[2]),
    )
    for attack, anonymizer in made:
        through = attack.build(attack.config())
        released = anonymizer.build(anonymizer.config()).anonymize(images.batch(), [0] * 5)
        expected = (released * 255).round().byte()
        for look in (through.clear, through.released):
            assert torch.equal(look(images).pixels, expected)
        assert not torch.equal(expected, images.pixels)


def test_controls_need_the_oracle() -> None:
    """They are adaptive: without an oracle they say so."""
    for spec in diagnostics.SPECS:
        with pytest.raises(PluginError, match="oracle"):
            spec.build(spec.config()).train(view_of(None, 2, 2))
