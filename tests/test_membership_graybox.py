"""Gray-box attacks on membership measure what their papers define, image by image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from torch import Tensor

from graybox_kit import SmallDenoiser, faces, view
from privbench.errors import PluginError
from privbench.membership import TrainedMembership
from privbench.spec import PluginSpec
from privbench.types import ImageSet
from privbench_plugins.attacks.membership import cdi, loss, pia, secmi

pytestmark = pytest.mark.usefixtures("one_thread")

SPECS: dict[str, PluginSpec] = {
    spec.id: spec for module in (loss, secmi, pia, cdi) for spec in module.SPECS
}
NAMES = tuple(SPECS)


def trained(
    name: str, denoiser: SmallDenoiser, seed: int = 0, **settings: Any
) -> TrainedMembership:
    """An attack on a model."""
    spec = SPECS[name]
    attack = spec.build(spec.config(**{"batch": 8, **settings}))
    found: TrainedMembership = attack.train(view(denoiser, seed))
    return found


def headline(scores: Tensor) -> np.ndarray:
    """(N,) scores without the features."""
    return (scores if scores.ndim == 1 else scores[:, 0]).numpy()


@pytest.fixture(scope="module")
def raw() -> SmallDenoiser:
    """A model with random weights."""
    return SmallDenoiser()


@pytest.fixture(scope="module")
def members() -> ImageSet:
    """Images that `overfitted` was trained on."""
    return faces(8, 1)


@pytest.fixture(scope="module")
def overfitted(members: ImageSet, one_thread: None) -> SmallDenoiser:
    """A model that has seen nothing but eight images."""
    denoiser = SmallDenoiser()
    denoiser.overfit(members, 150)
    return denoiser


def one(denoiser: SmallDenoiser, noisy: Tensor, level: int) -> Tensor:
    """The prediction for one image."""
    return denoiser.predict(noisy, torch.tensor([level]))


def plain_loss(denoiser: SmallDenoiser, pixels: Tensor) -> float:
    """Mean over two levels and three draws, as it reads in the papers."""
    latent = denoiser.encode(pixels[None])
    digest = hashlib.sha256(b"5/" + pixels.numpy().tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") // 2)
    errors = []
    for level in (200, 600):
        for _ in range(3):
            noise = torch.randn(latent.shape, generator=generator)
            noisy = denoiser.schedule.add_noise(latent, noise, torch.tensor([level]))
            errors.append(float((one(denoiser, noisy, level) - noise).square().mean()))
    return float(np.mean(errors))


def plain_secmi(denoiser: SmallDenoiser, pixels: Tensor) -> float:
    """The t-error at 100 in steps of 10, by the schedulers of diffusers."""
    config = {**denoiser.schedule.config, "prediction_type": "epsilon"}  # what a denoiser answers
    up, down = DDIMInverseScheduler.from_config(config), DDIMScheduler.from_config(config)
    for schedule in (up, down):
        schedule.set_timesteps(100)
    latent = denoiser.encode(pixels[None])
    for level in range(0, 100, 10):
        latent = up.step(one(denoiser, latent, level), level + 10, latent).prev_sample
    further = up.step(one(denoiser, latent, 100), 110, latent).prev_sample
    back = down.step(one(denoiser, further, 110), 110, further).prev_sample
    return float((back - latent).square().mean())


def plain_pia(denoiser: SmallDenoiser, pixels: Tensor, *, normalised: bool = False) -> float:
    """The l_4 norm at level 200."""
    latent = denoiser.encode(pixels[None])
    noise = one(denoiser, latent, 0)
    if normalised:
        noise = noise / noise.abs().mean() * np.sqrt(2 / np.pi)
    noisy = denoiser.schedule.add_noise(latent, noise, torch.tensor([200]))
    return float((one(denoiser, noisy, 200) - noise).abs().pow(4).sum() ** 0.25)


def plain_pian(denoiser: SmallDenoiser, pixels: Tensor) -> float:
    """The same of the normalised variant."""
    return plain_pia(denoiser, pixels, normalised=True)


@pytest.mark.parametrize(
    ("name", "settings", "plain"),
    [
        ("mia-loss", {"levels": (0.2, 0.6), "repeats": 3}, plain_loss),
        ("mia-secmi", {}, plain_secmi),
        ("mia-pia", {}, plain_pia),
        ("mia-pia", {"normalised": True}, plain_pian),
    ],
)
def test_a_score_is_minus_the_error_of_its_paper(
    overfitted: SmallDenoiser,
    name: str,
    settings: dict[str, Any],
    plain: Callable[[SmallDenoiser, Tensor], float],
) -> None:
    """Batched scores equal plain loops over images, levels and steps."""
    images = faces(11, 2)
    scores = trained(name, overfitted, seed=5, **settings).score(images)
    expected = [-plain(overfitted, pixels) for pixels in images.pixels]
    assert scores.shape == (11,)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-3, atol=1e-7)
    assert np.ptp(expected) > 0.05 * np.abs(expected).mean()  # else any constant would pass


def test_cdi_standardises_by_validation_and_shows_its_features(overfitted: SmallDenoiser) -> None:
    """Column 0 is the mean z-score against the attacker's own photos; the rest are the scores of
    the single attacks."""
    images = faces(9, 2)
    attack = trained("mia-cdi", overfitted)
    scores = attack.score(images).double().numpy()
    single = [
        trained("mia-loss", overfitted).score(images),
        trained("mia-secmi", overfitted, steps=1).score(images),
        trained("mia-pia", overfitted).score(images),
    ]
    columns = [scores[:, 1:4].mean(1), scores[:, 4], scores[:, 5]]
    for column, other in zip(columns, single, strict=True):
        np.testing.assert_allclose(column, other.numpy(), rtol=1e-4, atol=1e-7)
    known = attack.score(view(overfitted).validation).double().numpy()[:, 1:]
    z = (scores[:, 1:] - known.mean(0)) / known.std(0)
    np.testing.assert_allclose(scores[:, 0], z.mean(1), rtol=1e-4, atol=1e-4)
    assert scores.shape == (9, 6) == (9, 1 + len(attack.report["errors"]))


@pytest.mark.parametrize("name", NAMES)
def test_members_of_an_overfitted_model_score_higher(
    raw: SmallDenoiser, overfitted: SmallDenoiser, members: ImageSet, name: str
) -> None:
    """And those of a model that was never trained do not.

    SecMI takes the long step: along short ones a network this small and this over-fitted moves
    more near what it knows than elsewhere.
    """
    others = faces(64, 3)
    settings = {"steps": 1} if name == "mia-secmi" else {}
    truth = np.repeat([True, False], [len(members), len(others)])
    for denoiser, low, high in ((overfitted, 0.8, 1.0), (raw, 0.3, 0.7)):
        attack = trained(name, denoiser, **settings)
        scores = np.concatenate([headline(attack.score(part)) for part in (members, others)])
        assert low <= roc_auc_score(truth, scores) <= high


@pytest.mark.parametrize("name", NAMES)
def test_a_score_depends_on_its_image_alone(raw: SmallDenoiser, name: str) -> None:
    """Not on order, company, key or subject; and hardly on the size of the batch."""
    images = faces(11, 2)
    attack = trained(name, raw)
    scores = attack.score(images)
    order = np.random.default_rng(0).permutation(11)
    torch.testing.assert_close(attack.score(images.take(order)), scores[order], rtol=0, atol=2e-6)
    alone = ImageSet(images.pixels[4:5], np.array([77]), ("other",))
    torch.testing.assert_close(attack.score(alone), scores[4:5], rtol=0, atol=2e-6)
    other = trained(name, raw, batch=3).score(images)
    torch.testing.assert_close(other, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_randomness_comes_from_the_view_alone(raw: SmallDenoiser, name: str) -> None:
    """The state of torch's global generator changes nothing, nor is it changed."""
    images = faces(5, 2)
    torch.manual_seed(1)
    first = trained(name, raw).score(images)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(trained(name, raw).score(images), first)
    assert torch.equal(torch.get_rng_state(), state)
    again = headline(trained(name, raw, seed=1).score(images))
    assert np.array_equal(again, headline(first)) == (name in ("mia-secmi", "mia-pia"))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mia-loss", {"levels": (0, 1)}),
        ("mia-secmi", {"level": 0.5, "steps": 1}),
        ("mia-secmi", {"level": 1e-4, "steps": 3}),
        ("mia-pia", {"level": 0}),
        ("mia-pia", {"level": 1, "normalised": True}),
        ("mia-cdi", {"levels": (0, 1), "step_level": 0.5, "steps": 1, "proximal_level": 1}),
    ],
)
def test_the_ends_of_the_schedule_are_finite(
    name: str, settings: dict[str, Any], prediction: Any
) -> None:
    """Even where the last level has no signal at all, and scores still tell images apart there."""
    denoiser = SmallDenoiser(prediction)
    assert (denoiser.alphas[-1] == 0) == (prediction == "v_prediction")
    scores = trained(name, denoiser, **settings).score(faces(6, 2))
    assert torch.isfinite(scores).all()
    if settings.get("level") != 1e-4:  # there, one step leads back to where it began
        assert (scores.view(6, -1).std(0) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_many_images_are_streamed_in_one_shape(name: str) -> None:
    """Each image is encoded once, and no request is larger than a block or of another shape."""
    denoiser = SmallDenoiser()
    attack = trained(name, denoiser)
    denoiser.encoded.clear()
    denoiser.asked.clear()
    attack.score(faces(21, 2))
    assert denoiser.encoded == [8, 8, 8]
    assert sum(denoiser.asked) == 24 * attack.report["evaluations_per_image"]
    assert max(denoiser.asked) <= 8 * 3
    third = len(denoiser.asked) // 3
    assert denoiser.asked == denoiser.asked[:third] * 3
    assert len(attack.score(faces(2, 2).take([]))) == 0


def test_all_four_are_affordable() -> None:
    """The defaults cost at most 25 noise predictions per image together."""
    denoiser = SmallDenoiser()
    asked = [trained(name, denoiser).report["evaluations_per_image"] for name in NAMES]
    assert sum(asked) <= 25


@pytest.mark.parametrize("name", NAMES)
def test_without_a_model_there_is_a_sentence(name: str) -> None:
    """Only released images: the attacks refuse, and say what to do."""
    spec = SPECS[name]
    assert (spec.tags.knowledge, spec.tags.infers) == ("gray-box", "queries")
    with pytest.raises(PluginError, match="Choose an attack that is black-box"):
        spec.build(spec.config()).train(view(None))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mia-loss", {"levels": ()}),
        ("mia-loss", {"levels": (1.1,)}),
        ("mia-loss", {"repeats": 0}),
        ("mia-secmi", {"level": 0.6}),
        ("mia-secmi", {"level": 0}),
        ("mia-secmi", {"steps": 0}),
        ("mia-pia", {"norm": 0.5}),
        ("mia-cdi", {"batch": 0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, Any]) -> None:
    """A level is a share, and a step beyond it must exist."""
    with pytest.raises(ValidationError):
        SPECS[name].config(**settings)
