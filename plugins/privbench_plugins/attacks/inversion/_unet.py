"""`inversion-unet`: queries, training and choice put together, and the trained attack."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from privbench.types import AttackerView, ImageSet, quantize
from privbench_plugins.attacks.embedding import use_bfloat16
from privbench_plugins.attacks.inversion._unet_net import STRIDE, Unet
from privbench_plugins.attacks.inversion._unet_training import Losses, Training
from privbench_plugins.attacks.inversion.choice import OwnJudge, encoder_folder
from privbench_plugins.attacks.inversion.pairs import Pairs, ask
from privbench_plugins.attacks.inversion.unet import UnetInversionConfig
from privbench_plugins.tiny_encoder import net

_LARGEST: Final = 128
"""Side that `side=0` stops at: what a small network learns in minutes on a CPU."""


@dataclass(frozen=True, slots=True, eq=False)
class Restorer:
    """A network with all that a reconstruction depends on.

    Attributes:
        network: in evaluation mode.
        side: at which it works.
        batch: images at once; the last batch is filled up to it, so that a reconstruction does
            not depend on how many others there are.
        device: of the network.
        bfloat16: precision of the convolutions.
    """

    network: Unet
    side: int
    batch: int
    device: torch.device
    bfloat16: bool

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to float32 in [0, 1] of the same size, on the CPU: the mean of an
        image's reconstruction and of its mirror image's."""
        blocks = [self._block(block) for block in torch.split(pixels, self.batch)]
        return torch.cat(blocks)

    def _block(self, pixels: Tensor) -> Tensor:
        filled = F.pad(pixels, (0,) * 7 + (self.batch - len(pixels),)).to(self.device)
        x = net.resize(filled.float().div_(255), self.side)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            made: Tensor = (self.network(x) + self.network(x.flip(3)).flip(3)) / 2
        size = (pixels.shape[2], pixels.shape[3])
        if size != (self.side, self.side):
            made = F.interpolate(made, size, mode="bilinear", antialias=True)
        return made[: len(pixels)].clamp(0, 1).cpu()


@dataclass(slots=True, eq=False)
class TrainedUnetInversion:
    """The trained network.

    Attributes:
        report: what was chosen and the history it was chosen from.
        restorer: the network.
    """

    report: Mapping[str, Any]
    restorer: Restorer

    def invert(self, draws: Sequence[ImageSet]) -> Tensor:
        """See `TrainedInverter.invert`: one reconstruction of each draw, all of them equals."""
        return torch.stack([self.restorer(draw.pixels) for draw in draws], 1)


class UnetInversion:
    """Trains a U-Net to undo what the anonymizer makes of the attacker's photos."""

    def __init__(self, config: UnetInversionConfig) -> None:
        self.config = config

    def train(self, view: AttackerView) -> TrainedUnetInversion:
        """Ask for pairs, train the network, keep the weights that validation likes best.

        Raises:
            PluginError: there is no oracle, or too few photos or queries.
        """
        config, device = self.config, view.device
        train, validation = ask(view, config.queries)
        side, half = config.side or own_side(train), use_bfloat16(config.dtype, device)
        network = create(config, view.seed).to(device)
        encoder = net.load(encoder_folder()).to(device).requires_grad_(False)
        losses = Losses(encoder, config)
        training = Training(config, network, losses, train, side, view.seed, half, device)
        kept = Restorer(copy.deepcopy(network).eval(), side, config.invert_batch, device, half)
        judge = OwnJudge.of(validation, device)
        history = [{"step": 0} | judged(kept, judge, validation)]
        best = training.averaged()
        with view.reporter.task("inversion-unet: training", config.steps, unit="steps") as task:
            for stop in stops(config.steps, config.checkpoints):
                values = []
                while training.done < stop:
                    values.append(training.advance())
                    task.advance()
                kept.network.load_state_dict(training.averaged())
                entry = {"step": stop, "loss": float(np.mean(values))}
                history.append(entry | judged(kept, judge, validation))
                best = training.averaged() if best_entry(history) is history[-1] else best
        kept.network.load_state_dict(best)
        report = {
            "chosen_step": best_entry(history)["step"],
            "history": history,
            "queries": train.queries + validation.queries,
            "pairs": len(train),
            "validation_pairs": len(validation),
            "draws": view.draws,
            "side": side,
            "parameters": sum(p.numel() for p in network.parameters()),
            "dtype": "bfloat16" if half else "float32",
            "threads": torch.get_num_threads(),
        }
        return TrainedUnetInversion(report, kept)


def own_side(pairs: Pairs) -> int:
    """The least side that the network can work at and no pixel is lost, up to a limit."""
    return min(-(-max(pairs.clear.shape[2:]) // STRIDE) * STRIDE, _LARGEST)


def create(config: UnetInversionConfig, seed: int) -> Unet:
    """The untrained network, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return Unet(config.width, config.depth)


def judged(restorer: Restorer, judge: OwnJudge, validation: Pairs) -> dict[str, float]:
    """What the attacker's encoder says of the reconstructions of validation photos, first draw."""
    made = quantize(restorer(validation.released[0]))
    return {"similarity": judge.similarity(made)} | asdict(judge.identification(made))


def best_entry(history: list[dict[str, float]]) -> dict[str, float]:
    """The first entry whose reconstructions are most similar to their originals."""
    return max(history, key=lambda entry: entry["similarity"])


def stops(steps: int, checkpoints: int) -> list[int]:
    """After which steps validation looks, evenly spaced, the last one included."""
    return sorted({round(steps * (i + 1) / checkpoints) for i in range(checkpoints)} - {0})
