"""Muon: momentum whose update is made orthogonal, for the weights of layers.

An hour of CPU time is few samples: what counts is how much a net learns from each, and the
matrix products of Muon cost only a few per cent of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import nn

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Return about U V^T of the singular value decomposition U S V^T of each of (K, m, n).

    Newton-Schulz iterations in bfloat16, with the coefficients of Jordan et al. (2024).
    """
    a, b, c = _COEFFICIENTS
    x: torch.Tensor = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonal updates, scaled to the size that Adam's have.

    A weight of more than two axes (a convolution's) counts as a matrix of its first axis
    against the others. The same learning rates as for AdamW suit it.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update the parameters that have gradients; matrices of one shape go together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for shape, parameters in shapes.items():
                directions = torch.stack(
                    [self._direction(p, group["momentum"]) for p in parameters]
                )
                scale = 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, orthogonalised(directions), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)
        return None if closure is None else closure()

    def _direction(self, parameter: nn.Parameter, momentum: float) -> torch.Tensor:
        """Take the gradient into the momentum; return their Nesterov mixture (m, n)."""
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        buffer: torch.Tensor = state["momentum"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum).flatten(1)


def muon_with_adam(
    named: Iterable[tuple[str, nn.Parameter]], is_outer: Callable[[str], bool]
) -> list[torch.optim.Optimizer]:
    """Muon for the weights of inner layers; AdamW for all that is outer or no matrix."""
    inner: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named:
        (others if is_outer(name) or parameter.ndim < 2 else inner).append(parameter)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return [Muon(inner), adam]
