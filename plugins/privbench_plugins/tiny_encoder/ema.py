"""Averages of weights over training steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of a module's parameters and running statistics."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.step = 0
        self._live = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
        self.average = {key: value.detach().clone() for key, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's current values; early steps count for more."""
        self.step += 1
        decay = min(self.decay, self.step / (self.step + 9))
        torch._foreach_lerp_(list(self.average.values()), list(self._live.values()), 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Put the averages into a module of the same kind."""
        module.load_state_dict(self.average, strict=False)

    def restore(self, average: dict[str, Tensor], step: int) -> None:
        """Continue from saved averages."""
        for key, value in average.items():
            self.average[key].copy_(value)
        self.step = step
