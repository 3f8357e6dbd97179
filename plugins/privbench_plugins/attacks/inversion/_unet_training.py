"""Training of `inversion-unet`: batches, losses and steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from privbench_plugins.attacks.inversion._unet_net import Unet
from privbench_plugins.attacks.inversion.pairs import Pairs
from privbench_plugins.attacks.inversion.unet import UnetInversionConfig
from privbench_plugins.tiny_encoder.ema import Ema
from privbench_plugins.tiny_encoder.net import TinyEncoder, resize
from privbench_plugins.tiny_faces.muon import muon_with_adam

_BLOCK = 64
_WARM_UP = 0.05
_OUTER = 0.2
"""Learning rate of the outermost layers, by AdamW, as a share of the others'."""


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What a reconstruction lacks.

    Attributes:
        encoder: the attacker's, frozen.
        config: weights of the parts.
    """

    encoder: TinyEncoder
    config: UnetInversionConfig

    def __call__(self, made: Tensor, clear: Tensor) -> Tensor:
        """Weighted sum for (n, 3, S, S) reconstructions of originals in [0, 1]."""
        config = self.config
        total = config.reconstruction * F.l1_loss(made, clear)
        if config.perceptual or config.identity:
            maps, rows = features(self.encoder, made)
            with torch.no_grad():
                true_maps, true_rows = features(self.encoder, clear)
            distances = [unlikeness(a, b) for a, b in zip(maps, true_maps, strict=True)]
            total = total + config.perceptual * torch.stack(distances).mean()
            total = total + config.identity * (1 - (rows * true_rows).sum(1)).mean()
        return total


def features(encoder: TinyEncoder, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
    """The maps after each stage of the encoder, finest first, and (n, D) embeddings."""
    maps: list[Tensor] = []
    ends = torch.tensor(encoder.config.depths).cumsum(0) - 1
    hooks = [
        encoder.body[end].register_forward_hook(lambda _, __, out: maps.append(out))
        for end in ends.tolist()
    ]
    rows: Tensor = encoder(pixels)
    for hook in hooks:
        hook.remove()
    return maps, rows


def unlikeness(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of two maps' channel vectors of length one, as in LPIPS (Zhang et al.
    2018) without its weights."""
    return (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()


class Training:
    """One training of a network, in place.

    Attributes:
        done: steps taken.
    """

    def __init__(
        self,
        config: UnetInversionConfig,
        network: Unet,
        losses: Losses,
        pairs: Pairs,
        side: int,
        seed: int,
        bfloat16: bool,
        device: torch.device,
    ) -> None:
        self.done = 0
        self._config, self._network, self._losses = config, network, losses
        self._bfloat16, self._device = bfloat16, device
        self._clear = shrunk(pairs.clear, side)
        self._released = torch.stack([shrunk(draw, side) for draw in pairs.released])
        self._generator = Generator().manual_seed(seed % 2**63)
        self._rows = torch.empty(0, dtype=torch.int64)
        self._average = Ema(network, config.average)
        self._optimizers = muon_with_adam(
            network.named_parameters(), lambda name: name.startswith(("entry", "exit"))
        )

    def averaged(self) -> dict[str, Tensor]:
        """A copy of the averaged weights."""
        return {key: value.clone() for key, value in self._average.average.items()}

    def advance(self) -> float:
        """Take one step; return its loss."""
        rate = self._config.learning_rate * schedule(self.done, self._config.steps)
        released, clear = self._batch()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            loss = self._losses(self._network(released), clear)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        for optimizer, share in zip(self._optimizers, (1.0, _OUTER), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = share * rate
            optimizer.step()
            optimizer.zero_grad()
        self._average.update()
        self.done += 1
        return loss.item()

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Released and clear (batch, 3, S, S) float in [0, 1]; both of a pair mirrored or none."""
        generator, count = self._generator, self._config.batch
        while len(self._rows) < count:
            order = torch.randperm(len(self._clear), generator=generator)
            self._rows = torch.cat([self._rows, order])
        rows, self._rows = self._rows[:count], self._rows[count:]
        draw = torch.randint(len(self._released), (count,), generator=generator)
        mirror = torch.rand(count, generator=generator) < 0.5
        both = torch.stack([self._released[draw, rows], self._clear[rows]])
        both[:, mirror] = both[:, mirror].flip(-1)
        released, clear = both.to(self._device).float().div_(255)
        return released, clear


def shrunk(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 resized to `side` x `side`, bytes again."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    blocks = [resize(block.float(), side) for block in torch.split(pixels, _BLOCK)]
    return torch.cat([block.round_().clamp_(0, 255).to(torch.uint8) for block in blocks])


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a short rise, then half a cosine down to nought."""
    rise = max(1, round(_WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
