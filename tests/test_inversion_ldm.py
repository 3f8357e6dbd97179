"""`inversion-ldm`: what it trains, and what its reconstructions depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import tiny_models
from privbench.errors import ModelError, PluginError
from privbench.progress import Silent
from privbench.types import AttackerView, ImageSet, Oracle
from privbench_plugins.attacks.inversion import _ldm
from privbench_plugins.attacks.inversion._ldm_training import Training
from privbench_plugins.attacks.inversion.ldm import SPECS, LdmInversionConfig
from privbench_plugins.attacks.inversion.pairs import Pairs

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIDE = 24
STEPS = 20


class Pixelation:
    """An oracle: blocks of four pixels, in a shade of each draw's own."""

    queries = 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Released images of the same keys."""
        self.queries += len(images)
        blocks = images.pixels[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)
        return ImageSet(blocks // (draw + 1), images.subject, images.keys)


def photos(people: int, each: int = 3, height: int = SIDE, width: int = SIDE) -> ImageSet:
    """Smooth noise."""
    generator = torch.Generator().manual_seed(people)
    small = torch.rand(people * each, 3, 6, 6, generator=generator)
    pixels = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    keys = tuple(f"{people}-{i}" for i in range(people * each))
    return ImageSet((pixels * 255).to(torch.uint8), np.arange(people * each) // each, keys)


def view(oracle: Oracle | None, draws: int = 1, **size: int) -> AttackerView:
    """Four people to train on and two to choose on."""
    return AttackerView(photos(4, **size), photos(2, **size), oracle, 5, CPU, Silent(), draws)


def release(images: ImageSet, draw: int = 0) -> ImageSet:
    """What the oracle makes of probes."""
    return Pixelation()(images, draw)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable-Diffusion-like model that predicts noise, and a ControlNet for it."""
    root = tmp_path_factory.mktemp("inversion")
    pipe = tiny_models.pipeline("kl")
    scheduler = diffusers.PNDMScheduler(prediction_type="epsilon", skip_prk_steps=True)
    pipe.register_modules(scheduler=scheduler)
    pipe.save_pretrained(root / "model")
    tiny_models.controlnet(pipe.unet).save_pretrained(root / "controlnet")
    return root


def settings(folder: Path, **changes: Any) -> LdmInversionConfig:
    """A few steps on the small model."""
    options: dict[str, Any] = {
        "model": str(folder / "model"),
        "start": str(folder / "controlnet"),
        "steps": 3,
        "batch": 4,
        "checkpoints": 1,
        "samples": 2,
        "denoising_steps": 2,
        "invert_batch": 4,
        "dtype": "float32",
    }
    return LdmInversionConfig(**(options | changes))


@pytest.fixture(scope="module")
def trained(folder: Path) -> _ldm.TrainedLdmInversion:
    """The attack on pixelation, trained for a few steps."""
    return _ldm.LdmInversion(settings(folder)).train(view(Pixelation()))


def held(folder: Path, **changes: Any) -> tuple[Any, Training]:
    """A model, and the training of a ControlNet for it on twelve pairs."""
    config = settings(folder, steps=STEPS, batch=12, **changes)
    model, network = _ldm.load(config, CPU)
    clear = photos(4)
    pairs = Pairs(clear.pixels, release(clear).pixels[None], clear.subject)
    return model, Training(config, model, network, pairs, 5)


@pytest.mark.parametrize("start", ["controlnet", ""])
def test_training_lowers_the_loss_and_changes_the_controlnet_alone(
    folder: Path, start: str
) -> None:
    """The loss of a fixed batch sinks; the frozen networks keep every bit."""
    model, training = held(folder, start=start and str(folder / start), learning_rate=3e-3)
    frozen = {**model.unet.state_dict(), **model.vae.state_dict()}
    before = {name: value.clone() for name, value in frozen.items()}
    network = {name: value.clone() for name, value in training.network.state_dict().items()}
    lesson = training.lesson()
    with torch.no_grad():
        first = float(training.loss(lesson))
    for _ in range(STEPS):
        training.advance()
    with torch.no_grad():
        assert float(training.loss(lesson)) < first
    assert all(torch.equal(value, before[name]) for name, value in frozen.items())
    state = training.network.state_dict()
    assert any(not torch.equal(value, network[name]) for name, value in state.items())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_amounts_to_the_photo(folder: Path, kind: str) -> None:
    """Whatever the model predicts, the clean latents come out of it."""
    _, training = held(folder)
    training.schedule.register_to_config(prediction_type=kind)
    lesson = training.lesson()
    noisy = training.schedule.add_noise(lesson.latents, lesson.noise, lesson.times)
    clean = training.clean(noisy, training.target(lesson), lesson.times)
    torch.testing.assert_close(clean, lesson.latents, atol=1e-4, rtol=1e-4)


def test_identity_is_asked_for_where_noise_hides_it(folder: Path) -> None:
    """The term adds to the loss of noisy samples, and to that of no other."""
    _, plain = held(folder, identity=0)
    _, asking = held(folder, identity=0.5)
    lesson = plain.lesson()
    with torch.no_grad():
        for level, adds in ((100, False), (900, True)):
            same = replace(lesson, times=torch.full_like(lesson.times, level))
            assert (float(asking.loss(same)) > float(plain.loss(same))) is adds


def test_a_training_can_be_repeated(folder: Path, trained: _ldm.TrainedLdmInversion) -> None:
    """The same seed gives the same history and the same reconstructions."""
    again = _ldm.LdmInversion(settings(folder)).train(view(Pixelation()))
    probes = release(photos(3))
    assert again.report == trained.report
    assert torch.equal(again.invert([probes]), trained.invert([probes]))


def test_a_reconstruction_depends_on_its_release_alone(trained: _ldm.TrainedLdmInversion) -> None:
    """Neither the batch nor the order nor the keys change it; samples differ from each other."""
    probes = release(photos(3))
    whole = trained.invert([probes])
    assert whole.shape == (9, 2, 3, SIDE, SIDE)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    order = np.random.default_rng(0).permutation(9)[:5]
    some = probes.take(order)
    renamed = ImageSet(some.pixels, some.subject, tuple("abcde"))
    assert torch.equal(trained.invert([renamed]), whole[torch.from_numpy(order)])
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_every_sample_of_every_draw_is_given(folder: Path) -> None:
    """Two draws are asked for, trained on and inverted, each as often as one."""
    oracle = Pixelation()
    attack = _ldm.LdmInversion(settings(folder, steps=2)).train(view(oracle, draws=2))
    assert oracle.queries == attack.report["queries"] == 2 * (12 + 6)
    draws = [release(photos(3), draw) for draw in (0, 1)]
    both = attack.invert(draws)
    assert both.shape[:2] == (9, 4)
    assert torch.equal(both[:, 2:], attack.invert(draws[1:]))


def test_the_best_checkpoint_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the start and two checkpoints the one that validation likes best paints."""
    probes, painted = release(photos(1)), []
    config = settings(folder, steps=2, checkpoints=2, learning_rate=0.1)
    for best in range(3):
        liked = iter(float(step == best) for step in range(3))
        monkeypatch.setattr(_ldm.OwnJudge, "similarity", lambda judge, pixels: next(liked))  # noqa: B023
        attack = _ldm.LdmInversion(config).train(view(Pixelation()))
        assert [entry["step"] for entry in attack.report["history"]] == [0, 1, 2]
        assert attack.report["chosen_step"] == best
        painted.append(attack.invert([probes]))
    assert not any(torch.equal(painted[i], painted[i - 1]) for i in range(3))


def test_photographs_of_any_size_come_back_at_theirs(folder: Path) -> None:
    """Neither square nor of the model's resolution, at a resolution of choice."""
    config = settings(folder, steps=1, resolution=16, samples=1)
    attack = _ldm.LdmInversion(config).train(view(Pixelation(), height=28, width=20))
    assert attack.report["resolution"] == 16
    probes = release(photos(1, height=28, width=20))
    assert attack.invert([probes]).shape == (3, 1, 3, 28, 20)


def test_without_an_oracle_it_refuses(folder: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(PluginError, match="needs the oracle"):
        _ldm.LdmInversion(settings(folder)).train(view(None))


def test_random_weights_are_refused() -> None:
    """A model for timing alone cannot paint."""
    with pytest.raises(ModelError, match="random weights"):
        _ldm.LdmInversion(LdmInversionConfig(model="random:sd15")).train(view(Pixelation()))


def test_every_weight_file_is_named(folder: Path) -> None:
    """Of the model, of the ControlNet if there is one, and of the attacker's encoder."""
    spec = SPECS[0]
    assert spec.weights is not None
    parts = {name.split("/")[0] for name in spec.weights(settings(folder))}
    assert parts == {"model", "controlnet", "tiny-encoder"}
    parts = {name.split("/")[0] for name in spec.weights(settings(folder, start=""))}
    assert parts == {"model", "tiny-encoder"}


def test_it_trains_the_embedded_model() -> None:
    """The smoke settings run on `tiny-faces`, whose model predicts velocities."""
    config = LdmInversionConfig(**SPECS[0].smoke)
    attack = SPECS[0].build(config).train(view(Pixelation()))
    assert all(np.isfinite(entry["similarity"]) for entry in attack.report["history"])
    assert attack.invert([release(photos(1))]).shape == (3, 2, 3, SIDE, SIDE)
