"""The attacks: their loss, what they may look at, what they find and what they cannot find."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from privbench import testing as kit
from privbench.errors import ModelError, PluginError
from privbench.progress import Silent
from privbench.spec import NoConfig, PluginSpec
from privbench.types import AttackerView, DrawScorer, ImageSet, Oracle
from privbench_plugins import models
from privbench_plugins.attacks import contrastive, controls, search
from privbench_plugins.attacks.contrastive import ContrastiveConfig, PaperConfig, ParrotConfig
from privbench_plugins.attacks.contrastive_attack import TrainedContrastive
from privbench_plugins.attacks.embedding import Embedder
from privbench_plugins.attacks.judge import Judge
from privbench_plugins.attacks.losses import contrastive_loss, hard_negatives, margin_softmax
from privbench_plugins.attacks.pairs import Pairs, batch, choose, make_pairs, shrink, two_draws
from privbench_plugins.attacks.start import create
from privbench_plugins.attacks.training import Training
from privbench_plugins.attacks.validation import Quality, person_scores, quality
from privbench_plugins.conditions import canny
from privbench_plugins.tiny_encoder import net
from privbench_plugins.tiny_encoder import train as encoder_training
from privbench_plugins.tiny_encoder.evaluate import cross_photo

pytestmark = pytest.mark.usefixtures("one_thread")

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

PARROT = ParrotConfig(**(SMALL.model_dump() | {"pairs": "anonymized"}))

Hide = Callable[[torch.Tensor, int], torch.Tensor]


class CountingOracle:
    """Anonymizes with `hide(pixels, seed)` and counts."""

    def __init__(self, hide: Hide) -> None:
        self.hide, self.queries, self.asked = hide, 0, list[str]()

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Anonymize, and count."""
        self.queries += len(images)
        self.asked += images.keys
        return released(images, self.hide, draw)


def released(images: ImageSet, hide: Hide, draw: int = 0) -> ImageSet:
    """Each image anonymized with a seed of its own for each draw."""
    names = [k if draw == 0 else f"{k}/{draw}" for k in images.keys]
    seeds = [int.from_bytes(hashlib.sha256(k.encode()).digest()[:6], "big") for k in names]
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


def slow_hard_loss(rows: torch.Tensor, groups: list[int], tau: float, beta: float) -> torch.Tensor:
    """Equation 4 of Robinson et al. 2021 with tau+ = 0, one exponential at a time: negatives are
    drawn with a probability that grows with exp(beta f.f'), f of length 1 / sqrt(tau)."""
    total, anchors = rows.new_zeros(()), 0
    for i in range(len(rows)):
        s = [rows[i] @ row / tau for row in rows]
        negatives = [j for j in range(len(rows)) if groups[j] != groups[i]]
        positives = [j for j in range(len(rows)) if groups[j] == groups[i] and j != i]
        if not positives:
            continue
        drawn = [torch.exp(beta * s[j]) for j in negatives]
        mass = sum(drawn, rows.new_zeros(()))
        hard = [p / mass * torch.exp(s[j]) for p, j in zip(drawn, negatives, strict=True)]
        below = len(negatives) * sum(hard, rows.new_zeros(()))
        below = below + sum(torch.exp(s[j]) for j in positives)
        total = total - sum(torch.log(torch.exp(s[j]) / below) for j in positives) / len(positives)
        anchors += 1
    return total / anchors


@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_hard_negatives_follow_the_paper(groups: list[int], beta: float) -> None:
    """Value and gradient equal a loop over all pairs, with one positive, several, and where
    there is no negative at all; beta = 0 is the plain loss."""
    generator = torch.Generator().manual_seed(4)
    first = F.normalize(torch.randn(8, 5, generator=generator).double()).requires_grad_(True)
    second = first.detach().clone().requires_grad_(True)
    both = torch.tensor(groups + groups)
    fast = contrastive_loss(first, both[:, None] == both[None], 0.3, beta)
    slow = slow_hard_loss(second, both.tolist(), 0.3, beta)
    fast.backward()
    slow.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(fast, slow)
    assert first.grad is not None
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-9, atol=1e-12)


def test_hard_negatives_weigh_by_nearness() -> None:
    """Weights of an anchor's negatives have mean one and stand in the ratio exp(beta (s - s'));
    everything else stays; the loss grows with beta."""
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    negatives = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    added = hard_negatives(similarity, negatives, 1.5) - similarity
    assert (added[~negatives] == 0).all()
    for s, weight, known in zip(similarity, added.exp(), negatives, strict=True):
        assert float(weight[known].mean()) == pytest.approx(1)
        ratio = weight[known] / torch.exp(1.5 * s[known])
        torch.testing.assert_close(ratio, ratio[:1].expand(len(ratio)))
    rows = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(3)))
    groups = torch.arange(8) % 4
    positives = groups[:, None] == groups[None]
    losses = [float(contrastive_loss(rows, positives, 0.2, beta)) for beta in (0, 0.1, 0.5, 2)]
    assert losses == sorted(set(losses))


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
        {"hardness": 0.5, "temperature": 0.5},
        {"pairs": "anonymized", "positives": "photo"},
        {"search": 3, "steps": 8},
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
    pairs = make_pairs(photos, [photos], 32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    by_photo = SMALL.model_copy(update={"positives": "photo", "batch": 16})
    rows, others, groups = choose(pairs, by_photo, generator)
    assert torch.equal(rows, others)
    assert len(rows) == 16
    assert len(set(groups.tolist())) == 16
    rows, others, groups = choose(pairs, SMALL.model_copy(update={"batch": 8}), generator)
    assert torch.equal(rows, others)
    assert [photos.subject[r] for r in rows.tolist()] == groups.tolist()
    assert len(set(groups.tolist())) == 4


def test_a_batch_is_what_it_was() -> None:
    """The photos of a step at default settings, as drawn since version 1, and no random number
    more than that: scores of earlier runs stay what they are."""
    photos = people(5, 4)
    pairs = make_pairs(photos, [photos], 32, torch.device("cpu"))
    for positives, rows, after in (
        ("identity", [3, 1, 7, 6, 14, 12, 9, 11], 666),
        ("photo", [15, 17, 9, 12, 7, 1, 19, 3], 518),
    ):
        config = SMALL.model_copy(update={"batch": 8, "positives": positives})
        generator = torch.Generator().manual_seed(7)
        assert choose(pairs, config, generator)[0].tolist() == rows
        two_draws(1, 8, generator)
        assert int(torch.randint(1000, (1,), generator=generator)) == after


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


def test_a_hub_id_is_fetched_as_transformers_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a vision model are `model*.safetensors`, whatever diffusers calls its own."""
    asked: list[str] = []

    def snapshot(name: str, revision: str, allow: Sequence[str], ignore: Sequence[str]) -> Path:
        asked.extend(allow)
        return SHIPPED

    monkeypatch.setattr(models, "snapshot", snapshot)
    assert contrastive.weights(PaperConfig(weights="microsoft/resnet-50"))
    assert "model*.safetensors" in asked


# --- relatives: contrastive-paper, contrastive-parrot ----------------------------------------


@pytest.mark.parametrize("spec", contrastive.SPECS, ids=lambda spec: spec.id)
def test_each_id_trains_and_scores(spec: PluginSpec) -> None:
    """A smoke run scores; what all plugins promise is in tests/test_contract_builtin.py."""
    bench = kit.Workbench(spec)
    trained = spec.build(bench.config).train(view_of(CountingOracle(keep_stripe), 6, 3))
    images = people(3, 2, first=3000)
    for anonymized in (False, True):
        scores = trained.enroll(images, anonymized).score(images)
        assert scores.shape == (6, 6)
        assert torch.isfinite(scores).all()


def test_the_papers_defaults_are_the_papers() -> None:
    """One id names what Lorenz et al. 2025 state: ResNet-50, batch 128, photo pairs."""
    config = PaperConfig()
    stated = (config.backbone, config.batch, config.positives, config.pairs, config.hardness)
    assert stated == ("resnet-50", 128, "photo", "clear-anonymized", 0.0)
    small = config.model_copy(update={"side": 32})
    parameters = sum(p.numel() for p in create(small, 0).parameters())
    assert parameters == 23_508_032 + 2048 * config.dim  # ResNet-50 without its classifier, head


def test_parrot_pairs_are_releases_of_other_photos() -> None:
    """Both views are releases of one person, of different photos and different draws."""
    photos = people(5, 3)
    draws = [replace(photos, pixels=torch.full_like(photos.pixels, 80 * k)) for k in range(3)]
    for k, draw in enumerate(draws):
        draw.pixels.add_(torch.arange(15, dtype=torch.uint8)[:, None, None, None])
        assert int(draw.pixels[0].max()) == 80 * k
    pairs = make_pairs(photos, draws, 32, torch.device("cpu"))
    for seed in range(20):
        first, second, groups = batch(pairs, PARROT, 32, seed)
        seen = [(view[:, 0, 0, 0] * 255).round().long() for view in (first, second)]
        rows, draw = ([s % 80 for s in seen], [s // 80 for s in seen])
        assert (rows[0] != rows[1]).all()
        assert (draw[0] != draw[1]).all()
        for own, n in zip(rows, (0, 10), strict=True):
            assert photos.subject[own].tolist() == groups[n : n + 10].tolist()
    alone = make_pairs(people(5, 1), [people(5, 1)], 32, torch.device("cpu"))
    rows, others, _ = choose(alone, PARROT, torch.Generator().manual_seed(0))
    assert torch.equal(rows, others)  # no other photo: the same one


def test_parrot_links_releases() -> None:
    """Trained and judged on releases alone, it finds unseen people among releases."""
    view = view_of(CountingOracle(keep_stripe))
    trained = contrastive.build(PARROT).train(view)
    photos = released(people(40, 4, first=2000), keep_stripe)
    probes, gallery = (photos.take(np.flatnonzero(np.arange(160) % 4 % 3 == r)) for r in (1, 2))
    scores = trained.enroll(gallery, anonymized=True).score(probes)
    assert (scores.argmax(1) == torch.arange(40)).double().mean() > 0.9
    assert trained.report["validation"]["rank1"] > 0.9
    assert rank1(trained, keep_stripe) >= 0  # clear references can be enrolled all the same


def test_parrot_needs_one_tower() -> None:
    """A tower for clear images would stay untrained: that is refused by name."""
    with pytest.raises(ValidationError, match="towers=shared"):
        ParrotConfig(towers="separate")


# --- several draws ---------------------------------------------------------------------------


def test_two_draws_are_two() -> None:
    """The draws of a pair differ and each occurs; one draw needs no randomness."""
    generator = torch.Generator().manual_seed(0)
    first, second = two_draws(4, 200, generator)
    assert (first != second).all()
    assert set(first.tolist()) == set(second.tolist()) == {0, 1, 2, 3}
    state = generator.get_state()
    assert two_draws(1, 3, generator)[0].tolist() == [0, 0, 0]
    assert torch.equal(generator.get_state(), state)


def test_training_sees_every_draw() -> None:
    """A photo's anonymized view is any of its draws, its clear view never; bytes at rest."""
    photos = people(4, 2)
    draws = [replace(photos, pixels=torch.full_like(photos.pixels, 50 * k)) for k in range(4)]
    pairs = make_pairs(photos, draws, 32, torch.device("cpu"))
    assert (pairs.anonymized.shape, pairs.anonymized.dtype) == ((4, 8, 3, 32, 32), torch.uint8)
    seen = torch.cat([batch(pairs, SMALL, 32, seed)[1] for seed in range(10)])
    assert (seen.mul(255).round().long().unique() == torch.tensor([0, 50, 100, 150])).all()


def test_draws_are_pooled_on_the_sphere(leak: tuple[TrainedContrastive, Any, Any]) -> None:
    """Several draws score by their mean embedding, renormalised; one draw as ever, bit for bit."""
    photos = people(6, 2, first=3000)
    draws = [released(photos, keep_stripe, k) for k in range(3)]
    scorer = leak[0].enroll(photos, anonymized=False)
    assert isinstance(scorer, DrawScorer)
    assert torch.equal(scorer.score_draws(draws[:1]), scorer.score(draws[0]))
    plain = replace(scorer, mirror=False, cohort=None)  # type: ignore[type-var]
    rows = [leak[0].embedder(draw.pixels, True).double().numpy() for draw in draws]
    mean = np.mean(rows, axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    expected = mean @ plain.gallery.double().numpy().T
    np.testing.assert_allclose(plain.score_draws(draws).numpy(), expected, atol=1e-6)


def patchy(pixels: torch.Tensor, seed: int) -> torch.Tensor:
    """An anonymizer whose draws each show two fifths of the stripe's places."""
    kept = torch.rand(pixels.shape[1:], generator=torch.Generator().manual_seed(seed)) < 0.4
    return torch.where(kept, keep_stripe(pixels, seed), noise(pixels, seed + 1))


def test_draws_add_up() -> None:
    """Four draws give away more than one, on unseen people; each is a counted query."""
    single = view_of(CountingOracle(patchy))
    oracle = CountingOracle(patchy)
    config = SMALL.model_copy(update={"checkpoints": 1})
    trained = [
        contrastive.build(config).train(view)
        for view in (single, replace(single, oracle=oracle, draws=4))
    ]
    assert oracle.queries == 4 * (len(single.train) + len(single.validation))
    assert [t.report["draws"] for t in trained] == [1, 4]
    precision = [t.report["validation"]["mean_average_precision"] for t in trained]
    assert precision[1] > precision[0] + 0.08


# --- search ----------------------------------------------------------------------------------


def test_the_grid_begins_with_what_was_set() -> None:
    """18 different candidates; the first as set, the next five differ in one respect."""
    config = ContrastiveConfig(search=18, temperature=0.2, erase=0.8)
    made = search.grid(config)
    assert made[0] == config
    assert len({candidate.model_dump_json() for candidate in made}) == 18
    assert {c.temperature for c in made} == {0.1, 0.2, 0.4}
    assert {c.erase for c in made} == {0.4, 0.8, 1.0}
    assert search.grid(ContrastiveConfig()) == (ContrastiveConfig(),)
    for c in made[1:6]:
        changed = (c.temperature != 0.2, c.scale != config.scale, c.hardness != 0)
        assert sum(changed) == 1


@pytest.mark.parametrize(
    ("candidates", "expected", "total"),
    [
        (1, [(1, 400)], 400),
        (2, [(2, 100), (1, 400)], 500),
        (6, [(6, 25), (3, 50), (2, 100), (1, 400)], 625),
        (8, [(8, 25), (4, 50), (2, 100), (1, 400)], 700),
    ],
)
def test_rungs_halve(candidates: int, expected: list[tuple[int, int]], total: int) -> None:
    """Who trains up to which step, worked out by hand, and the steps that it takes in all."""
    plan = search.rungs(candidates, 400)
    assert [(r.candidates, r.step) for r in plan] == expected
    assert search.total(plan) == total


class Counter:
    """Counts steps."""

    steps = 0

    def advance(self, n: int = 1) -> None:
        """Count."""
        self.steps += n


@cache
def leaking(count: int, first: int) -> Pairs:
    """Photos and what the anonymizer with a leak makes of them."""
    photos = people(count, 4, first)
    return make_pairs(photos, [released(photos, keep_stripe)], 32, torch.device("cpu"))


def training_of(config: ContrastiveConfig) -> Training:
    """A training of fresh towers on a leaking anonymizer, with a judge."""
    embedder = Embedder(create(config, 0).eval(), torch.device("cpu"), False, 64)
    judge = Judge(embedder, leaking(10, 1000), torch.arange(10).repeat_interleave(4))
    return Training(config, 5, leaking(40, 0), judge)


def test_a_pause_changes_nothing() -> None:
    """Trained in one go or paused and judged in between: the same weights, bit for bit."""
    config = SMALL.model_copy(update={"steps": 6, "checkpoints": 1})
    whole, parts = training_of(config), training_of(config)
    whole.advance(6, Counter())
    for stop in (2, 3, 6):
        parts.advance(stop, Counter())
    states = [t.judge.embedder.towers.state_dict() for t in (whole, parts)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [entry["step"] for entry in parts.history] == [0, 2, 3, 6]
    assert parts.history[-1]["rank1"] == whole.history[-1]["rank1"]


def test_halving_keeps_what_validation_likes() -> None:
    """Among candidates that cannot learn, the one that can trains to the end; steps are those
    planned."""
    configs = [SMALL.model_copy(update={"learning_rate": rate}) for rate in (1e-9, 2e-3, 1e-8)]
    task = Counter()
    plan = (search.Rung(3, 15), search.Rung(2, 20), search.Rung(1, 30))
    winner, notes = search.halving(configs, training_of, plan, task)
    assert winner.config is configs[1]
    assert sorted(note["steps"] for note in notes) == [15, 20, 30]
    assert notes[1]["steps"] == 30
    assert task.steps == search.total(plan) == 3 * 15 + 2 * 5 + 10
    assert notes[1]["mean_average_precision"] == winner.history[-1]["mean_average_precision"]


def test_a_search_is_reported() -> None:
    """Each candidate, how far it came and its validation quality are in the report; the winner
    went to the end, and the attack works."""
    config = SMALL.model_copy(update={"search": 2})
    trained = contrastive.build(config).train(view_of(CountingOracle(keep_stripe)))
    report = json.loads(json.dumps(trained.report))
    assert report["steps"] == search.total(search.rungs(2, 40)) == 2 * 10 + 30
    assert len(report["candidates"]) == 2
    (winner,) = [c for c in report["candidates"] if c["steps"] == 40]
    assert winner["mean_average_precision"] == report["history"][-1]["mean_average_precision"]
    assert all(c["mean_average_precision"] >= 0 for c in report["candidates"])
    assert rank1(trained, keep_stripe) > 0.9


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
