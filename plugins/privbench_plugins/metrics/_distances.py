"""Fréchet and kernel distance between the features of sources and of releases.

Rows are (N, 1 + 2 d): the identity, the source's features, the release's features, each of length
one. A bootstrap resample repeats people, and a repeated row is no new evidence about a
distribution: `docs/metrics.md` says how each distance allows for that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from privbench.types import Evidence, Floats, Output
from privbench_plugins.metrics._common import release
from privbench_plugins.metrics._features import extractor, unit

HALVES = 8  # random cuts of the people in two, from which the bias in 1 / n is estimated
JITTER = 1e-10  # of the mean variance; moves a distance by at most 2e-5 of the variances
BLOCK_BYTES = 64 * 2**20  # of one batch of matrices


class Distance(ABC):
    """Two sets of features, compared.

    Args:
        features: `tiny-encoder`, or a vision model of `transformers`.
        layer: of `tiny-encoder`.
        side: pixels per side that the network sees.
        revision: of a hub id.
    """

    def __init__(self, features: str, layer: str, side: int, revision: str) -> None:
        self.features, self.layer = features, layer
        self.side, self.revision = side, revision

    @abstractmethod
    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """The numbers."""

    @abstractmethod
    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, M)."""

    def chance(self, evidence: Evidence) -> Floats:
        """There is none."""
        return np.full(len(self.outputs(evidence)), np.nan)

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 1 + 2 d): identity, features of the source, features of the release."""
        pair = release(evidence)
        extract = extractor(self.features, (self.layer,), self.side, self.revision)
        source, released = (unit(extract(x.pixels)[0]) for x in (pair.source, pair.released))
        return np.concatenate([pair.subject[:, None].astype(np.float64), source, released], 1)


class FrechetDistance(Distance):
    """Fréchet distance of two Gaussians (Heusel et al. 2017, equation 6), and without its bias."""

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """The textbook value at this n, and its limit for many images."""
        return (
            Output("frechet", "lower", 4.0, "distance"),
            Output("frechet-inf", "lower", 4.0, "distance"),
        )

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, 2). The textbook value has no interval: NaN under weights that are not equal.

        The bias of the textbook value falls as 1 / n (Chong and Forsyth 2020). Its slope comes
        from halves of the people; at weights w the size is n = (sum w)^2 / sum w^2.
        """
        subject, x, y = _parts(rows)
        values = frechet(x, y, weights)
        equal = np.ptp(weights, axis=1) == 0
        halves = _halves(subject)
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: nobody was drawn
            inverse = (weights**2).sum(1) / weights.sum(1) ** 2
        slope = np.nan
        if len(halves):
            small, inverse_small = frechet(x, y, halves), 1 / halves.sum(1)
            all_rows = frechet(x, y, np.ones((1, len(rows))))[0]
            slope = (small.mean() - all_rows) / (inverse_small.mean() - 1 / len(rows))
        return np.stack([np.where(equal, values, np.nan), values - slope * inverse], axis=1)


class KernelDistance(Distance):
    """Squared maximum mean discrepancy with a cubic kernel, unbiased (KID)."""

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One output; no kernel value exceeds 8."""
        return (Output("kernel", "lower", 16.0, "distance"),)

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, 1): w H w / w M w, with H the U-statistic's kernel (Gretton et al. 2012, lemma 6).

        M excludes pairs of one person, an image and itself included: they are not independent,
        and resamples would repeat them.
        """
        subject, x, y = _parts(rows)
        apart = (subject[:, None] != subject[None]).astype(np.float64)
        pairs = apart * (cubic(x, x) + cubic(y, y) - cubic(x, y) - cubic(y, x))
        with np.errstate(invalid="ignore"):  # one person: 0 / 0
            value: Floats = ((weights @ pairs) * weights).sum(1) / (
                (weights @ apart) * weights
            ).sum(1)
        return value[:, None]


def cubic(x: Floats, y: Floats) -> Floats:
    """(N, M) values of (x . y + 1)^3.

    The kernel (x . y / d + 1)^3 of Binkowski et al. (2018), for features of length sqrt(d).
    """
    kernel: Floats = (x @ y.T + 1) ** 3
    return kernel


def frechet(x: Floats, y: Floats, weights: Floats) -> Floats:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the weights counting repetitions.

    Args:
        x: (N, d).
        y: (N, d).
        weights: (R, N).

    Returns:
        (R,); NaN where fewer than two rows count.
    """
    a, b, w = (torch.from_numpy(np.ascontiguousarray(v)) for v in (x, y, weights))
    n, d = a.shape
    size = max(1, BLOCK_BYTES // (8 * min(n, d) ** 2))
    root = _root_by_features if d <= n else _root_by_samples
    total = w.sum(1)
    mean_a, mean_b = (w @ a) / total[:, None], (w @ b) / total[:, None]
    variances = w @ (a.square().sum(1) + b.square().sum(1)) - total * (
        mean_a.square().sum(1) + mean_b.square().sum(1)
    )
    good = total > 1
    traces = torch.full_like(total, torch.nan)
    if good.any():
        traces[good] = torch.cat([root(a, b, block) for block in torch.split(w[good], size)])
    values = (mean_a - mean_b).square().sum(1) + (variances - 2 * traces) / (total - 1)
    return np.where(good.numpy(), values.numpy(), np.nan)


def _root_by_features(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """(R,) tr((A B)^(1/2)) of the scatter matrices (d, d): roots of the eigenvalues of L' B L,
    with A = L L'.
    """
    first, second = _scatter(a, w), _scatter(b, w)
    level = first.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-300) * JITTER
    eye = torch.eye(a.shape[1], dtype=a.dtype)
    lower = torch.linalg.cholesky(first + level[:, None, None] * eye)
    return _sum_of_roots(lower.mT @ second @ lower)


def _scatter(a: Tensor, w: Tensor) -> Tensor:
    """(R, d, d) weighted sums of centred outer products."""
    n, d = a.shape
    mean = (w @ a) / w.sum(1, keepdim=True)
    second = (w @ (a[:, :, None] * a[:, None]).reshape(n, d * d)).reshape(-1, d, d)
    return second - w.sum(1)[:, None, None] * mean[:, :, None] * mean[:, None]


def _root_by_samples(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The same from (N, N) products, where features outnumber samples."""
    gram = a @ b.T
    share = w / w.sum(1, keepdim=True)
    columns, lines = share @ gram, share @ gram.T
    middle = (columns * share).sum(1)
    centred = gram - columns[:, None] - lines[:, :, None] + middle[:, None, None]
    product = w.sqrt()[:, :, None] * centred * w.sqrt()[:, None]
    return _sum_of_roots(product @ product.mT)


def _sum_of_roots(matrices: Tensor) -> Tensor:
    total: Tensor = torch.linalg.eigvalsh(matrices).clamp(min=0).sqrt().sum(1)
    return total


def _parts(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Identity (N,), sources (N, d), releases (N, d)."""
    d = (rows.shape[1] - 1) // 2
    return rows[:, 0], rows[:, 1 : 1 + d], rows[:, 1 + d :]


def _halves(subject: Floats) -> Floats:
    """(2 HALVES, N) weights 0 or 1: people cut in two; none for fewer than 4 people."""
    people, identity = np.unique(subject, return_inverse=True)
    if len(people) < 4:
        return np.empty((0, len(subject)))
    deal = np.broadcast_to(np.arange(len(people)) % 2, (HALVES, len(people)))
    one = np.random.default_rng(0).permuted(deal, axis=1)[:, identity].astype(np.float64)
    return np.concatenate([one, 1 - one])
