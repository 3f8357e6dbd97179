"""Inversion by search: an image that the anonymizer turns into what was released."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, Final, Self, cast

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Generator, Tensor

from privbench.types import UNKNOWN, AttackerView, ImageSet, Oracle, TrainedInverter, quantize
from privbench_plugins.anonymizers._ldm.pixels import resize
from privbench_plugins.attacks.embedding import use_bfloat16
from privbench_plugins.attacks.inversion import _linear
from privbench_plugins.attacks.inversion._optimise_latents import Autoencoder, Reading
from privbench_plugins.attacks.inversion._optimise_search import (
    DISTANCES,
    Distance,
    Search,
    State,
)
from privbench_plugins.attacks.inversion.choice import OwnJudge
from privbench_plugins.attacks.inversion.linear import LinearConfig
from privbench_plugins.attacks.inversion.optimise import OptimiseConfig
from privbench_plugins.attacks.inversion.pairs import Pairs, ask

SEARCHED: Final = 24
"""Validation photos that are searched for to choose how, at most."""

_COMPONENTS: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class OptimiseInverter:
    """See `OptimiseConfig`."""

    config: OptimiseConfig

    def train(self, view: AttackerView) -> TrainedInverter:
        """Fit where a search starts and how it steps, and choose how far it goes.

        Raises:
            PluginError: no oracle, or too few photos or queries.
            ModelError: the autoencoder cannot be loaded.
        """
        config, before = self.config, view.oracle.queries if view.oracle else 0
        distances = DISTANCES if config.distance == "auto" else (config.distance,)
        each = config.queries_per_image * len(distances) + _noise_queries(view.draws)
        photos = min(SEARCHED, len(view.validation))
        if config.queries:
            photos = min(photos, config.queries // (4 * each))
        train, validation = ask(view, config.queries and config.queries - photos * each)
        photos = min(photos, len(validation))
        tools = Tools.fit(config, train, validation, view)
        trained = TrainedOptimise(tools, distances[0], config.queries_per_image, {})
        if photos:
            some = Pairs(
                validation.clear[:photos],
                validation.released[:, :photos],
                validation.subject[:photos],
            )
            trained = chosen(tools, distances, some)
        trained.report = {
            "queries": tools.oracle.queries - before,
            "pairs": {"train": len(train), "validation": len(validation)},
            "start": dict(tools.start.report),
            "parameters": tools.reading.weight.numel() + tools.reading.bias.numel(),
            "threads": torch.get_num_threads(),
            **trained.report,
        }
        return trained


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What a search needs, whatever it searches for.

    Attributes:
        config: settings.
        oracle: the anonymizer.
        size: (height, width) of candidates, multiples of the autoencoder's factor.
        autoencoder: its latents are searched.
        start: the linear inversion at which a search starts.
        reading: latents that a release suggests.
        principal: (M, C, h, w) principal components of the attacker's latents, each as long as
            its standard deviation.
        seed: of all perturbations.
    """

    config: OptimiseConfig
    oracle: Oracle
    size: tuple[int, int]
    autoencoder: Autoencoder
    start: _linear.TrainedLinear
    reading: Reading
    principal: Tensor
    seed: int

    @classmethod
    def fit(
        cls, config: OptimiseConfig, train: Pairs, validation: Pairs, view: AttackerView
    ) -> Self:
        """Fit to training pairs; the linear inversion is chosen on validation pairs."""
        half = use_bfloat16(config.dtype, view.device)
        dtype = torch.bfloat16 if half else torch.float32
        autoencoder = Autoencoder.load(config.model, config.revision, view.device, dtype)
        factor = autoencoder.factor
        settings = LinearConfig(basis="patch", side=config.side, patch=factor, margin=config.margin)
        start = _linear.fit(settings, train, validation, view.seed, view.device)
        height, width = (max(1, round(s / factor)) * factor for s in start.size)
        size = (height, width)
        latents = autoencoder.encode(_linear.scaled(train.clear, size))
        released = _linear.mean_draw(train.released, size)
        penalty = start.report["chosen"]["penalty"]
        reading = Reading.fit(released, latents, factor, config.margin, penalty, view.seed)
        principal = _principal(latents, view.seed)
        oracle = cast(Oracle, view.oracle)  # it has just answered
        return cls(config, oracle, size, autoencoder, start, reading, principal, view.seed)

    def states(self, draws: Sequence[ImageSet], distance: Distance) -> Iterator[State]:
        """The state of the search after each query.

        Args:
            draws: K releases of N photographs, no two of them alike.
            distance: where releases are compared.
        """
        released = torch.stack([draw.pixels for draw in draws])
        search = Search(
            _linear.mean_draw(released, self.size),
            self.autoencoder.decode,
            self._asker(draws),
            self.reading,
            distance,
            self._directions(fingerprints(draws)),
        )
        return search.states(self.begin(draws), self.config.queries_per_image)

    def begin(self, draws: Sequence[ImageSet]) -> Tensor:
        """(N, C, h, w) latents of the linear inversion."""
        return self.autoencoder.encode(resize(self.start.invert(draws)[:, 0], *self.size))

    def noise(self, draws: Sequence[ImageSet], pixels: Tensor) -> float | None:
        """Root mean square difference, in [0, 1], of two draws of the same candidates; None
        where there is one draw alone."""
        if len(draws) == 1:
            return None
        one, other = (self._asker(draws, draw)(pixels) for draw in range(2))
        return float((one - other).square().mean().sqrt())

    def _asker(self, draws: Sequence[ImageSet], draw: int = 0) -> Callable[[Tensor], Tensor]:
        """(N, 3, h, w) candidates for N photographs to what the anonymizer makes of them.

        Keys, and with them the seeds of a stochastic anonymizer, are the same for all candidates
        of an image: what differs between two answers is owed to the candidates.
        """
        keys = tuple(f"optimise/{mark}" for mark in fingerprints(draws))
        shape = draws[0].pixels.shape[2:]

        def asked(pixels: Tensor) -> Tensor:
            candidates = quantize(resize(pixels, *shape))
            answers = self.oracle(ImageSet(candidates, np.arange(len(keys)), keys), draw=draw)
            return resize(answers.floats(), *self.size)

        return asked

    def _directions(self, marks: Sequence[str]) -> Tensor:
        """(N, M, C, h, w) random mixtures of principal components, from each image's own seed."""
        pairs = round(self.config.explore * (self.config.queries_per_image - 1) / 2)
        shape = (pairs, len(self.principal))
        mixtures = [
            torch.randn(shape, generator=Generator().manual_seed(self.seed ^ int(mark[:15], 16)))
            for mark in marks
        ]
        found: Tensor = torch.tensordot(torch.stack(mixtures), self.principal, dims=1)
        return found


def chosen(tools: Tools, distances: Sequence[Distance], validation: Pairs) -> TrainedOptimise:
    """The distance, and the number of queries at which a search stops: those whose candidates
    the own judge finds most similar to the originals."""
    judge = OwnJudge.of(validation, tools.autoencoder.network.device)
    height, width = validation.clear.shape[2:]
    draws, back = distinct(_as_draws(validation.released))
    history: list[dict[str, Any]] = []
    last: State | None = None
    for distance in distances:
        for query, state in enumerate(tools.states(draws, distance), 1):
            last = state
            made = quantize(resize(state.pixels[back], height, width))
            history.append(
                {
                    "distance": distance,
                    "queries": query,
                    "similarity": judge.similarity(made),
                    "remaining": float(state.distance.mean()),
                }
            )
    best = max(history, key=itemgetter("similarity"))
    facts = {
        "chosen": {"distance": best["distance"], "queries_per_image": best["queries"]},
        "validation": {"photos": len(validation), "similarity": best["similarity"]},
        "history": history,
        "noise": tools.noise(draws, last.pixels) if last is not None else None,
    }
    return TrainedOptimise(tools, best["distance"], best["queries"], facts)


@dataclass(slots=True, eq=False)
class TrainedOptimise:
    """A search with chosen settings.

    Attributes:
        tools: what it needs.
        distance: where releases are compared.
        queries: candidates of each image, the start among them.
        report: facts for the record.
    """

    tools: Tools
    distance: Distance
    queries: int
    report: Mapping[str, Any]

    def invert(self, draws: Sequence[ImageSet]) -> Tensor:
        """(N, 1, 3, H, W): the image whose release is nearest to the mean of the draws.

        Equal releases are searched for once.
        """
        height, width = draws[0].pixels.shape[2:]
        wanted, back = distinct(draws)
        if self.queries == 1:  # the start as it is: nothing to ask
            pixels = self.tools.autoencoder.decode(self.tools.begin(wanted))
        else:
            states = self.tools.states(wanted, self.distance)
            pixels = next(islice(states, self.queries - 1, None)).pixels
        return resize(pixels, height, width)[back][:, None]


def distinct(draws: Sequence[ImageSet]) -> tuple[list[ImageSet], Tensor]:
    """Those of N photographs whose releases differ, and the (N,) place of each among them."""
    _, first, place = np.unique(fingerprints(draws), return_index=True, return_inverse=True)
    return [draw.take(first) for draw in draws], torch.from_numpy(place)


def fingerprints(draws: Sequence[ImageSet]) -> list[str]:
    """One hexadecimal hash for each photograph, of the pixels of all its releases."""
    stacked = torch.stack([draw.pixels for draw in draws], dim=1)
    return [hashlib.sha256(pixels.numpy().tobytes()).hexdigest() for pixels in stacked]


def _as_draws(released: Tensor) -> list[ImageSet]:
    """(K, N, 3, H, W) uint8 releases as K sets of images."""
    n = released.shape[1]
    keys = tuple(map(str, range(n)))
    return [ImageSet(pixels, np.full(n, UNKNOWN), keys) for pixels in released]


def _noise_queries(draws: int) -> int:
    """Queries for each photo that measuring the noise takes."""
    return 2 if draws > 1 else 0


def _principal(latents: Tensor, seed: int) -> Tensor:
    """(M, C, h, w) principal components of (N, C, h, w) latents, scaled by their deviations."""
    rows = latents.flatten(1).numpy()
    count = min(_COMPONENTS, *rows.shape)
    found = PCA(count, random_state=seed % 2**32).fit(rows)
    scaled = found.components_ * np.sqrt(found.explained_variance_)[:, None]
    return torch.from_numpy(scaled).float().view(count, *latents.shape[1:])
