"""The training loop: the loss of Stable Diffusion on latents that are encoded already."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privbench.errors import ModelError
from privbench.keys import sample_seed
from privbench.membership import Checkpoint, Training
from privbench_plugins.anonymizers._finetune.arrays import (
    load_arrays,
    load_optimizer_arrays,
    optimizer_arrays,
    to_arrays,
)
from privbench_plugins.anonymizers._finetune.lessons import Lessons
from privbench_plugins.anonymizers._finetune.networks import trained_parameters
from privbench_plugins.anonymizers._ldm.loading import choose_scheduler

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig

SECONDS: Final = 60.0
"""About how much work a killed training loses."""

_SAVING: Final = 0.1
"""Largest share of the time that goes into checkpoints between the released ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Everything random about a step, drawn beforehand from the seed, the epoch and the step.

    Attributes:
        rows: (B,) int64 images.
        caption: (B,) int64 texts.
        noise: (B, C, h, w) float32, standard normal.
        times: (B,) int64 noise levels.
    """

    rows: Tensor
    caption: Tensor
    noise: Tensor
    times: Tensor


class FineTuner:
    """Trains a UNet in place, epoch by epoch.

    Attributes:
        done: epochs done.
        losses: mean loss of each of them.
    """

    def __init__(
        self,
        config: LdmFinetuneConfig,
        unet: nn.Module,
        scheduler: Any,
        lessons: Lessons,
        seed: int,
    ) -> None:
        self._config, self._unet, self._lessons, self._seed = config, unet, lessons, seed
        self._schedule = choose_scheduler(scheduler, "ddim")
        self._parameters = trained_parameters(unet, config.method)
        unet.requires_grad_(False).train()
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=config.learning_rate, fused=True
        )
        self._device = lessons.latents.device
        self._half = self._device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        self.done = 0
        self.losses: list[float] = []

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a report says beside the losses."""
        return {
            "images": len(self._lessons.caption),
            "captions_cut": self._lessons.cut,
            "parameters": sum(p.numel() for p in self._parameters.values()),
            "threads": torch.get_num_threads(),
            "precision": "bfloat16" if self._half else "float32",
        }

    def epoch(self, advance: Callable[[int], None]) -> None:
        """See every image once.

        Raises:
            ModelError: the loss is no number any more, or memory ran out.
        """
        images = len(self._lessons.caption)
        order = torch.randperm(images, generator=self._generator("order"))
        total = torch.zeros((), device=self._device)
        for step, rows in enumerate(torch.split(order, self._config.batch)):
            total += self.step(self.batch(step, rows)) * len(rows)
            advance(len(rows))
        loss = float(total) / images
        if not math.isfinite(loss):
            raise ModelError(
                f"Fine-tuning diverged in epoch {self.done + 1}: the loss is {loss}. Lower "
                f"learning_rate= ({self._config.learning_rate:g})."
            )
        self.losses.append(loss)
        self.done += 1

    def batch(self, step: int, rows: Tensor) -> Batch:
        """Draw what is random about a step of the coming epoch."""
        generator = self._generator(str(step))
        shape = (len(rows), *self._lessons.latents.shape[1:])
        noise = torch.randn(shape, generator=generator)
        levels = self._schedule.config.num_train_timesteps
        times = torch.randint(levels, (len(rows),), generator=generator)
        dropped = torch.rand(len(rows), generator=generator) < self._config.unconditional
        rows, dropped = rows.to(self._device), dropped.to(self._device)
        caption = self._lessons.caption[rows].masked_fill(dropped, len(self._lessons.hidden) - 1)
        return Batch(rows, caption, noise.to(self._device), times.to(self._device))

    def step(self, batch: Batch) -> Tensor:
        """Take one optimiser step; its loss."""
        try:
            loss = self.loss(batch)
            torch.autograd.backward(loss)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"A training step of {len(batch.rows)} images does not fit into the memory of "
                f"{self._device}. Lower batch=, or set method=lora."
            ) from error
        nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of what the model predicts: noise, velocity or image."""
        latents = self._lessons.latents[batch.rows]
        noisy = self._schedule.add_noise(latents, batch.noise, batch.times)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            predicted = self._unet(
                noisy.contiguous(memory_format=torch.channels_last),
                batch.times,
                return_dict=False,
                **self._lessons.text(batch.caption),
            )[0]
        return F.mse_loss(predicted.float(), self._target(latents, batch))

    def _target(self, latents: Tensor, batch: Batch) -> Tensor:
        kind = self._schedule.config.prediction_type
        if kind == "epsilon":
            return batch.noise
        if kind == "sample":
            return latents
        velocity: Tensor = self._schedule.get_velocity(latents, batch.noise, batch.times)
        return velocity

    def checkpoint(self, report: Mapping[str, Any], last: bool) -> Checkpoint:
        """The training as it stands; after the last epoch there is nothing to go on with."""
        resume = {} if last else optimizer_arrays(self._optimizer, self._parameters)
        return Checkpoint(self.done, to_arrays(self._parameters), resume, report)

    def resume(self, start: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            ModelError: it is one of another model or method.
        """
        load_arrays(self._parameters, start.weights)
        load_optimizer_arrays(self._optimizer, self._parameters, start.resume)
        self.done, self.losses = start.epoch, list(start.report["loss"])

    def _generator(self, what: str) -> torch.Generator:
        return torch.Generator().manual_seed(sample_seed(self._seed, what, self.done))


def run(tuner: FineTuner, config: LdmFinetuneConfig, training: Training) -> None:
    """Train to the last epoch, keeping what is to be released, and where to go on if killed."""
    images = int(tuner.facts["images"])
    earlier = float(training.start.report["seconds"]) if training.start else 0.0
    began = saved = time.monotonic()
    wait, saving = SECONDS, 0.0
    left = (config.epochs - tuner.done) * images
    with training.reporter.task("fine-tuning", left) as task:
        while tuner.done < config.epochs:
            tuner.epoch(task.advance)
            last = tuner.done == config.epochs
            if not last and tuner.done not in config.keep and time.monotonic() - saved < wait:
                continue
            before = time.monotonic()
            report = _report(tuner, earlier + before - began - saving)
            training.keep(tuner.checkpoint(report, last))
            saved = time.monotonic()
            saving += saved - before
            wait = max(SECONDS, (saved - before) / _SAVING)


def _report(tuner: FineTuner, seconds: float) -> Mapping[str, Any]:
    images = tuner.done * int(tuner.facts["images"])
    return {
        "loss": list(tuner.losses),
        "seconds": seconds,
        "images_per_second": images / seconds,
        **tuner.facts,
    }
