"""`inversion-ldm`: a ControlNet that learns to paint the face behind a released image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import ModelError
from privbench.types import UNKNOWN, AttackerView, ImageBatch, ImageSet, quantize
from privbench_plugins.anonymizers._ldm.anonymizer import LatentAnonymizer
from privbench_plugins.anonymizers._ldm.folders import find_controlnet, find_pipeline
from privbench_plugins.anonymizers._ldm.guides import ControlNetGuide
from privbench_plugins.anonymizers._ldm.loading import Diffuser, load_diffuser, load_network
from privbench_plugins.attacks.embedding import use_bfloat16
from privbench_plugins.attacks.inversion._ldm_training import Training
from privbench_plugins.attacks.inversion.choice import OwnJudge
from privbench_plugins.attacks.inversion.ldm import LdmInversionConfig
from privbench_plugins.attacks.inversion.pairs import Pairs, ask


class ReleaseGuide(ControlNetGuide):
    """A ControlNet whose condition is the image itself, in colour."""

    def condition(self, pixels: Tensor) -> Tensor:
        """(N, 3, R, R) in [0, 1], as they are."""
        return pixels


def unmapped(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) as they are: no map is estimated."""
    return pixels


@dataclass(frozen=True, slots=True, eq=False)
class Painter:
    """Samples of a diffusion model guided by released images.

    Attributes:
        sampler: in batches of one shape.
        samples: of each released image.
        seed: of the run.
    """

    sampler: LatentAnonymizer
    samples: int
    seed: int

    @classmethod
    def of(cls, config: LdmInversionConfig, model: Diffuser, network: Any, seed: int) -> Painter:
        """For a trained ControlNet, which is taken apart."""
        guide = ReleaseGuide.of(network, unmapped, scale=1.0).to(model.device, model.dtype)
        sampler = LatentAnonymizer(
            model,
            guide,
            steps=config.denoising_steps,
            guidance_scale=1.0,
            dtype=str(model.dtype).removeprefix("torch."),
            batch_size=config.invert_batch,
        )
        return cls(sampler, config.samples, seed)

    def paint(self, released: Tensor, sample: int) -> Tensor:
        """One sample of each of (N, 3, H, W) uint8 released images, of the same shape and type.

        The noise comes from the image's own bytes and the number of the sample, so that it does
        not matter what else is painted, or when.
        """
        seeds = [noise_seed(image, sample, self.seed) for image in released]
        keys = tuple(map(str, range(len(released))))
        batch = ImageBatch(released.float().div_(255), np.full(len(released), UNKNOWN), keys)
        return quantize(self.sampler.anonymize(batch, seeds))


def noise_seed(image: Tensor, sample: int, seed: int) -> int:
    """63 bits from a (3, H, W) uint8 image, the number of the sample and the run's seed."""
    content = f"{seed}/{sample}/".encode() + image.numpy().tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


@dataclass(slots=True, eq=False)
class TrainedLdmInversion:
    """The trained ControlNet.

    Attributes:
        report: what was chosen and the history it was chosen from.
        painter: samples it.
    """

    report: Mapping[str, Any]
    painter: Painter

    def invert(self, draws: Sequence[ImageSet]) -> Tensor:
        """See `TrainedInverter.invert`: every sample of every draw, all of them equals."""
        painted = [
            self.painter.paint(draw.pixels, sample)
            for draw in draws
            for sample in range(self.painter.samples)
        ]
        return torch.stack(painted, 1).float().div_(255)


class LdmInversion:
    """Trains a ControlNet on what the anonymizer makes of the attacker's photos."""

    def __init__(self, config: LdmInversionConfig) -> None:
        self.config = config

    def train(self, view: AttackerView) -> TrainedLdmInversion:
        """Ask for pairs, train the ControlNet, keep the weights that validation likes best.

        Raises:
            PluginError: there is no oracle, or too few photos or queries.
            ModelError: a model cannot be loaded, or the two do not fit together.
        """
        config = self.config
        train, validation = ask(view, config.queries)
        model, network = load(config, view.device)
        training = Training(config, model, network, train, view.seed)
        judge = OwnJudge.of(validation, view.device)
        best = Painter.of(config, model, training.averaged(), view.seed)
        history = [{"step": 0} | judged(best, judge, validation)]
        with view.reporter.task("inversion-ldm: training", config.steps, unit="steps") as task:
            for stop in stops(config.steps, config.checkpoints):
                losses = []
                while training.done < stop:
                    losses.append(training.advance())
                    task.advance()
                painter = Painter.of(config, model, training.averaged(), view.seed)
                entry = {"step": stop, "loss": float(np.mean(losses))}
                history.append(entry | judged(painter, judge, validation))
                best = painter if best_entry(history) is history[-1] else best
        report = {
            "chosen_step": best_entry(history)["step"],
            "history": history,
            "queries": train.queries + validation.queries,
            "pairs": len(train),
            "validation_pairs": len(validation),
            "draws": view.draws,
            "samples": config.samples,
            "resolution": model.resolution,
            "parameters": sum(p.numel() for p in network.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }
        return TrainedLdmInversion(report, best)


def stops(steps: int, checkpoints: int) -> list[int]:
    """After which steps validation looks, evenly spaced, the last one included."""
    return sorted({round(steps * i / checkpoints) for i in range(1, checkpoints + 1)} - {0})


def judged(painter: Painter, judge: OwnJudge, validation: Pairs) -> dict[str, float]:
    """What the attacker's own judge says of one sample of each validation photo."""
    painted = painter.paint(validation.released[0], 0)
    return {"similarity": judge.similarity(painted)} | asdict(judge.identification(painted))


def best_entry(history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The first entry of highest similarity."""
    return max(history, key=lambda entry: entry["similarity"])


def load(config: LdmInversionConfig, device: torch.device) -> tuple[Diffuser, Any]:
    """The frozen model, and the ControlNet to train, in float32.

    Raises:
        ModelError: one of them cannot be loaded, or they do not fit together.
    """
    found = find_pipeline(config.model, config.revision, config.variant, config.resolution)
    if found.random:
        raise ModelError(f"{found.random} has random weights, which cannot paint faces.")
    dtype = torch.bfloat16 if use_bfloat16(config.dtype, device) else torch.float32
    model = load_diffuser(found, config.prompt, "", guided=False, scheduler="keep")
    if config.start:
        control = find_controlnet(
            config.start, config.start_revision, config.variant, pipeline=found
        )
        network = load_network(control, "ControlNetModel")
    else:
        network = encoder_copy(model)
    return model.to(device, dtype), network


def encoder_copy(model: Diffuser) -> Any:
    """A ControlNet that begins as the model's own encoder (Zhang et al. 2023); its links to the
    model begin at zero."""
    widths = tuple(16 * 2**level for level in range(model.factor.bit_length()))
    return diffusers.ControlNetModel.from_unet(
        model.unet, conditioning_embedding_out_channels=widths
    )
