"""Black-box attacks on membership: what they learn from, what they choose on, what they say."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

import tiny_models
from privbench.errors import ModelError, PluginError
from privbench.membership import LabelledBaseline, MembershipAttack, MembershipView, Own
from privbench.progress import Silent
from privbench.registry import load_registry
from privbench.spec import NoConfig, PluginSpec
from privbench.types import UNKNOWN, ImageSet, quantize
from privbench_plugins.attacks.membership import (
    blind,
    generated,
    guess,
    nearest,
    regeneration,
    zero_shot,
)
from privbench_plugins.attacks.membership._generated import held_out, split
from privbench_plugins.attacks.membership._nearest import Pixels
from privbench_plugins.attacks.membership._nearest import nearest as distances
from privbench_plugins.attacks.membership.generated import GeneratedConfig
from privbench_plugins.datasets.synthfaces import SynthfacesConfig
from privbench_plugins.datasets.synthfaces import build as open_synthfaces

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SPECS = [m.SPECS[0] for m in (generated, zero_shot, nearest, regeneration, blind, guess)]


@pytest.fixture(scope="module")
def campuses() -> dict[str, ImageSet]:
    """60 people of each campus, two photos of each, as they ship."""
    faces = open_synthfaces(SynthfacesConfig(path=""))
    found = {}
    for name in ("campus-a", "campus-b"):
        rows = np.flatnonzero(faces.population == name)
        rows = rows[np.isin(rows % 10, (0, 5))][:120]
        keys = tuple(faces.keys[i] for i in rows)
        found[name] = ImageSet(faces.pixels(rows), faces.subject[rows], keys)
    return found


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> GeneratedConfig:
    """The paper's attack with a ResNet of few channels: a second or two."""
    from transformers import ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("resnet")
    shape = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"
    )
    torch.manual_seed(0)
    ResNetForImageClassification(shape).save_pretrained(folder)
    return GeneratedConfig(
        backbone=str(folder), seeds=2, side=32, epochs=3, batch=16, score_batch=16, dtype="float32"
    )


@pytest.fixture(scope="module")
def a(campuses: dict[str, ImageSet]) -> ImageSet:
    """Campus a."""
    return campuses["campus-a"]


@pytest.fixture(scope="module")
def b(campuses: dict[str, ImageSet]) -> ImageSet:
    """Campus b."""
    return campuses["campus-b"]


def part(images: ImageSet, first: int, last: int) -> ImageSet:
    """Some of the images; people are not shared between even borders."""
    return images.take(np.arange(first, last))


def anonymous(images: ImageSet) -> ImageSet:
    """What a model releases: nobody is known."""
    return replace(images, subject=np.full(len(images), UNKNOWN))


def view(samples: ImageSet, negatives: ImageSet, seed: int = 3, **changes: Any) -> MembershipView:
    """An attacker whose own samples, of either kind, and photos are the negatives."""
    return replace(
        MembershipView(
            anonymous(samples), negatives, negatives, lambda kind: anonymous(negatives), None,
            None, seed, CPU, Silent(),
        ),
        **changes,
    )  # fmt: skip


def auc(
    attack: MembershipAttack, given: MembershipView, members: ImageSet, rest: ImageSet
) -> float:
    """Area under the ROC curve on queries."""
    trained = attack.train(given)
    scores = torch.cat([trained.score(members), trained.score(rest)])
    label = np.arange(len(scores)) < len(members)
    return float(roc_auc_score(label, scores))


def numbered(pixels: Tensor) -> ImageSet:
    """Images of nobody known."""
    keys = tuple(map(str, range(len(pixels))))
    return ImageSet(pixels, np.full(len(pixels), UNKNOWN), keys)


def same(pixels: ImageSet, prompts: Sequence[str], seeds: Sequence[int]) -> ImageSet:
    """Answers that are drawn from a set of images by their seeds."""
    return numbered(pixels.pixels[[seed % len(pixels) for seed in seeds]])


class Library:
    """A target that answers with whichever photo it has learnt for a prompt, or any other."""

    def __init__(self, learnt: ImageSet, others: ImageSet) -> None:
        config = regeneration.RegenerationConfig()
        captions = regeneration_captions(learnt)
        self.learnt = {config.prompt.replace("{caption}", c): i for i, c in enumerate(captions)}
        self.photos, self.others = learnt, others
        self.asked: list[tuple[str, int]] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> ImageSet:
        """See `MembershipView.generate`."""
        self.asked += zip(prompts, seeds, strict=True)
        found = [
            self.photos.pixels[self.learnt[prompt]]
            if prompt in self.learnt
            else self.others.pixels[seed % len(self.others)]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return numbered(torch.stack(found))


def regeneration_captions(images: ImageSet) -> list[str]:
    """What the embedded captioner says."""
    from privbench_plugins.attacks.membership._regeneration import load_captions

    captioner = load_captions("tiny-captioner", CPU)
    return captioner.captions(images.pixels.permute(0, 2, 3, 1).contiguous().numpy())


def learners(
    library: Library, fast: GeneratedConfig
) -> dict[str, tuple[MembershipAttack, dict[str, Any]]]:
    """Every attack that is asked about queries, and what its view needs."""
    return {
        "mia-generated": (generated.build(fast), {}),
        "mia-zero-shot": (zero_shot.build(zero_shot.ZeroShotConfig(batch=16)), {}),
        "mia-nearest": (nearest.build(nearest.NearestConfig()), {}),
        "mia-regeneration": (
            regeneration.build(regeneration.RegenerationConfig(batch=16)),
            {"generate": library},
        ),
        "mia-random": (guess.build(NoConfig()), {}),
    }


NAMES = ("mia-generated", "mia-zero-shot", "mia-nearest", "mia-regeneration", "mia-random")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_an_attack_says_what_it_is(spec: PluginSpec) -> None:
    """Each is registered, declares a threat model, hashes its files, and builds from `smoke`."""
    assert any(p.spec is spec for p in load_registry().of_kind("attack"))
    config = spec.config(**spec.smoke)
    built = spec.build(config)
    labels = spec.tags.infers == "labels"
    assert isinstance(built, LabelledBaseline) == labels == (spec.id == "mia-blind")
    files = spec.weights(config) if spec.weights else {}
    assert all(len(sha) == 64 for sha in files.values())
    assert spec.tags.knowledge == ("none" if spec.tags.control else "black-box")


@pytest.mark.parametrize("name", ["mia-generated", "mia-zero-shot"])
def test_an_attack_learns_what_the_target_generates(
    name: str, a: ImageSet, b: ImageSet, fast: GeneratedConfig
) -> None:
    """Samples of campus a against photos of campus b: new people of campus a score higher."""
    attack, _ = learners(Library(a, b), fast)[name]
    given = view(part(a, 0, 80), part(b, 0, 80))
    assert auc(attack, given, part(a, 80, 120), part(b, 80, 120)) > 0.85


@pytest.mark.parametrize("name", ["mia-generated", "mia-zero-shot", "mia-random"])
def test_an_attack_without_a_signal_is_at_chance(
    name: str, a: ImageSet, b: ImageSet, fast: GeneratedConfig
) -> None:
    """Samples and negatives of the same people tell nothing about others of them."""
    attack, _ = learners(Library(a, b), fast)[name]
    given = view(part(a, 0, 40), part(a, 40, 80))
    assert 0.25 < auc(attack, given, part(a, 80, 100), part(a, 100, 120)) < 0.75


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_image_s_alone(
    name: str, a: ImageSet, b: ImageSet, fast: GeneratedConfig
) -> None:
    """One by one, in another order, under other keys or after another training of the same seed,
    scores are the same to the bit; nothing asked, nothing scored."""
    library = Library(a, b)
    attack, changes = learners(library, fast)[name]
    given = view(part(a, 0, 24), part(b, 0, 24), **changes)
    trained = attack.train(given)
    queries = part(a, 90, 109)
    whole = trained.score(queries)
    assert whole.shape == (19,)
    assert whole.is_floating_point()
    assert whole.isfinite().all()
    order = np.random.default_rng(0).permutation(19)
    renamed = replace(queries, keys=tuple(map(str, range(19))))
    assert torch.equal(trained.score(renamed.take(order)), whole[order])
    alone = [trained.score(queries.take([i])) for i in (0, 7, 18)]
    assert torch.equal(torch.cat(alone), whole[[0, 7, 18]])
    assert torch.equal(attack.train(given).score(queries), whole)
    assert trained.score(queries.take([])).shape == (0,)


def test_bfloat16_does_not_round_scores(a: ImageSet, b: ImageSet, fast: GeneratedConfig) -> None:
    """Scores that tie would blur low false-positive rates: hardly any do, and each is still the
    image's alone."""
    config = fast.model_copy(update={"dtype": "bfloat16", "seeds": 1})
    trained = generated.build(config).train(view(part(a, 0, 20), part(b, 0, 20)))
    whole = trained.score(b)
    assert len(set(whole.tolist())) == len(b)
    assert (whole.bfloat16().float() != whole).any()
    assert torch.equal(trained.score(b.take([5, 3])), whole[[5, 3]])


@pytest.mark.parametrize("name", ["mia-generated", "mia-random"])
def test_another_seed_is_another_attack(
    name: str, a: ImageSet, b: ImageSet, fast: GeneratedConfig
) -> None:
    """What is random comes from the view's seed, whatever the global generator holds."""
    attack, _ = learners(Library(a, b), fast)[name]
    scores: list[Tensor] = []
    for seed in (3, 3, 4):
        torch.rand(seed + len(scores))
        given = view(part(a, 0, 24), part(b, 0, 24), seed)
        scores.append(attack.train(given).score(part(a, 24, 40)))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_negatives_are_those_of_the_setting(a: ImageSet, b: ImageSet) -> None:
    """`real` are the attacker's photos; the others are asked for by name, and nothing else is."""
    asked: list[Own] = []

    def own(kind: Own) -> ImageSet:
        asked.append(kind)
        return anonymous(part(b, 0, 20))

    given = view(part(a, 0, 20), part(b, 20, 40), own=own)
    for negatives in ("real", "generated", "base-model"):
        zero_shot.build(zero_shot.ZeroShotConfig(negatives=negatives)).train(given)
    nearest.build(nearest.NearestConfig(calibrate="none")).train(given)
    nearest.build(nearest.NearestConfig()).train(given)
    assert asked == ["generated", "base-model", "generated"]


def test_the_epoch_is_the_best_on_what_was_held_out(
    a: ImageSet, b: ImageSet, fast: GeneratedConfig
) -> None:
    """Every attack model reports its epochs, is the one of lowest held-out cross-entropy, and its
    weights say so again; the held-out tenth is no part of training."""
    trained: Any = generated.build(fast).train(view(part(a, 0, 60), part(b, 0, 40)))
    report = trained.report
    assert report["train"] == {"positives": 54, "negatives": 36}
    assert report["held_out"] == {"positives": 6, "negatives": 4}
    assert len(report["seeds"]) == 2
    assert report["seeds"][0] != report["seeds"][1]
    for run in report["seeds"]:
        losses = [entry["held_out_cross_entropy"] for entry in run["history"]]
        assert [entry["epoch"] for entry in run["history"]] == [1, 2, 3]
        assert run["chosen_epoch"] == 1 + int(np.argmin(losses))


def test_the_weights_of_the_chosen_epoch_are_kept(fast: GeneratedConfig) -> None:
    """There is nothing to learn in noise, so later epochs only learn it by heart: the training
    ends as the shorter one that stops where it was best."""
    given = view(images_of(30, 0), images_of(30, 1))
    wild = fast.model_copy(update={"learning_rate": 0.01, "epochs": 6, "seeds": 1})
    long: Any = generated.build(wild).train(given)
    chosen = long.report["seeds"][0]["chosen_epoch"]
    assert chosen < 6
    short = generated.build(wild.model_copy(update={"epochs": chosen})).train(given)
    assert torch.equal(long.score(images_of(9, 2)), short.score(images_of(9, 2)))


def test_people_are_held_out_whole(b: ImageSet) -> None:
    """Where people are known, all photos of a person are on one side; elsewhere images are held
    out one by one, the same ones whatever their keys."""
    rows = held_out(b, 3)
    assert rows.sum() == 12
    assert not set(b.subject[rows]) & set(b.subject[~rows])
    unknown = anonymous(b)
    assert held_out(unknown, 3).sum() == 12
    renamed = replace(unknown, keys=tuple(map(str, range(len(b)))))
    assert np.array_equal(held_out(unknown, 3), held_out(renamed, 3))
    assert not np.array_equal(held_out(unknown, 3), held_out(unknown, 4))
    assert held_out(part(b, 0, 2), 3).sum() == 1


def test_what_chooses_teaches_nothing() -> None:
    """Each image is on one side, under its own class."""
    samples, negatives = images_of(30, 0), images_of(20, 1)
    parts = split(samples, negatives, 16, 3)
    found = [
        (image.numpy().tobytes(), int(label))
        for side in parts
        for image, label in zip(side.pixels, side.label, strict=True)
    ]
    expected = [(image.numpy().tobytes(), 1) for image in samples.pixels]
    expected += [(image.numpy().tobytes(), 0) for image in negatives.pixels]
    assert sorted(found) == sorted(expected)
    assert [len(side.label) for side in parts] == [45, 5]


def test_resnet_18_is_resnet_18(a: ImageSet, b: ImageSet, fast: GeneratedConfig) -> None:
    """11.2 million parameters, two classes; trains, and is not asked for files."""
    config = fast.model_copy(update={"backbone": "resnet-18", "epochs": 1, "seeds": 1, "side": 32})
    assert not generated.weights(config)
    trained = generated.build(config).train(view(part(a, 0, 24), part(b, 0, 24)))
    # 11,689,512 with 1000 classes (He et al. 2016, as torchvision counts them).
    assert trained.report["parameters"] == 11_689_512 - 513 * 1000 + 513 * 2
    assert trained.score(part(a, 24, 30)).isfinite().all()


def images_of(count: int, seed: int, size: int = 16) -> ImageSet:
    """Noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return numbered(pixels)


def test_the_nearest_distance_is_scikit_learn_s() -> None:
    """Over more rows than a block holds, and with an exact copy, whose distance is exactly 0."""
    rows, others = (
        torch.rand(n, 12, generator=torch.Generator().manual_seed(n)) for n in (600, 70)
    )
    rows[5] = others[40]
    found = distances(rows, others)
    expected, _ = NearestNeighbors(n_neighbors=1).fit(others.double()).kneighbors(rows.double())
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)
    assert found[5] == 0


def test_what_was_copied_is_found() -> None:
    """A target that gives training images back gives them away, at any noise of the copy that is
    smaller than the difference between images; calibration is the plain difference."""
    private, others, reference = (images_of(n, n) for n in (20, 30, 25))
    noise = 8 * torch.randn(private.pixels.shape, generator=torch.Generator().manual_seed(0))
    copies = replace(private, pixels=quantize((private.pixels + noise) / 255))
    given = view(copies, reference)
    space = Pixels(16)
    for calibrate in ("none", "generated"):
        config = nearest.NearestConfig(calibrate=calibrate, side=16)
        trained = nearest.build(config).train(given)
        assert auc(nearest.build(config), given, private, others) == 1
        near = distances(space(others.pixels), space(copies.pixels))
        far = distances(space(others.pixels), space(reference.pixels))
        expected = -near if calibrate == "none" else far - near
        assert torch.equal(trained.score(others), expected)


def test_a_distance_of_pixels_is_a_root_mean_square() -> None:
    """Black and white images are 1 apart at any size."""
    black, white = (torch.full((1, 3, 9, 12), v, dtype=torch.uint8) for v in (0, 255))
    space = Pixels(8)
    assert float(distances(space(black), space(white))) == pytest.approx(1)


@pytest.mark.parametrize("similarity", ["mean", "max"])
def test_what_is_regenerated_is_found(similarity: Any, a: ImageSet) -> None:
    """A target that answers a caption with the photo that it has learnt gives it away; each query
    costs `answers` answers, of different seeds, under its own caption."""
    members, rest, others = part(a, 0, 20), part(a, 40, 60), part(a, 80, 120)
    target = Library(members, others)
    config = regeneration.RegenerationConfig(similarity=similarity, answers=3)
    given = view(others, others, generate=target)
    assert auc(regeneration.build(config), given, members, rest) > 0.85
    assert len(target.asked) == 3 * 40
    assert len({seed for _, seed in target.asked}) == 3 * 40
    assert target.asked[0][0] == f"office portrait, {regeneration_captions(members)[0]}"


def test_mean_and_maximum_of_answers(a: ImageSet) -> None:
    """One answer is both; of several, the maximum is no smaller."""

    def ask(similarity: Any, answers: int) -> Tensor:
        config = regeneration.RegenerationConfig(similarity=similarity, answers=answers)
        given = view(a, a, generate=lambda prompts, seeds: same(part(a, 40, 80), prompts, seeds))
        return regeneration.build(config).train(given).score(part(a, 0, 10))

    assert torch.allclose(ask("mean", 1), ask("max", 1))
    assert (ask("max", 3) > ask("mean", 3)).all()


def test_released_images_answer_no_prompts(a: ImageSet) -> None:
    """Without a model to ask, regeneration says what to do instead."""
    with pytest.raises(PluginError, match=r"only released images.*mia-nearest"):
        regeneration.build(regeneration.RegenerationConfig()).train(view(a, a))


def test_a_prompt_takes_the_caption() -> None:
    """Otherwise every query would be asked for in the same words."""
    with pytest.raises(ValueError, match=r"must hold \{caption\}"):
        regeneration.RegenerationConfig(prompt="office portrait")


@pytest.mark.parametrize("module", [generated, zero_shot])
def test_too_few_images_are_refused(module: Any, a: ImageSet) -> None:
    """One sample or one negative cannot be split, and is no distribution."""
    attack = module.build(module.SPECS[0].config())
    for samples, negatives in ((1, 9), (9, 1)):
        with pytest.raises(PluginError, match="needs two"):
            attack.train(view(part(a, 0, samples), part(a, 0, negatives)))


def test_nothing_to_be_near_to_is_refused(a: ImageSet) -> None:
    """No sample, or none to calibrate with."""
    for samples, reference in ((0, 3), (3, 0)):
        given = view(part(a, 0, samples), part(a, 0, reference))
        with pytest.raises(PluginError, match="got none"):
            nearest.build(nearest.NearestConfig()).train(given)


def test_the_blind_baseline_tells_populations_apart(a: ImageSet, b: ImageSet) -> None:
    """Members of one campus and others of the next need no target to be told apart; two random
    halves of one campus cannot be."""
    baseline = blind.build(blind.BlindConfig())

    def learnt(members: ImageSet, rest: ImageSet, unseen: ImageSet, others: ImageSet) -> float:
        pixels = torch.cat([members.pixels, rest.pixels])
        subject = np.concatenate([members.subject, rest.subject])
        shown = ImageSet(pixels, subject, (*members.keys, *rest.keys))
        trained = baseline.learn(shown, np.arange(len(shown)) < len(members), 0, CPU)
        scores = torch.cat([trained.score(unseen), trained.score(others)])
        return float(roc_auc_score(np.arange(len(scores)) < len(unseen), scores))

    assert learnt(part(a, 0, 80), part(b, 0, 80), part(a, 80, 120), part(b, 80, 120)) > 0.9
    assert (
        0.25 < learnt(part(a, 0, 40), part(a, 40, 80), part(a, 80, 100), part(a, 100, 120)) < 0.75
    )


def test_the_blind_baseline_sees_a_mark_in_a_corner(a: ImageSet) -> None:
    """A visible mark is what it is: no membership."""
    marked = a.pixels.clone()
    marked[:60, :, 4:20, -20:-4] = 255
    images = replace(a, pixels=marked)
    member = np.arange(len(a)) < 60
    unseen = np.arange(120) % 8 >= 6
    rest = np.flatnonzero(~unseen)
    trained = blind.build(blind.BlindConfig()).learn(images.take(rest), member[rest], 0, CPU)
    rows = np.flatnonzero(unseen)
    scores = trained.score(images.take(rows))
    assert roc_auc_score(member[rows], scores) > 0.95
    alone = torch.cat([trained.score(images.take([i])) for i in rows[:3]])
    assert torch.equal(alone, scores[:3])
    assert trained.score(images.take([])).shape == (0,)


def test_one_class_teaches_nothing(a: ImageSet) -> None:
    """Members alone are refused."""
    with pytest.raises(PluginError, match="members and others; got 120 members among 120"):
        blind.build(blind.BlindConfig()).learn(a, np.ones(len(a), np.bool_), 0, CPU)


def clip_folder(folder: Path, kind: str) -> Path:
    """A CLIP of a few thousand random weights."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    seen = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=12,
    )  # fmt: skip
    torch.manual_seed(0)
    if kind == "whole":
        text = tiny_models.text_config(64)
        model: Any = CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=seen.to_dict(), projection_dim=12)
        )
    else:
        model = CLIPVisionModelWithProjection(seen)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["whole", "vision"])
def test_clip_is_embedded_as_transformers_does(kind: str, a: ImageSet, tmp_path: Path) -> None:
    """A CLIP folder gives projected features, those of transformers itself, for any attack."""
    from transformers import CLIPVisionModelWithProjection

    from privbench_plugins.attacks.membership._embedders import load_embedding
    from privbench_plugins.attacks.recogniser_models import preprocessing

    folder = clip_folder(tmp_path / "clip", kind)
    pixels = a.pixels[:5]
    prepare = preprocessing(folder, 32)
    model = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    with torch.no_grad():
        raw = model(pixel_values=prepare.normalised(prepare.resized(pixels))).image_embeds
    expected = torch.nn.functional.normalize(raw)
    torch.testing.assert_close(load_embedding(str(folder), 4, CPU)(pixels), expected)
    config = zero_shot.ZeroShotConfig(backbone=str(folder))
    assert len(zero_shot.weights(config)) == 2
    trained = zero_shot.build(config).train(view(part(a, 0, 4), part(a, 4, 8)))
    assert trained.score(part(a, 8, 12)).shape == (4,)


def test_a_classifier_can_start_from_the_encoder(
    a: ImageSet, b: ImageSet, fast: GeneratedConfig
) -> None:
    """The embedded encoder with a new head tells the campuses apart after one epoch."""
    config = fast.model_copy(
        update={"backbone": "tiny-encoder", "epochs": 1, "seeds": 1, "side": 80, "batch": 8}
    )
    assert len(generated.weights(config)) == 2
    given = view(part(a, 0, 40), part(b, 0, 40))
    assert auc(generated.build(config), given, part(a, 100, 120), part(b, 100, 120)) > 0.8


def test_a_folder_must_hold_safetensors(fast: GeneratedConfig, tmp_path: Path) -> None:
    """Two files are hashed; pickles are refused, and so is a name that is nothing."""
    assert len(generated.weights(fast)) == 2
    shutil.copytree(fast.backbone, tmp_path / "resnet")
    (tmp_path / "resnet" / "model.safetensors").rename(tmp_path / "resnet" / "model.bin")
    for name, reason in ((str(tmp_path / "resnet"), "pickled"), ("resnet-81", "no model")):
        with pytest.raises(ModelError, match=reason):
            generated.weights(fast.model_copy(update={"backbone": name}))
