"""`inversion-unet`: what it learns, and what its reconstructions depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from privbench.errors import PluginError
from privbench.progress import Silent
from privbench.types import AttackerView, ImageSet, Oracle, quantize
from privbench_plugins.attacks.inversion import _unet
from privbench_plugins.attacks.inversion._unet_net import Unet
from privbench_plugins.attacks.inversion._unet_training import Losses, Training, features
from privbench_plugins.attacks.inversion.choice import encoder_folder
from privbench_plugins.attacks.inversion.pairs import Pairs
from privbench_plugins.attacks.inversion.unet import SPECS, UnetInversionConfig
from privbench_plugins.tiny_encoder import net

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIDE = 32


class Blur:
    """An oracle: a mean over 5 x 5 pixels, a little darker in each further draw."""

    queries = 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """Released images of the same keys."""
        self.queries += len(images)
        padded = F.pad(images.pixels.float(), (2, 2, 2, 2), "replicate")
        blurred = F.avg_pool2d(padded, 5, 1) * (1 - 0.2 * draw)
        return ImageSet(blurred.to(torch.uint8), images.subject, images.keys)


def photos(people: int, each: int = 3, height: int = SIDE, width: int = SIDE) -> ImageSet:
    """Coarse noise with edges."""
    generator = torch.Generator().manual_seed(people)
    small = torch.rand(people * each, 3, 8, 8, generator=generator)
    pixels = F.interpolate(small, (height, width), mode="nearest")
    keys = tuple(f"{people}-{i}" for i in range(people * each))
    return ImageSet(quantize(pixels), np.arange(people * each) // each, keys)


def view(oracle: Oracle | None, draws: int = 1, seed: int = 5, **size: int) -> AttackerView:
    """Four people to train on and two to choose on."""
    return AttackerView(photos(4, **size), photos(2, **size), oracle, seed, CPU, Silent(), draws)


def settings(**changes: Any) -> UnetInversionConfig:
    """A few steps of a small network."""
    options: dict[str, Any] = {
        "width": 16,
        "depth": 1,
        "steps": 3,
        "batch": 4,
        "checkpoints": 1,
        "invert_batch": 4,
        "dtype": "float32",
    }
    return UnetInversionConfig(**(options | changes))


def trained(
    oracle: Oracle, draws: int = 1, seed: int = 5, **changes: Any
) -> _unet.TrainedUnetInversion:
    """The attack on an oracle."""
    return _unet.UnetInversion(settings(**changes)).train(view(oracle, draws, seed))


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean PSNR of images in [0, 1]."""
    return float(-10 * (a - b).square().mean((1, 2, 3)).log10().mean())


def training_of(config: UnetInversionConfig, network: Unet, draws: int = 1) -> Training:
    """A training on twelve blurred photos."""
    clear = photos(4)
    released = torch.stack([Blur()(clear, k).pixels for k in range(draws)])
    losses = Losses(net.load(encoder_folder()).requires_grad_(False), config)
    pairs = Pairs(clear.pixels, released, clear.subject)
    return Training(config, network, losses, pairs, SIDE, 5, False, CPU)


def test_untrained_it_returns_the_release() -> None:
    """So that step 0 stands for not inverting at all."""
    probes = Blur()(photos(2))
    made = trained(Blur(), steps=0).invert([probes])
    assert torch.equal(quantize(made[:, 0]), probes.pixels)


def test_it_learns_a_handful_of_pairs_by_heart() -> None:
    """Twelve blurred photos become far sharper than their releases."""
    config = settings(steps=80, learning_rate=5e-3, perceptual=0.0, identity=0.0, batch=12)
    network = _unet.create(config, 5)
    training = training_of(config, network)
    for _ in range(config.steps):
        training.advance()
    clear = photos(4)
    restored = _unet.Restorer(network.eval(), SIDE, 4, CPU, False)(Blur()(clear).pixels)
    before = decibels(Blur()(clear).floats(), clear.floats())
    assert decibels(restored, clear.floats()) > before + 3


@pytest.mark.parametrize("part", ["reconstruction", "perceptual", "identity"])
def test_each_loss_can_be_lowered_alone(part: str) -> None:
    """With the other two switched off, the mean over an epoch sinks."""
    off = dict.fromkeys(("reconstruction", "perceptual", "identity"), 0.0)
    config = settings(**(off | {part: 1.0}), steps=12, batch=12)
    training = training_of(config, _unet.create(config, 5))
    values = [training.advance() for _ in range(12)]
    assert np.mean(values[-3:]) < np.mean(values[:3])


def test_losses_of_the_original_are_nought() -> None:
    """All three measure what is missing, and only that."""
    losses = Losses(net.load(encoder_folder()).requires_grad_(False), settings())
    clear = photos(2).floats()
    assert float(losses(clear, clear)) == pytest.approx(0, abs=1e-5)
    assert float(losses(1 - clear, clear)) > 0.1


def test_features_are_those_of_each_stage() -> None:
    """Finest first, each half as fine as the one before; no hook stays behind."""
    encoder = net.load(encoder_folder())
    maps, rows = features(encoder, photos(1).floats())
    assert [m.shape[1:] for m in maps] == [(64, 20, 20), (96, 10, 10), (128, 5, 5)]
    assert rows.shape == (3, 128)
    assert not any(block._forward_hooks for block in encoder.body)


def test_pairs_are_mirrored_together() -> None:
    """Whatever the network sees is the blur of what it shall say, and both sides occur."""
    config = settings(batch=12)
    released, clear = training_of(config, _unet.create(config, 0))._batch()
    source = photos(4).floats()
    found = {bool((image == source).all(dim=(1, 2, 3)).any()) for image in clear}
    assert found == {True, False}
    both = ImageSet(quantize(clear), np.arange(12), tuple(map(str, range(12))))
    # Sums of mirrored rows are added in another order, so a byte may round to the other side.
    difference = Blur()(both).pixels.int() - quantize(released).int()
    assert int(difference.abs().max()) <= 1


def test_a_training_can_be_repeated() -> None:
    """The same seed gives the same report and reconstructions; another seed gives others."""
    first, again, other = (trained(Blur(), seed=seed) for seed in (5, 5, 6))
    probes = Blur()(photos(3))
    assert first.report == again.report
    assert torch.equal(first.invert([probes]), again.invert([probes]))
    assert not torch.equal(first.invert([probes]), other.invert([probes]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reconstruction_depends_on_its_release_alone(dtype: str) -> None:
    """Neither the batch nor the order nor the keys change it."""
    attack, probes = trained(Blur(), dtype=dtype), Blur()(photos(3))
    whole = attack.invert([probes])
    assert whole.shape == (9, 1, 3, SIDE, SIDE)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    order = np.random.default_rng(0).permutation(9)[:5]
    some = probes.take(order)
    renamed = ImageSet(some.pixels, some.subject, tuple("abcde"))
    assert torch.equal(attack.invert([renamed]), whole[torch.from_numpy(order)])


def test_every_draw_is_asked_for_and_inverted() -> None:
    """Two draws cost twice the queries and give two reconstructions, each as if alone."""
    oracle = Blur()
    attack = trained(oracle, draws=2)
    assert oracle.queries == attack.report["queries"] == 2 * (12 + 6)
    draws = [Blur()(photos(3), draw) for draw in (0, 1)]
    both = attack.invert(draws)
    assert both.shape[:2] == (9, 2)
    assert torch.equal(both[:, 1:], attack.invert(draws[1:]))


def test_training_sees_every_draw() -> None:
    """Both the bright and the dark release of a photo occur in a batch."""
    config = settings(batch=12)
    released, clear = training_of(config, _unet.create(config, 0), draws=2)._batch()
    shade = released.mean((1, 2, 3)) / clear.mean((1, 2, 3))
    assert bool((shade > 0.95).any())
    assert bool((shade < 0.85).any())


def test_a_budget_is_kept() -> None:
    """No more is asked for than was granted, and the report says how much that was."""
    oracle = Blur()
    report = trained(oracle, queries=16).report
    assert oracle.queries == report["queries"] == 16
    assert report["pairs"] + report["validation_pairs"] == 16


@pytest.mark.parametrize(
    ("height", "width", "side"), [(112, 92, 128), (40, 28, 64), (160, 160, 128)]
)
def test_photographs_of_any_size_come_back_at_theirs(height: int, width: int, side: int) -> None:
    """The network works at a size of its own, which is no larger than it must be."""
    attack = _unet.UnetInversion(settings(steps=1)).train(view(Blur(), height=height, width=width))
    assert attack.report["side"] == side
    probes = Blur()(photos(1, height=height, width=width))
    made = attack.invert([probes])
    assert made.shape == (3, 1, 3, height, width)
    assert decibels(made[:, 0], probes.floats()) > 15


def test_the_best_checkpoint_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the start and two checkpoints the one that validation likes best inverts."""
    probes, made = Blur()(photos(1)), []
    for best in range(3):
        liked = iter(float(step == best) for step in range(3))
        monkeypatch.setattr(_unet.OwnJudge, "similarity", lambda judge, pixels: next(liked))  # noqa: B023
        attack = trained(Blur(), steps=2, checkpoints=2, learning_rate=0.02)
        assert [entry["step"] for entry in attack.report["history"]] == [0, 1, 2]
        assert attack.report["chosen_step"] == best
        made.append(attack.invert([probes]))
    assert not any(torch.equal(made[i], made[i - 1]) for i in range(3))


def test_without_an_oracle_it_refuses() -> None:
    """The message says what is missing."""
    with pytest.raises(PluginError, match="needs the oracle"):
        _unet.UnetInversion(settings()).train(view(None))


def test_every_weight_file_is_named() -> None:
    """The encoder of the losses, so that it is never asked to judge."""
    spec = SPECS[0]
    assert spec.weights is not None
    assert set(spec.weights(settings())) == {
        "tiny-encoder/config.json",
        "tiny-encoder/model.safetensors",
    }


def test_smoke_settings_train() -> None:
    """The native precision, a batch larger than the smallest data set."""
    attack = SPECS[0].build(UnetInversionConfig(**SPECS[0].smoke)).train(view(Blur()))
    assert all(np.isfinite(entry["similarity"]) for entry in attack.report["history"])
    assert attack.invert([Blur()(photos(1))]).shape == (3, 1, 3, SIDE, SIDE)
