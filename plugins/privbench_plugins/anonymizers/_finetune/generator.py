"""The anonymizer as the harness drives it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from privbench.errors import DataError
from privbench.membership import Arrays, Training
from privbench.types import UNKNOWN, ImageSet
from privbench_plugins.anonymizers._finetune.arrays import load_arrays
from privbench_plugins.anonymizers._finetune.files import released_files
from privbench_plugins.anonymizers._finetune.lessons import prepare
from privbench_plugins.anonymizers._finetune.networks import add_lora, load, trained_parameters
from privbench_plugins.anonymizers._finetune.target import LatentTarget
from privbench_plugins.anonymizers._finetune.training import FineTuner, run
from privbench_plugins.datasets._decode import decode, each

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig


@dataclass(frozen=True, slots=True)
class FineTuning:
    """`ldm-finetune`."""

    config: LdmFinetuneConfig

    def fit(self, private: ImageSet, training: Training) -> None:
        """Train the UNet, from `training.start` on; the results are the checkpoints that are kept.

        Raises:
            ModelError: the model cannot be loaded, or training failed.
        """
        config = self.config
        model = load(config, guided=True)
        if config.method == "lora":
            add_lora(model.unet, config.rank, training.seed)
        model = model.to(training.device, torch.float32)
        lessons = prepare(config, model, private)
        if lessons.cut:
            training.reporter.note(
                f"{lessons.cut} of {len(private)} captions are longer than the text encoder "
                "reads: their last words are lost. Shorten caption=."
            )
        tuner = FineTuner(config, model.unet, model.scheduler, lessons, training.seed)
        if training.start:
            tuner.resume(training.start)
        run(tuner, config, training)

    def restore(self, weights: Arrays, device: torch.device) -> LatentTarget | None:
        """The model of one checkpoint, or that which was there before; None for released images.

        Raises:
            ModelError: it cannot be loaded, or the weights are another model's.
        """
        config = self.config
        if config.release:
            return None
        model = load(config, guided=config.guidance_scale > 1)
        if weights:
            lora = config.method == "lora"
            if lora:
                add_lora(model.unet, config.rank, 0)
            load_arrays(trained_parameters(model.unet, config.method), weights)
            if lora:  # one network again, as fast as before
                model.unet.fuse_lora()
                model.unet.unload_lora()
        return LatentTarget(config, model, device)

    def released(self) -> ImageSet | None:
        """The images of the folder `release`; None where a model is sampled.

        Raises:
            DataError: an image cannot be read, or they are of several sizes.
        """
        if not self.config.release:
            return None
        folder = Path(self.config.release).expanduser()
        files = released_files(folder)
        names = [file.relative_to(folder).as_posix() for file in files]
        images = each(lambda file: decode(str(file), file.read_bytes()), files)
        for name, image in zip(names, images, strict=True):
            if image.shape != images[0].shape:
                raise DataError(
                    f"Released images must be of one size. {names[0]} is {_size(images[0])}, "
                    f"{name} is {_size(image)}: resize or crop them all alike."
                )
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return ImageSet(pixels, np.full(len(files), UNKNOWN), tuple(names))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
