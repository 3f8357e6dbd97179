"""`inversion-linear` is ridge regression, and chooses on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.errors import PluginError
from privbench.progress import Silent
from privbench.types import AttackerView, ImageSet, quantize
from privbench_plugins.attacks.inversion.linear import SPECS, LinearConfig, build, weights

pytestmark = pytest.mark.usefixtures("one_thread")


class Oracle:
    """Anonymizes by a function of pixels and draw, and counts."""

    def __init__(self, function: Callable[[Tensor, int], Tensor]) -> None:
        self.function, self.queries = function, 0

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        self.queries += len(images)
        return replace(images, pixels=quantize(self.function(images.floats(), draw)))


def blurred(pixels: Tensor, draw: int = 0) -> Tensor:
    """A box of 5 by 5."""
    return F.avg_pool2d(F.pad(pixels, (2, 2, 2, 2), mode="replicate"), 5, 1)


def mosaic(pixels: Tensor, draw: int = 0) -> Tensor:
    """Cells of 4 by 4."""
    return F.interpolate(F.avg_pool2d(pixels, 4), scale_factor=4.0)


def noisy(pixels: Tensor, draw: int) -> Tensor:
    """Noise that no two draws share."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(draw))
    return (pixels + 0.2 * noise).clamp(0, 1)


def low_rank(count: int, size: tuple[int, int], seed: int, rank: int = 12) -> ImageSet:
    """Photos that are mixtures of `rank` random pictures, three of each person."""
    basis = torch.rand(rank, 3, *size, generator=torch.Generator().manual_seed(0))
    mixture = torch.rand(count, rank, generator=torch.Generator().manual_seed(seed))
    pixels = torch.einsum("nr,rchw->nchw", mixture / mixture.sum(1, keepdim=True), basis)
    keys = tuple(f"{seed}-{i}" for i in range(count))
    return ImageSet(quantize((pixels - 0.5) * 3 + 0.5), np.arange(count) // 3, keys)


def view(
    function: Callable[[Tensor, int], Tensor], size: tuple[int, int] = (24, 24), draws: int = 1
) -> AttackerView:
    """60 photos to train on, 12 to choose on."""
    train, validation = low_rank(60, size, 1), low_rank(12, size, 2)
    device = torch.device("cpu")
    return AttackerView(train, validation, Oracle(function), 3, device, Silent(), draws)


def released(images: ImageSet, function: Callable[[Tensor, int], Tensor], draw: int) -> ImageSet:
    """What the anonymizer makes of them, under neutral keys."""
    keys = tuple(map(str, range(len(images))))
    return ImageSet(quantize(function(images.floats(), draw)), np.full(len(images), -1), keys)


def psnr(made: Tensor, source: Tensor) -> float:
    """Peak signal-to-noise ratio of (N, 3, H, W) floats, all images together."""
    return float(-10 * (made - source).square().mean().log10())


@pytest.mark.parametrize("function", [blurred, mosaic])
def test_a_linear_map_is_undone(function: Callable[[Tensor, int], Tensor]) -> None:
    """Where sources have fewer dimensions than releases keep, nothing is lost but rounding."""
    probes = low_rank(9, (24, 24), 5)
    trained = build(LinearConfig(basis="pca", penalty=1e-6)).train(view(function))
    release = released(probes, function, 0)
    found = psnr(trained.invert([release])[:, 0], probes.floats())
    assert found > 35
    assert found > psnr(release.floats(), probes.floats()) + 15


@pytest.mark.parametrize("basis", ["pca", "patch"])
def test_it_is_ridge_regression(basis: str) -> None:
    """With all components kept, the result is that of the normal equations in plain pixels."""
    attacker, penalty, cell = view(mosaic, (8, 8)), 1e-3, 8 if basis == "pca" else 4
    config = LinearConfig(
        basis=basis,  # type: ignore[arg-type]
        components=192,
        penalty=penalty,
        patch=4,
        margin=0,
    )
    probes = released(low_rank(5, (8, 8), 5), mosaic, 0)
    made = build(config).train(attacker).invert([probes])[:, 0]

    def rows(pixels: Tensor) -> np.ndarray:
        tiles = pixels.unfold(2, cell, cell).unfold(3, cell, cell).permute(0, 2, 3, 1, 4, 5)
        return tiles.reshape(-1, 3 * cell * cell).double().numpy()

    clear = attacker.train.floats()
    x, y, new = rows(quantize(mosaic(clear)).float() / 255), rows(clear), rows(probes.floats())
    centred = x - x.mean(0)
    gram = centred.T @ centred + penalty * len(x) * np.eye(x.shape[1])
    expected = y.mean(0) + (new - x.mean(0)) @ np.linalg.solve(gram, centred.T @ (y - y.mean(0)))
    np.testing.assert_allclose(rows(made), expected.clip(0, 1), atol=2e-5)


def test_it_beats_the_mean_face() -> None:
    """A release says more than none at all."""
    probes = low_rank(9, (24, 24), 5, rank=12)
    attacker = view(mosaic)
    made = build(LinearConfig()).train(attacker).invert([released(probes, mosaic, 0)])[:, 0]
    mean = attacker.train.floats().mean(0, keepdim=True)
    assert psnr(made, probes.floats()) > psnr(mean, probes.floats()) + 3


def test_the_choice_is_the_best_of_the_grid() -> None:
    """The report lists all candidates, the chosen one is the best, and queries are counted."""
    attacker = view(blurred)
    report = build(LinearConfig()).train(attacker).report
    best = max(report["grid"], key=lambda row: row["similarity"])
    assert report["chosen"] == {k: best[k] for k in report["chosen"]}
    assert report["validation"]["similarity"] == best["similarity"]
    assert {row["basis"] for row in report["grid"]} == {"pca", "patch"}
    assert attacker.oracle is not None
    assert report["queries"] == attacker.oracle.queries == 72


def test_a_budget_of_queries_is_kept() -> None:
    """The oracle is never asked for more than the budget."""
    attacker = view(blurred)
    build(LinearConfig(queries=20, basis="patch")).train(attacker)
    assert attacker.oracle is not None
    assert attacker.oracle.queries == 20
    with pytest.raises(PluginError, match="needs the oracle"):
        build(LinearConfig()).train(replace(attacker, oracle=None))


@pytest.mark.parametrize("basis", ["pca", "patch"])
def test_each_image_is_inverted_on_its_own(basis: str) -> None:
    """Odd sizes come back as they were, and neither order nor company changes an image."""
    size = (112, 92)
    config = LinearConfig(basis=basis, components=16, penalty=1e-3)  # type: ignore[arg-type]
    trained = build(config).train(view(blurred, size))
    probes = released(low_rank(35, size, 5), blurred, 0)
    whole = trained.invert([probes])
    assert whole.shape == (35, 1, 3, *size)
    order: Sequence[int] = (34, 3, 7)
    part = trained.invert([probes.take(order)])
    torch.testing.assert_close(part, whole[list(order)], atol=1e-6, rtol=0)


def test_draws_are_averaged() -> None:
    """Four noisy releases of a photo are worth more than one."""
    probes = low_rank(9, (24, 24), 5)
    found = []
    for draws in (1, 4):
        trained = build(LinearConfig(basis="pca")).train(view(noisy, draws=draws))
        made = trained.invert([released(probes, noisy, 10 + k) for k in range(draws)])
        found.append(psnr(made[:, 0], probes.floats()))
    assert found[1] > found[0] + 1


def test_the_spec_names_its_weights() -> None:
    """No judge may use the encoder that chose."""
    (spec,) = SPECS
    assert spec.tags.inverts
    assert spec.tags.knowledge == "adaptive"
    assert any(name.startswith("tiny-encoder/") for name in weights(LinearConfig()))
