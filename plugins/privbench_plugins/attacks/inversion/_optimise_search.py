"""Search for latents whose release comes near a given one, many images side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor

from privbench_plugins.attacks.inversion._optimise_latents import Reading

Distance = Literal["pixels", "latents"]
DISTANCES: Final[tuple[Distance, ...]] = ("latents", "pixels")

_STEP: Final = 0.7
_LONGEST: Final = 1.5
_SPREAD: Final = 0.05
_GROW: Final = 1.3
_SHRINK_STEP: Final = 0.5
_SHRINK_SPREAD: Final = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The best candidate so far for each of N images.

    Attributes:
        latents: (N, C, h, w).
        pixels: (N, 3, H, W) it decodes to.
        read: (N, C, h, w) latents that its release suggests.
        distance: (N,) of its release to the given one.
        step: (N, 1, 1, 1) share of the difference that the next step back takes.
        spread: (N, 1, 1, 1) size of the next perturbation.
    """

    latents: Tensor
    pixels: Tensor
    read: Tensor
    distance: Tensor
    step: Tensor
    spread: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What does not change while N images are searched for.

    Attributes:
        released: (N, 3, H, W) what was released.
        decode: latents to pixels.
        ask: pixels of candidates to what the anonymizer makes of them; one query each.
        reading: a release to the latents that it suggests.
        distance: where releases are compared.
        directions: (N, M, C, h, w) perturbations of latents, each image's own.
    """

    released: Tensor
    decode: Callable[[Tensor], Tensor]
    ask: Callable[[Tensor], Tensor]
    reading: Reading
    distance: Distance
    directions: Tensor

    def states(self, start: Tensor, queries: int) -> Iterator[State]:
        """The state after each query: that of the start, then what candidates improve.

        Steps back come first: the difference between the latents that the given release and the
        candidate's suggest is added to the candidate (iterated back-projection, Irani and Peleg
        1991, with a learnt projection). Pairs of opposite perturbations follow, one for each
        direction. A candidate replaces the best one if it comes nearer. Steps and perturbations
        grow with success and shrink with failure, for each image by itself.

        Args:
            start: (N, C, h, w) latents.
            queries: candidates of each image, the start among them.
        """
        wanted = self.reading(self.released)
        pixels, read, distance = self._judged(start, wanted)
        ones = torch.ones(len(start), 1, 1, 1)
        state = State(start, pixels, read, distance, _STEP * ones, _SPREAD * ones)
        yield state
        perturbed = min(2 * self.directions.shape[1], queries - 1)
        for _ in range(queries - 1 - perturbed):
            moved = state.latents + state.step * (wanted - state.read)
            better, state = self._improved(state, moved, wanted)
            step = state.step * torch.where(better, _GROW, _SHRINK_STEP)
            state = replace(state, step=step.clamp_(max=_LONGEST))
            yield state
        for turn in range(perturbed):
            sign = 1 - 2 * (turn % 2)
            moved = state.latents + sign * state.spread * self.directions[:, turn // 2]
            better, state = self._improved(state, moved, wanted)
            state = replace(state, spread=state.spread * torch.where(better, _GROW, _SHRINK_SPREAD))
            yield state

    def _improved(self, state: State, latents: Tensor, wanted: Tensor) -> tuple[Tensor, State]:
        """(N, 1, 1, 1) whether each candidate is better, and the better of the two states."""
        pixels, read, distance = self._judged(latents, wanted)
        nearer = distance < state.distance
        better = nearer.view(-1, 1, 1, 1)
        return better, replace(
            state,
            latents=torch.where(better, latents, state.latents),
            pixels=torch.where(better, pixels, state.pixels),
            read=torch.where(better, read, state.read),
            distance=torch.where(nearer, distance, state.distance),
        )

    def _judged(self, latents: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels of candidates, the latents that their releases suggest, and (N,) distances."""
        pixels = self.decode(latents)
        released = self.ask(pixels)
        read = self.reading(released)
        here, there = (released, self.released) if self.distance == "pixels" else (read, wanted)
        return pixels, read, (here - there).square().flatten(1).mean(1)
