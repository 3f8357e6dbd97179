"""`inversion-optimise` lowers the distance to the release, within its queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.errors import ModelError
from privbench.progress import Silent
from privbench.spec import Config
from privbench.types import AttackerView, ImageSet, quantize
from privbench_plugins.anonymizers._ksame import KSame
from privbench_plugins.attacks.inversion._optimise import TrainedOptimise, distinct
from privbench_plugins.attacks.inversion._optimise_latents import Autoencoder, Reading
from privbench_plugins.attacks.inversion.optimise import SPECS, OptimiseConfig, build, weights

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIZE = (56, 46)


def mosaic(pixels: Tensor, draw: int = 0) -> Tensor:
    """Cells of 4 by 4, the last ones in a row narrower."""
    cells = F.avg_pool2d(pixels, 4, ceil_mode=True)
    wide = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return wide[:, :, : pixels.shape[2], : pixels.shape[3]]


def noisy(pixels: Tensor, draw: int = 0) -> Tensor:
    """Noise that no two draws share."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(draw))
    return (pixels + 0.05 * noise).clamp(0, 1)


class Oracle:
    """Anonymizes by a function of pixels and draw, counts, and remembers the keys."""

    def __init__(self, function: Callable[[Tensor, int], Tensor]) -> None:
        self.function, self.queries, self.keys = function, 0, set[str]()

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        self.queries += len(images)
        self.keys |= set(images.keys)
        return replace(images, pixels=quantize(self.function(images.floats(), draw)))


def photos(count: int, seed: int) -> ImageSet:
    """Smooth pictures with a bright oval, three of each person."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 6, generator=generator)
    smooth = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, SIZE[0]), torch.linspace(-1, 1, SIZE[1]), indexing="ij"
    )
    radius = 0.4 + 0.3 * torch.rand(count, 1, 1, generator=generator)
    oval = ((x.square() + y.square()).sqrt() < radius)[:, None]
    pixels = torch.where(oval, 0.5 + 0.5 * smooth, 0.7 * smooth)
    keys = tuple(f"{seed}-{i}" for i in range(count))
    return ImageSet(quantize(pixels), np.arange(count) // 3, keys)


def view(function: Callable[[Tensor, int], Tensor], draws: int = 1) -> AttackerView:
    """48 photos to train on, 12 to choose on."""
    return AttackerView(photos(48, 1), photos(12, 2), Oracle(function), 3, CPU, Silent(), draws)


def released(function: Callable[[Tensor, int], Tensor], draw: int = 0) -> ImageSet:
    """What the anonymizer makes of nine photos, under neutral keys."""
    pixels = quantize(function(photos(9, 5).floats(), draw))
    return ImageSet(pixels, np.full(9, -1), tuple(map(str, range(9))))


def queries_of(trained: TrainedOptimise) -> int:
    """What the oracle was asked for so far."""
    return trained.tools.oracle.queries


@pytest.fixture(scope="module")
def trained() -> TrainedOptimise:
    """Trained on mosaics, with six queries an image."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = build(OptimiseConfig(queries_per_image=6, margin=2)).train(view(mosaic))
    torch.set_num_threads(threads)
    assert isinstance(made, TrainedOptimise)
    return made


def test_the_distance_to_the_release_only_falls(trained: TrainedOptimise) -> None:
    """No image's distance ever rises, and all of them have fallen at the end."""
    states = list(trained.tools.states([released(mosaic)], "pixels"))
    distance = torch.stack([state.distance for state in states])
    assert (distance.diff(dim=0) <= 0).all()
    assert (distance[-1] < 0.8 * distance[0]).all()


def test_the_search_improves_on_its_start(trained: TrainedOptimise) -> None:
    """What is nearer to the release is nearer to the source too."""
    states = list(trained.tools.states([released(mosaic)], "pixels"))
    source = F.interpolate(photos(9, 5).floats(), trained.tools.size, mode="bilinear")
    error = [float((state.pixels - source).square().mean()) for state in (states[0], states[-1])]
    assert error[1] < 0.97 * error[0]
    history = trained.report["history"]
    assert trained.report["validation"]["similarity"] > history[0]["similarity"]


def test_queries_stay_within_the_budget(trained: TrainedOptimise) -> None:
    """Training asks for each photo once and for the validation search; an image, for no more
    than was chosen."""
    assert trained.report["queries"] == 48 + 12 + 12 * 6 * 2
    before = queries_of(trained)
    trained.invert([released(mosaic)])
    assert queries_of(trained) - before <= 9 * trained.queries <= 9 * 6


def test_a_small_budget_pays_for_choosing_too() -> None:
    """The validation search comes out of the training budget."""
    attacker = view(mosaic)
    made = build(OptimiseConfig(queries=80, queries_per_image=2, margin=2)).train(attacker)
    assert attacker.oracle is not None
    assert attacker.oracle.queries == made.report["queries"] <= 80
    assert made.report["validation"]["photos"] == 5


def test_each_image_is_searched_for_on_its_own(trained: TrainedOptimise) -> None:
    """Odd sizes come back as they were; neither order nor company changes an image, and equal
    releases give equal images."""
    probes = released(mosaic)
    trained.queries = 6
    whole = trained.invert([probes])
    assert whole.shape == (9, 1, 3, *SIZE)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    order = [8, 2, 5]
    torch.testing.assert_close(
        trained.invert([probes.take(order)]), whole[order], atol=1e-5, rtol=0
    )
    twice = ImageSet(probes.pixels[[4, 4, 1]], probes.subject[:3], ("a", "b", "c"))
    assert [len(draw) for draw in distinct([twice])[0]] == [2]


def test_noise_of_a_stochastic_anonymizer_is_measured(trained: TrainedOptimise) -> None:
    """With several draws the report says by how much two releases of one candidate differ; all
    candidates of an image share a key."""
    assert trained.report["noise"] is None
    attacker = view(noisy, draws=2)
    made = build(OptimiseConfig(queries_per_image=3, distance="pixels", margin=2)).train(attacker)
    assert made.report["noise"] == pytest.approx(0.05 * 2**0.5, rel=0.3)
    oracle = attacker.oracle
    assert isinstance(oracle, Oracle)
    assert sum(key.startswith("optimise/") for key in oracle.keys) == 12
    assert made.report["queries"] == oracle.queries == 2 * (48 + 12) + 12 * (3 + 2)
    assert made.invert([released(noisy, 7), released(noisy, 8)]).shape == (9, 1, 3, *SIZE)


class GroupOracle(Oracle):
    """k-Same, which treats what is asked for together as one release."""

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        self.queries += len(images)
        made = KSame(2).fit(images).anonymize(images.batch(), [0] * len(images))
        return replace(images, pixels=quantize(made))


def test_a_release_that_several_share_is_searched_for_once() -> None:
    """k-Same releases one image for several people."""
    oracle = GroupOracle(mosaic)
    attacker = replace(view(mosaic), oracle=oracle)
    made = build(OptimiseConfig(queries_per_image=3, margin=2)).train(attacker)
    release = oracle(photos(12, 5))
    before = oracle.queries
    whole = made.invert([replace(release, subject=np.full(12, -1))])
    assert oracle.queries - before <= 6 * 3
    shared = torch.cdist(*[release.pixels.double().flatten(1)] * 2) == 0
    assert shared.sum() >= 24
    assert (torch.cdist(*[whole.double().flatten(1)] * 2)[shared] == 0).all()


def test_a_reading_undoes_a_linear_map() -> None:
    """Where latents are a linear function of the release, they are read off exactly."""
    cells = torch.rand(32, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    images = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    latents = F.avg_pool2d(images, 8) * 2 - 1
    reading = Reading.fit(images, latents, 8, 4, 1e-9, 0)
    torch.testing.assert_close(reading(images), latents, atol=2e-3, rtol=0)


def test_the_autoencoder_gives_faces_back() -> None:
    """Encoding and decoding keep a picture, at sides that the factor divides."""
    network = Autoencoder.load("tiny-faces", "", CPU, torch.float32)
    pixels = F.interpolate(photos(4, 1).floats(), (64, 48), mode="bilinear")
    again = network.decode(network.encode(pixels))
    assert again.shape == pixels.shape
    assert float((again - pixels).square().mean()) < 0.2 * float(pixels.var())
    with pytest.raises(ModelError):
        Autoencoder.load("tiny-encoder", "", CPU, torch.float32)


def test_the_spec_names_its_weights() -> None:
    """No judge may use the encoder that chose; the autoencoder is named as well."""
    (spec,) = SPECS
    config: Config = OptimiseConfig()
    assert spec.tags.inverts
    assert spec.config is type(config)
    names = weights(OptimiseConfig())
    assert {name.split("/")[0] for name in names} == {"tiny-encoder", "tiny-faces"}
