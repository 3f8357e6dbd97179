"""A training's state as arrays, and back; memory layouts are kept, so that a resumed training adds
up the same numbers in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privbench.errors import ModelError
from privbench.membership import Arrays

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"


def to_arrays(parameters: Mapping[str, nn.Parameter]) -> Arrays:
    """A copy of each parameter as float32."""
    return {name: _array(parameter) for name, parameter in parameters.items()}


def load_arrays(parameters: Mapping[str, nn.Parameter], arrays: Arrays) -> None:
    """Overwrite parameters.

    Raises:
        ModelError: these are arrays of other parameters.
    """
    for name in sorted(set(parameters) ^ set(arrays)):
        side = "lacks" if name in parameters else "has an unknown"
        raise ModelError(f"The checkpoint {side} {name}: it is one of another model or method.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(arrays[name]))


def optimizer_arrays(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> Arrays:
    """What AdamW remembers of each parameter, and the number of its steps."""
    found: dict[str, NDArray[Any]] = {}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        found |= {f"{name}/{moment}": _array(state[moment]) for moment in _MOMENTS}
        found[_STEP] = _array(state[_STEP])
    return found


def load_optimizer_arrays(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], arrays: Arrays
) -> None:
    """Make AdamW remember it again; it holds `parameters` in this order."""
    state = {
        i: {moment: _like(parameter, arrays[f"{name}/{moment}"]) for moment in _MOMENTS}
        | {_STEP: torch.from_numpy(arrays[_STEP]).clone()}
        for i, (name, parameter) in enumerate(parameters.items())
    }
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.array(tensor.detach().float().cpu().numpy(), order="C")


def _like(parameter: nn.Parameter, array: NDArray[Any]) -> Tensor:
    """An array as a tensor with the memory layout of a parameter."""
    return torch.empty_like(parameter).copy_(torch.from_numpy(array))
