"""Training checkpoints as safetensors and JSON: no pickle, and a crash leaves the old one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

_TENSORS = "state.safetensors"
_COUNTERS = "state.json"


@dataclass
class Progress:
    """How far a stage has come.

    step: optimiser steps done. samples: training samples seen. seconds: wall time spent
    in steps, over all runs (the learning rate follows it). seed: all random numbers of
    step k derive from (seed, k), so a resumed run draws what an unbroken one would.
    """

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        rate = self.samples / max(self.seconds, 1e-9)
        return f"step {self.step}, {self.samples} samples, {self.seconds:.0f} s, {rate:.1f}/s"


def share_done(progress: Progress, hours: float, steps: int) -> float:
    """Share of a stage that is done: of its `steps` if any are given, else of its `hours`."""
    return progress.step / steps if steps else progress.seconds / (3600 * hours)


def save_checkpoint(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    extras: dict[str, torch.Tensor],
    progress: Progress,
) -> None:
    """Write weights, optimiser moments, extra tensors and counters to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"extra/{name}": value for name, value in extras.items()}
    for name, module in modules.items():
        tensors |= {f"module/{name}/{key}": v for key, v in module.state_dict().items()}
    for index, (optimizer, parameter) in enumerate(_parameters(optimizers)):
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{index}/{key}"] = torch.as_tensor(value)
    copies = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    save_file(copies, folder / f"{_TENSORS}.new")
    (folder / f"{_COUNTERS}.new").write_text(json.dumps(asdict(progress), indent=1) + "\n")
    for name in (_TENSORS, _COUNTERS):
        (folder / f"{name}.new").replace(folder / name)


def load_checkpoint(
    folder: Path, modules: dict[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[dict[str, torch.Tensor], Progress]:
    """Restore `modules` and `optimizers` in place; return the extra tensors and counters."""
    tensors = load_file(folder / _TENSORS)
    for name, module in modules.items():
        prefix = f"module/{name}/"
        module.load_state_dict(_below(tensors, prefix))
    for index, (optimizer, parameter) in enumerate(_parameters(optimizers)):
        state = _below(tensors, f"optimizer/{index}/")
        for key, value in state.items():
            # Adam counts its steps in a CPU scalar; only the moments follow the parameter.
            optimizer.state[parameter][key] = value.to(parameter.device) if value.ndim else value
    progress = Progress(**json.loads((folder / _COUNTERS).read_text()))
    return _below(tensors, "extra/"), progress


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a complete checkpoint."""
    return (folder / _TENSORS).exists() and (folder / _COUNTERS).exists()


class Ema:
    """Exponential moving average of parameters, with a short memory at the start."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for p in self.parameters]
        torch._foreach_lerp_(self.average, current, 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages; call again to undo."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the averages by index, for a checkpoint."""
        return {f"ema/{index}": value for index, value in enumerate(self.average)}

    def restore(self, extras: dict[str, torch.Tensor]) -> None:
        """Take the averages back from a checkpoint's extra tensors."""
        for index, average in enumerate(self.average):
            average.copy_(extras[f"ema/{index}"])


def _parameters(
    optimizers: Sequence[torch.optim.Optimizer],
) -> list[tuple[torch.optim.Optimizer, nn.Parameter]]:
    return [(o, p) for o in optimizers for group in o.param_groups for p in group["params"]]


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
