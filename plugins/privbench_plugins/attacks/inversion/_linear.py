"""Inversion by ridge regression from released to clear images, in principal components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from torch import Tensor

from privbench.types import AttackerView, Floats, ImageSet, TrainedInverter, quantize
from privbench_plugins.anonymizers._ldm.pixels import resize
from privbench_plugins.attacks.inversion._linear_cut import Cut, sampled
from privbench_plugins.attacks.inversion.choice import OwnJudge
from privbench_plugins.attacks.inversion.linear import LinearConfig
from privbench_plugins.attacks.inversion.pairs import Pairs, ask

COMPONENTS: Final[Mapping[str, tuple[int, ...]]] = {"pca": (64, 192), "patch": (256,)}
"""Numbers of components among which validation chooses."""

PENALTIES: Final[Mapping[str, tuple[float, ...]]] = {
    "pca": (0.1, 1.0, 10.0),
    "patch": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
}
"""Penalties among which validation chooses: variances of noise in each component."""

_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Setting:
    """One candidate among which validation chooses."""

    basis: str
    components: int
    penalty: float


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Where the regression takes place.

    Attributes:
        cut: how images are cut into patches.
        released: principal components of released patches with their margins.
        clear: principal components of clear patches.
    """

    cut: Cut
    released: PCA
    clear: PCA

    @classmethod
    def of(cls, cut: Cut, components: int, released: Tensor, clear: Tensor, seed: int) -> Basis:
        """Fit to (M, D) released and (M, E) clear patches."""
        given, wanted = (_pca(rows, components, seed) for rows in (released, clear))
        return cls(cut, given, wanted)

    def coordinates(self, pixels: Tensor) -> Floats:
        """(N, L, C) coordinates of (N, 3, H, W) releases, in blocks of one size."""
        blocks = [
            self._block(F.pad(block, (0,) * 7 + (_BLOCK - len(block),)))[: len(block)]
            for block in torch.split(pixels, _BLOCK)
        ]
        return np.concatenate(blocks)

    def _block(self, pixels: Tensor) -> Floats:
        rows = self.cut.surroundings(pixels).flatten(0, 1).numpy()
        found: Floats = self.released.transform(rows).astype(np.float64)
        return found.reshape(len(pixels), self.cut.count, -1)


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """A regression in a basis."""

    basis: Basis
    ridge: Ridge

    def __call__(self, coordinates: Floats) -> Tensor:
        """(N, 3, H, W) float32 reconstructions in [0, 1] of releases with (N, L, C) coordinates."""
        used = coordinates[..., : self.ridge.n_features_in_]
        made = [
            self._block(np.pad(block, ((0, _BLOCK - len(block)), (0, 0), (0, 0))))[: len(block)]
            for block in np.split(used, range(_BLOCK, len(used), _BLOCK))
        ]
        return torch.cat(made)

    def _block(self, coordinates: Floats) -> Tensor:
        n, patches, components = coordinates.shape
        found = self.ridge.predict(coordinates.reshape(n * patches, components))
        rows = self.basis.clear.inverse_transform(found.reshape(n * patches, -1))
        pixels = torch.from_numpy(rows.astype(np.float32)).view(n, patches, -1)
        return self.basis.cut.images(pixels).clamp_(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class LinearInverter:
    """See `LinearConfig`."""

    config: LinearConfig

    def train(self, view: AttackerView) -> TrainedInverter:
        """Fit every candidate, and choose by the own judge's mean similarity on validation.

        Raises:
            PluginError: no oracle, or too few photos or queries.
        """
        train, validation = ask(view, self.config.queries)
        return fit(self.config, train, validation, view.seed, view.device)


def fit(
    config: LinearConfig, train: Pairs, validation: Pairs, seed: int, device: torch.device
) -> TrainedLinear:
    """Fit every candidate to training pairs, and choose on validation pairs."""
    size = working_size(train.clear, config.side)
    released, clear = mean_draw(train.released, size), scaled(train.clear, size)
    held_out = mean_draw(validation.released, size)
    judge = OwnJudge.of(validation, device)
    shape = validation.clear.shape[2:]
    tried = [
        (judge.similarity(quantize(resize(made, *shape))), setting, fitted)
        for setting, fitted, made in _candidates(config, released, clear, held_out, seed)
    ]
    similarity, setting, fitted = max(tried, key=itemgetter(0))
    made = fitted(fitted.basis.coordinates(held_out))
    quality = judge.identification(quantize(resize(made, *shape)))
    report = {
        "queries": train.queries + validation.queries,
        "pairs": {"train": len(train), "validation": len(validation)},
        "draws": len(train.released),
        "size": list(size),
        "chosen": asdict(setting),
        "validation": {"similarity": similarity, **asdict(quality)},
        "grid": [{**asdict(candidate), "similarity": value} for value, candidate, _ in tried],
        "parameters": fitted.ridge.coef_.size + fitted.ridge.intercept_.size,
        "threads": torch.get_num_threads(),
    }
    return TrainedLinear(fitted, size, report)


def _candidates(
    config: LinearConfig, released: Tensor, clear: Tensor, held_out: Tensor, seed: int
) -> Iterator[tuple[Setting, LinearMap, Tensor]]:
    """Each setting, the map fitted with it, and what it makes of the held-out releases."""
    size = (int(clear.shape[2]), int(clear.shape[3]))
    patch = (config.patch, config.patch)
    cuts = {"pca": Cut(size, size, 0), "patch": Cut(size, patch, config.margin)}
    for name in cuts if config.basis == "auto" else (config.basis,):
        wanted = (config.components,) if config.components else COMPONENTS[name]
        cut = cuts[name]
        given, made = sampled(cut, released, cut, clear, config.samples, seed)
        basis = Basis.of(cut, max(wanted), given, made, seed)
        inputs = basis.released.transform(given.numpy()).astype(np.float64)
        targets = basis.clear.transform(made.numpy()).astype(np.float64)
        seen = basis.coordinates(held_out)
        possible = sorted({min(c, inputs.shape[1]) for c in wanted})
        penalties = (config.penalty,) if config.penalty else PENALTIES[name]
        for components in possible:
            for penalty in penalties:
                ridge = Ridge(penalty * len(inputs)).fit(inputs[:, :components], targets)
                fitted = LinearMap(basis, ridge)
                yield Setting(name, components, penalty), fitted, fitted(seen)


@dataclass(slots=True, eq=False)
class TrainedLinear:
    """A fitted map for images that are resized to `size`."""

    fitted: LinearMap
    size: tuple[int, int]
    report: Mapping[str, Any]

    def invert(self, draws: Sequence[ImageSet]) -> Tensor:
        """(N, 1, 3, H, W): the reconstruction of the mean of the draws, which is the mean of
        their reconstructions."""
        released = torch.stack([draw.pixels for draw in draws])
        seen = self.fitted.basis.coordinates(mean_draw(released, self.size))
        return resize(self.fitted(seen), *released.shape[3:])[:, None]


def working_size(pixels: Tensor, side: int) -> tuple[int, int]:
    """(height, width) of (N, 3, H, W) images once the longer side is at most `side`."""
    height, width = int(pixels.shape[2]), int(pixels.shape[3])
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def mean_draw(released: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, N, 3, H, W) uint8 to (N, 3, h, w) float32 in [0, 1]."""
    return resize(released.float().mean(0).div_(255), *size)


def scaled(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, h, w) float32 in [0, 1]."""
    return resize(pixels.float().div_(255), *size)


def _pca(rows: Tensor, components: int, seed: int) -> PCA:
    """The first components of (M, D) rows, at most as many as there can be."""
    samples, features = rows.shape
    solver = "covariance_eigh" if samples > features else "auto"
    possible = min(components, samples, features)
    return PCA(possible, svd_solver=solver, random_state=seed % 2**32).fit(rows.numpy())
