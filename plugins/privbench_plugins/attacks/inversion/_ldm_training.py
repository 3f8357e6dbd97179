"""Training a ControlNet on pairs: the model that it steers is frozen."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privbench_plugins.anonymizers._ldm.loading import Diffuser, choose_scheduler
from privbench_plugins.anonymizers._ldm.pixels import resize
from privbench_plugins.attacks.inversion.choice import embed, encoder_folder
from privbench_plugins.attacks.inversion.ldm import LdmInversionConfig
from privbench_plugins.attacks.inversion.pairs import Pairs
from privbench_plugins.tiny_encoder import net
from privbench_plugins.tiny_encoder.ema import Ema

NOISIER = 0.6
"""Share of the noise levels below which no identity is asked for."""

_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One batch: everything random about a step, drawn beforehand.

    Attributes:
        latents: (B, C, h, w) float32 of clear photos.
        noise: (B, C, h, w) float32, standard normal.
        times: (B,) int64.
        released: (B, 3, R, R) float32 in [0, 1], what the ControlNet sees.
        identity: (B, D) what the attacker's encoder makes of the clear photos.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    released: Tensor
    identity: Tensor


class Training:
    """Trains a ControlNet in place, some steps at a time.

    Attributes:
        network: the ControlNet, float32.
        schedule: diffusers scheduler of the model's noise levels.
        average: its averaged weights.
        done: steps taken.
    """

    def __init__(
        self, config: LdmInversionConfig, model: Diffuser, network: Any, pairs: Pairs, seed: int
    ) -> None:
        self.network = network.to(model.device, memory_format=torch.channels_last)
        self.network.train().requires_grad_(True)
        self.average = Ema(self.network, config.average)
        self.done = 0
        self._half = model.dtype == torch.bfloat16
        self._config, self._model, self._pairs, self._seed = config, model, pairs, seed
        self.schedule = choose_scheduler(model.scheduler, "ddim")
        self._latents = mirrored_latents(model, pairs.clear)
        self._encoder = net.load(encoder_folder()).to(model.device).requires_grad_(False)
        self._identity = torch.stack(
            [embed(self._encoder, x, model.device) for x in (pairs.clear, pairs.clear.flip(3))]
        )
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )

    def advance(self) -> float:
        """Take one optimiser step; its loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * shape(self.done, self._config.steps)
        loss = self.loss(self.lesson())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.average.update()
        self.done += 1
        return float(loss.detach())

    def averaged(self) -> Any:
        """A copy of the network with the averaged weights."""
        network = copy.deepcopy(self.network)
        self.average.copy_to(network)
        return network

    def lesson(self) -> Lesson:
        """The batch of the next step; all its randomness comes from the seed and the step.

        Times are stratified (one in each B-th of the range): the loss of a small batch is far
        steadier than with independent ones.
        """
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self.done) % 2**63)
        draws, photos = self._pairs.released.shape[:2]
        size = self._config.batch
        rows = torch.randint(photos, (size,), generator=generator)
        draw = torch.randint(draws, (size,), generator=generator)
        mirrored = torch.randint(2, (size,), generator=generator)
        strata = torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)
        levels = self.schedule.config.num_train_timesteps
        times = (strata / size * levels).long().clamp_(max=levels - 1)
        latents = self._latents[mirrored, rows]
        released = self._pairs.released[draw, rows]
        released = torch.where(mirrored.view(-1, 1, 1, 1) > 0, released.flip(3), released)
        side, device = self._model.resolution, self._model.device
        return Lesson(
            latents.to(device),
            torch.randn(latents.shape, generator=generator).to(device),
            times.to(device),
            resize(released.to(device).float().div_(255), side, side),
            self._identity[mirrored, rows].to(device),
        )

    def loss(self, lesson: Lesson) -> Tensor:
        """Mean squared error of what the model predicts (noise, velocity or image), and how unlike
        the person the image is that the prediction amounts to.

        No weights over time: those that follow the signal vanish at the noisy end, where what a
        face looks like is decided.
        """
        noisy = self.schedule.add_noise(lesson.latents, lesson.noise, lesson.times)
        predicted = self._predict(noisy, lesson).float()
        loss = F.mse_loss(predicted, self.target(lesson))
        if self._config.identity:
            loss = loss + self._config.identity * self._unlikeness(noisy, predicted, lesson)
        return loss

    def _unlikeness(self, noisy: Tensor, predicted: Tensor, lesson: Lesson) -> Tensor:
        """Mean of 1 - cosine over the noisier samples; the others show the person anyway."""
        levels = self.schedule.config.num_train_timesteps
        rows = (lesson.times >= NOISIER * levels).nonzero()[:, 0]
        if not len(rows):
            return predicted.new_zeros(())
        clean = self.clean(noisy[rows], predicted[rows], lesson.times[rows])
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=self._half):
            made = self._encoder(self._model.decode(clean))
        cosine: Tensor = (made.float() * lesson.identity[rows]).sum(1)
        return 1 - cosine.mean()

    def clean(self, noisy: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
        """The latents that a prediction amounts to, (B, C, h, w)."""
        kind = self.schedule.config.prediction_type
        levels: Tensor = self.schedule.alphas_cumprod.to(noisy.device)
        signal = levels[times].view(-1, 1, 1, 1)
        if kind == "epsilon":
            return (noisy - (1 - signal).sqrt() * predicted) / signal.sqrt()
        if kind == "sample":
            return predicted
        return signal.sqrt() * noisy - (1 - signal).sqrt() * predicted

    def _predict(self, noisy: Tensor, lesson: Lesson) -> Tensor:
        model = self._model
        noisy = noisy.to(model.dtype, memory_format=torch.channels_last)
        text = model.text.inputs(len(noisy))
        released = lesson.released.contiguous(memory_format=torch.channels_last)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self._half):
            down, middle = self.network(
                noisy, lesson.times, controlnet_cond=released, return_dict=False, **text
            )
            predicted: Tensor = model.unet(
                noisy,
                lesson.times,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                return_dict=False,
                **text,
            )[0]
        return predicted

    def target(self, lesson: Lesson) -> Tensor:
        """What the model ought to predict, (B, C, h, w)."""
        kind = self.schedule.config.prediction_type
        if kind == "epsilon":
            return lesson.noise
        if kind == "sample":
            return lesson.latents
        velocity: Tensor = self.schedule.get_velocity(lesson.latents, lesson.noise, lesson.times)
        return velocity


@torch.no_grad()
def mirrored_latents(model: Diffuser, clear: Tensor) -> Tensor:
    """(2, N, C, h, w) float32 latents on the CPU of (N, 3, H, W) uint8 photos, and of their mirror
    images."""
    side = model.resolution

    def encode(pixels: Tensor) -> Tensor:
        blocks = torch.split(pixels, _BLOCK)
        floats = (block.to(model.device).float().div_(255) for block in blocks)
        return torch.cat([model.encode(resize(block, side, side)).cpu() for block in floats])

    return torch.stack([encode(clear), encode(clear.flip(3))])


def shape(step: int, steps: int) -> float:
    """Learning rate relative to its peak: linear rise over a twentieth, then half a cosine."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
