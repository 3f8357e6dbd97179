"""The attacks: their loss, what they may look at, what they find and what they cannot find."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from privbench.errors import ModelError, PluginError
from privbench.progress import Silent
from privbench.spec import NoConfig
from privbench.types import AttackerView, ImageSet, Oracle
from privbench_plugins.attacks import contrastive, controls
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.attacks.contrastive_attack import Judge, TrainedContrastive
from privbench_plugins.attacks.losses import contrastive_loss, margin_softmax
from privbench_plugins.attacks.pairs import choose, make_pairs, shrink
from privbench_plugins.attacks.validation import Quality, person_scores, quality
from privbench_plugins.conditions import canny
from privbench_plugins.tiny_encoder import net
from privbench_plugins.tiny_encoder import train as encoder_training
from privbench_plugins.tiny_encoder.evaluate import cross_photo

ASSETS = Path(contrastive.__file__).parents[1] / "assets"
SHIPPED = ASSETS / "tiny-encoder"
PLAIN = {"scale": 0.0, "shift": 0.0, "degrees": 0.0, "flip": 0.0, "jitter": 0.0, "grey": 0.0}
SMALL = ContrastiveConfig(
    backbone="tiny",
    side=32,
    batch=32,
    steps=40,
    checkpoints=4,
    learning_rate=2e-3,
    erase=0,
    **PLAIN,
)

Hide = Callable[[torch.Tensor, int], torch.Tensor]


class CountingOracle:
    """Anonymizes with `hide(pixels, seed)` and counts."""

    def __init__(self, hide: Hide) -> None:
        self.hide, self.queries, self.asked = hide, 0, list[str]()

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Anonymize, and count."""
        self.queries += len(images)
        self.asked += images.keys
        return released(images, self.hide)


def released(images: ImageSet, hide: Hide) -> ImageSet:
    """Each image anonymized with a seed of its own."""
    seeds = [int.from_bytes(hashlib.sha256(k.encode()).digest()[:6], "big") for k in images.keys]
    pixels = [hide(image, seed) for image, seed in zip(images.pixels, seeds, strict=True)]
    return ImageSet(torch.stack(pixels), images.subject, images.keys)


def people(count: int, photos: int, first: int = 0, side: int = 32) -> ImageSet:
    """Photos whose top quarter is a stripe of colours that belongs to the person; noise below."""
    pixels, subject = [], []
    for person in range(first, first + count):
        stripe = np.random.default_rng(person).integers(0, 256, (3, 1, 4))
        stripe = stripe.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
        for photo in range(photos):
            rng = np.random.default_rng([person, photo])
            image = rng.integers(0, 256, (3, side, side))
            image[:, : side // 4] = (stripe + rng.integers(-8, 9)).clip(0, 255)
            pixels.append(image.astype(np.uint8))
            subject.append(person)
    keys = tuple(f"{first}-{i}" for i in range(len(pixels)))
    return ImageSet(torch.from_numpy(np.stack(pixels)), np.array(subject), keys)


def keep_stripe(pixels: torch.Tensor, seed: int) -> torch.Tensor:
    """An anonymizer with a leak: noise everywhere but on the person's stripe."""
    out = noise(pixels, seed)
    rows = pixels.shape[1] // 4
    out[:, :rows] = 255 - pixels[:, :rows]
    return out


def noise(pixels: torch.Tensor, seed: int) -> torch.Tensor:
    """An anonymizer that releases nothing of its input."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=generator)


def view_of(oracle: Oracle | None, train: int = 40, validation: int = 10) -> AttackerView:
    """An attacker with 40 people of its own to train on and 10 to choose on, 4 photos each."""
    return AttackerView(
        train=people(train, 4),
        validation=people(validation, 4, first=1000),
        oracle=oracle,
        seed=5,
        device=torch.device("cpu"),
        reporter=Silent(),
    )


def rank1(trained: Any, hide: Hide, count: int = 40) -> float:
    """Share of anonymized probes of `count` unseen people whose clear photos score highest."""
    photos = people(count, 4, first=2000)
    gallery = photos.take(np.flatnonzero(np.arange(len(photos)) % 4 > 0))
    probes = released(photos.take(np.arange(0, len(photos), 4)), hide)
    scores = trained.enroll(gallery, anonymized=False).score(probes)
    person = scores.view(count, count, 3).mean(2)
    return float((person.argmax(1) == torch.arange(count)).double().mean())


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Steps of milliseconds: a second thread costs more in waiting than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def leak() -> tuple[TrainedContrastive, CountingOracle, AttackerView]:
    """The attack trained on the anonymizer with a leak."""
    oracle = CountingOracle(keep_stripe)
    view = view_of(oracle)
    return contrastive.build(SMALL).train(view), oracle, view  # type: ignore[return-value]


# --- losses ----------------------------------------------------------------------------------


def slow_loss(rows: torch.Tensor, groups: list[int], tau: float) -> float:
    """The contrastive loss by its definition, one exponential at a time."""
    total, anchors = 0.0, 0
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        positives = [j for j in others if groups[j] == groups[i]]
        if not positives:
            continue
        denominator = sum(math.exp(float(rows[i] @ rows[j]) / tau) for j in others)
        terms = [
            math.log(math.exp(float(rows[i] @ rows[p]) / tau) / denominator) for p in positives
        ]
        total -= sum(terms) / len(terms)
        anchors += 1
    return total / anchors


@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_loss_equals_its_definition(groups: list[int], tau: float) -> None:
    """NT-Xent (one positive) and its supervised form equal a loop over all pairs."""
    rows = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(1)).double())
    both = torch.tensor(groups + groups)
    loss = contrastive_loss(rows, both[:, None] == both[None], tau)
    assert float(loss) == pytest.approx(slow_loss(rows, both.tolist(), tau), rel=1e-9)


def test_both_kinds_of_negatives_repel() -> None:
    """An anchor is pushed from other people's originals and from their anonymized images."""
    rows = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)).double())
    groups = torch.tensor([0, 1, 2, 0, 1, 2])  # three originals, then their anonymized images
    positives = groups[:, None] == groups[None]
    only_first = positives.clone()
    only_first[1:] = False  # the loss of anchor 0 (a clear image) alone
    rows.requires_grad_(True)
    contrastive_loss(rows, only_first, 0.2).backward()
    assert rows.grad is not None
    away = (rows.grad * rows[0]).sum(1)
    assert (away[[1, 2]] > 0).all()  # other originals
    assert (away[[4, 5]] > 0).all()  # other anonymized images
    assert away[3] < 0  # its own anonymized image


def test_views_without_a_positive_do_not_count() -> None:
    """The loss of a batch without any positive pair is zero, not NaN."""
    rows = F.normalize(torch.randn(4, 3))
    assert contrastive_loss(rows, torch.eye(4, dtype=torch.bool), 0.1).item() == 0.0


def test_margin_softmax_without_margin_is_cross_entropy() -> None:
    """CosFace with margin 0 is plain softmax; a margin makes it larger."""
    cosine = torch.rand(5, 7) * 2 - 1
    labels = torch.tensor([0, 1, 2, 3, 6])
    plain = F.cross_entropy(8 * cosine, labels)
    torch.testing.assert_close(margin_softmax(cosine, labels, 8, 0.0), plain)
    assert margin_softmax(cosine, labels, 8, 0.2) > plain


# --- what validation measures ----------------------------------------------------------------


def slow_rank(scores: np.ndarray, column: np.ndarray, probe: int, fusion: str) -> float:
    """Rank of a probe's person, leaving out the photo it was made from."""
    fused = {}
    for person in set(column.tolist()):
        own = [scores[probe, j] for j in range(len(column)) if column[j] == person and j != probe]
        fused[person] = max(own) if fusion == "max" else sum(own) / len(own)
    return 1 + sum(value > fused[column[probe]] for value in fused.values())


@pytest.mark.parametrize("fusion", ["max", "mean"])
def test_validation_rank_equals_a_loop(fusion: Any) -> None:
    """Ranks leave the probe's own source photo out of the gallery."""
    rng = np.random.default_rng(3)
    column = np.repeat(np.arange(6), 3)
    scores = rng.normal(size=(18, 18)) + (column[:, None] == column[None]) + 9 * np.eye(18)
    ranks = np.array([slow_rank(scores, column, i, fusion) for i in range(18)])
    found = quality(torch.from_numpy(scores), torch.from_numpy(column), fusion)
    assert found.rank1 == pytest.approx((ranks == 1).mean())
    assert found.log_rank == pytest.approx(np.log(ranks).mean())
    assert found.rank1 < 1


def test_ties_are_no_success() -> None:
    """An attack that scores everything alike gets no first rank."""
    column = torch.arange(5).repeat_interleave(2)
    found = quality(torch.zeros(10, 10), column, "mean")
    assert found.rank1 == 0


def test_broken_embeddings_are_the_worst() -> None:
    """Scores that are not numbers, of a training that diverged, are never chosen."""
    column = torch.arange(4).repeat_interleave(2)
    found = quality(torch.full((8, 8), float("nan")), column, "mean")
    assert (found.rank1, found.mean_average_precision) == (0, 0)
    assert found.log_rank == pytest.approx(math.log(4))


def test_a_person_with_one_photo_is_no_probe() -> None:
    """Whoever has no second photo cannot be found across photos, and does not count."""
    column = torch.tensor([0, 0, 1])
    same = (column[:, None] == column[None]).float()
    person = person_scores(same.masked_fill(torch.eye(3).bool(), float("nan")), column, "max")
    assert person[:, 0].tolist() == [1, 1, 0]
    assert person[2, 1].isnan()
    assert quality(same, column, "max").rank1 == 1.0


# --- the attack ------------------------------------------------------------------------------


def test_a_planted_leak_is_learnt(leak: tuple[TrainedContrastive, Any, Any]) -> None:
    """A stripe that gives people away is found within some dozen steps, on unseen people."""
    assert rank1(leak[0], keep_stripe) > 0.9


def test_noise_stays_at_chance() -> None:
    """Where nothing of the person is released the attack guesses: 1/40, at most 5 of 40."""
    config = SMALL.model_copy(update={"steps": 12, "checkpoints": 3})
    trained = contrastive.build(config).train(view_of(CountingOracle(noise)))
    assert rank1(trained, noise) <= 5 / 40  # P = .004 under guessing


def test_queries_are_the_attackers_own_photos(
    leak: tuple[Any, CountingOracle, AttackerView],
) -> None:
    """The oracle is asked once for each attacker photo and for nothing else."""
    _, oracle, view = leak
    assert oracle.queries == len(view.train) + len(view.validation)
    assert oracle.asked == [*view.train.keys, *view.validation.keys]


def test_checkpoint_is_validations_best(leak: tuple[TrainedContrastive, Any, Any]) -> None:
    """The chosen step is the argmax of the reported history, and step 0 took part."""
    report = leak[0].report
    history = report["history"]
    best = max(history, key=lambda entry: entry["mean_average_precision"])
    assert report["chosen_step"] == best["step"]
    assert [entry["step"] for entry in history] == [0, 10, 20, 30, 40]
    assert json.loads(json.dumps(report)) == report


def test_training_never_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the evaluation interface runs while choices are made."""

    def forbidden(*_: object) -> None:
        raise AssertionError("training enrolled a gallery")

    monkeypatch.setattr(TrainedContrastive, "enroll", forbidden)
    config = SMALL.model_copy(update={"steps": 1})
    contrastive.build(config).train(view_of(CountingOracle(keep_stripe), 4, 2))


def test_the_untouched_start_can_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where validation likes no later checkpoint, the attack scores as its start does, bit for
    bit: adaptation is never worse than the start on validation."""
    images = people(6, 2, first=3000)
    view = view_of(CountingOracle(keep_stripe), 12, 4)
    start = contrastive.build(SMALL.model_copy(update={"steps": 0})).train(view)
    verdicts = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr(Judge, "quick", lambda _: Quality(0.5, 0.5, next(verdicts)))
    config = SMALL.model_copy(update={"steps": 4, "checkpoints": 2})
    trained = contrastive.build(config).train(view)
    assert trained.report["chosen_step"] == 0
    scores = [t.enroll(images, False).score(images) for t in (start, trained)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)


def test_same_seed_same_scores() -> None:
    """Two trainings on one machine give identical scores; another seed gives others."""
    config = SMALL.model_copy(update={"steps": 6})
    images = people(6, 2, first=3000)
    views = [view_of(CountingOracle(keep_stripe), 12, 4) for _ in range(2)]
    first, second = (
        contrastive.build(config).train(view).enroll(images, True).score(images) for view in views
    )
    assert torch.equal(first, second)


def test_scores_do_not_depend_on_the_batch(leak: tuple[TrainedContrastive, Any, Any]) -> None:
    """A probe scores the same, bit for bit, alone and among others in any order."""
    images = people(25, 4, first=3000)
    scorer = leak[0].enroll(images.take(np.arange(10)), anonymized=False)
    together = scorer.score(images)
    order = np.random.default_rng(0).permutation(100)
    assert torch.equal(scorer.score(images.take(order)), together[torch.from_numpy(order)])
    torch.testing.assert_close(scorer.score(images.take([7])), together[7:8], rtol=0, atol=1e-6)
    assert together.shape == (100, 10)
    assert scorer.score(images.take([])).shape == (0, 10)


def test_inputs_are_left_alone() -> None:
    """Training changes neither the attack nor the view's images."""
    view = view_of(CountingOracle(keep_stripe), 6, 3)
    before = view.train.pixels.clone()
    attack = contrastive.build(SMALL.model_copy(update={"steps": 2}))
    attack.train(view)
    assert torch.equal(view.train.pixels, before)


def test_without_an_oracle_it_refuses() -> None:
    """Below the adaptive threat model there is nothing to train on, and it says so."""
    with pytest.raises(PluginError, match="oracle"):
        contrastive.build(SMALL).train(view_of(None))


def test_too_few_people_are_refused() -> None:
    """One validation identity cannot tell checkpoints apart."""
    with pytest.raises(PluginError, match="two"):
        contrastive.build(SMALL).train(view_of(CountingOracle(noise), 4, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"towers": "separate"},
        {"positives": "photo"},
        {"backbone": "resnet-18", "batch": 4},
        {"calibration": "cohort", "mirror": "on", "fusion": "max"},
        {"dtype": "float32", "calibration": "none", "mirror": "off", "fusion": "mean"},
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_settings_run(change: dict[str, Any]) -> None:
    """Every variant trains, scores, and reports what it was told to do."""
    config = ContrastiveConfig(**(SMALL.model_dump() | {"steps": 2, "checkpoints": 1} | change))
    trained = contrastive.build(config).train(view_of(CountingOracle(keep_stripe), 6, 3))
    images = people(3, 2, first=3000)
    for anonymized in (False, True):
        assert torch.isfinite(trained.enroll(images, anonymized).score(images)).all()
    if config.fusion != "auto":
        assert trained.fusion == config.fusion
    if config.calibration != "auto":
        assert trained.report["choice"]["calibrate"] == (config.calibration == "cohort")


def test_photo_positives_pair_photos_only() -> None:
    """With the paper's pairing, another photo of the same person is a negative."""
    photos = people(5, 4)
    pairs = make_pairs(photos, photos, 32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    by_photo = SMALL.model_copy(update={"positives": "photo", "batch": 16})
    rows, groups = choose(pairs, by_photo, generator)
    assert len(rows) == 16
    assert len(set(groups.tolist())) == 16
    rows, groups = choose(pairs, SMALL.model_copy(update={"batch": 8}), generator)
    assert [photos.subject[r] for r in rows.tolist()] == groups.tolist()
    assert len(set(groups.tolist())) == 4


def test_large_images_are_shrunk_once() -> None:
    """Training holds bytes of about the network's size, whatever the photos' size."""
    photos = people(2, 2, side=256)
    assert shrink(photos, 96, torch.device("cpu")).shape == (4, 3, 128, 128)
    assert shrink(people(2, 2), 96, torch.device("cpu")).shape == (4, 3, 32, 32)


def test_a_folder_of_weights_is_a_start(tmp_path: Path) -> None:
    """Any vision model that transformers reads from a folder can be the backbone."""
    from transformers import ResNetConfig, ResNetModel

    shape = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    ResNetModel(shape).save_pretrained(tmp_path)
    config = SMALL.model_copy(
        update={"backbone": "transformers", "weights": str(tmp_path), "steps": 1, "batch": 4}
    )
    assert "model.safetensors" in contrastive.weights(config)
    trained = contrastive.build(config).train(view_of(CountingOracle(keep_stripe), 4, 2))
    assert trained.report["parameters"] > 0


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A start that cannot be read is an error with the folder's name in it."""
    with pytest.raises(ModelError, match="nowhere"):
        contrastive.weights(ContrastiveConfig(weights=str(tmp_path / "nowhere")))
    config = ContrastiveConfig(backbone="transformers")
    with pytest.raises(PluginError, match="weights"):
        contrastive.build(config).train(view_of(CountingOracle(noise), 2, 2))
    with pytest.raises(ValidationError):
        ContrastiveConfig(temperature=0)


def test_describing_the_attacks_is_cheap() -> None:
    """`privbench list` imports the specs: neither torch nor numpy may come with them."""
    code = (
        "import sys, privbench_plugins.attacks.contrastive, privbench_plugins.attacks.controls;"
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- random-guess ----------------------------------------------------------------------------


def test_random_guess_is_at_chance_and_repeatable() -> None:
    """Scores depend on the seed and the probe's key alone; no image is looked at."""
    trained = controls.build(NoConfig()).train(view_of(None, 2, 2))
    assert rank1(trained, keep_stripe) <= 5 / 40
    images = people(5, 4)
    scorer = trained.enroll(images, anonymized=True)
    order = np.array([3, 1, 2])
    assert torch.equal(scorer.score(images.take(order)), scorer.score(images)[order])
    assert scorer.score(images.take([])).shape == (0, 20)


# --- tiny-encoder ----------------------------------------------------------------------------


def test_shipped_weights_are_the_documented_ones() -> None:
    """At most 2 MB, float16, the digest that provenance states and the planner records."""
    path = SHIPPED / "model.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance = json.loads((SHIPPED / "provenance.json").read_text())
    assert path.stat().st_size <= 2_000_000
    assert provenance["model.safetensors"]["sha256"] == digest
    assert contrastive.weights(ContrastiveConfig())["model.safetensors"] == digest
    assert contrastive.weights(ContrastiveConfig(backbone="tiny")) == {}


@pytest.fixture(scope="module")
def shipped_faces() -> tuple[np.ndarray, np.ndarray]:
    """60 shipped identities, 4 photos each: (240, 128, 128, 3) and their subjects."""
    from privbench_plugins.datasets import synthfaces

    data = synthfaces.build(synthfaces.SynthfacesConfig())
    people = np.unique(data.subject)[::5][:60]
    rows = np.concatenate([np.flatnonzero(data.subject == p)[:4] for p in people])
    return data.pixels(rows).permute(0, 2, 3, 1).numpy(), data.subject[rows]


def test_shipped_encoder_knows_unseen_people(shipped_faces: tuple[Any, Any]) -> None:
    """Unadapted, across photos, 60 people, chance .017: clear faces near the ceiling, edge maps
    against clear faces far above chance."""
    from privbench_plugins.tiny_encoder.evaluate import edge_images, embed

    images, subject = shipped_faces
    model = net.load(SHIPPED)
    clear, edges = embed(model, images), embed(model, edge_images(images))
    assert cross_photo(clear, clear, subject).rank1 > 0.9
    assert cross_photo(edges, clear, subject).rank1 > 0.6


def test_cross_photo_leaves_the_own_photo_out() -> None:
    """Embeddings that agree only with themselves identify nobody."""
    rows = F.normalize(torch.randn(600, 64, generator=torch.Generator().manual_seed(0)))
    result = cross_photo(rows, rows, np.repeat(np.arange(100), 6))
    assert result.rank1 < 0.05
    assert (result.probes, result.people, result.chance) == (600, 100, 0.01)


def test_encoder_round_trip(tmp_path: Path) -> None:
    """Saved and loaded, a network embeds alike up to float16; other folders are refused."""
    torch.manual_seed(0)
    model = net.TinyEncoder(net.NetConfig(side=32)).eval()
    net.save(model, tmp_path)
    pixels = torch.rand(2, 3, 48, 40)
    torch.testing.assert_close(net.load(tmp_path)(pixels), model(pixels), rtol=0, atol=5e-3)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="tiny-encoder"):
        net.load(tmp_path)


def write_shards(folder: Path) -> None:
    """Two shards in the format of the renderer: 24 people, 3 photos each."""
    photos = people(24, 3)
    for part in range(2):
        rows = np.arange(part * 36, part * 36 + 36)
        images = photos.pixels[torch.from_numpy(rows)].permute(0, 2, 3, 1).numpy()
        np.save(folder / f"train-{part}-images.npy", images)
        lines = [json.dumps({"subject": int(photos.subject[r])}) for r in rows]
        (folder / f"train-{part}.jsonl").write_text("\n".join(lines) + "\n")


def test_encoder_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    """Six steps at once and four plus two give the same weights, and provenance to match."""
    write_shards(tmp_path)
    common = ["--data", str(tmp_path), "--identities", "24", "--people", "4", "--threads", "1"]
    whole = [*common, "--out", str(tmp_path / "a"), "--work", str(tmp_path / "wa")]
    parts = [*common, "--out", str(tmp_path / "b"), "--work", str(tmp_path / "wb")]
    encoder_training.main([*whole, "--steps", "6", "--cooldown", "1"])
    encoder_training.main([*parts, "--steps", "4", "--cooldown", "0"])
    encoder_training.main([*parts, "--steps", "6", "--cooldown", "1", "--resume"])
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    facts = json.loads((tmp_path / "b" / "provenance.json").read_text())
    assert facts["model.safetensors"]["sha256"] == hashlib.sha256(files[1]).hexdigest()
    assert facts["training"]["identities"] == 23  # the last 5 % of 24 are held out
    assert facts["held_out"]["clear-clear"]["people"] == 1
    assert "| canny map against clear photos |" in (tmp_path / "b" / "README.md").read_text()


def test_training_photos_differ_within_a_pair() -> None:
    """The two photos of a person in one step are never the same photo."""
    subject = np.repeat(np.arange(9), 3)
    for seed in range(20):
        rows = encoder_training.choose(torch.Generator().manual_seed(seed), subject, 6)
        first, second = rows[:6], rows[6:]
        assert (subject[first] == subject[second]).all()
        assert (first != second).all()
        assert len(set(subject[first])) == 6


def test_training_edges_are_the_shared_canny() -> None:
    """Encoder and anonymizer see the same kind of map; rows not asked for stay empty."""
    photos = people(3, 1).pixels.permute(0, 2, 3, 1).numpy()
    hit = np.array([True, False, True])
    maps = encoder_training.random_edges(photos, hit, torch.Generator().manual_seed(0))
    assert maps.shape == (3, 1, 32, 32)
    assert maps[1].sum() == 0
    assert set(maps.unique().tolist()) <= {0.0, 1.0}
    assert canny(photos).shape == (3, 32, 32)
