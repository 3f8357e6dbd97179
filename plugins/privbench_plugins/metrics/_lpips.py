"""LPIPS (Zhang, Isola, Efros, Shechtman, Wang 2018) on a backbone from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from privbench.errors import ModelError
from privbench_plugins.metrics._fidelity import Compare
from privbench_plugins.metrics.perceptual import HEADS, LpipsConfig

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of inputs in [-1, 1]
EPSILON = 1e-8

# After which layers of torchvision's `features` the maps are taken.
TAPS: Mapping[str, tuple[int, ...]] = {
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
}


class Fire(nn.Module):
    """Squeeze, then expand by two convolutions side by side (Iandola et al. 2016)."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, 2 expand, H, W)."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def trunk(net: str) -> nn.Sequential:
    """The part of torchvision's `features` that LPIPS reads, with its names of weights."""
    if net == "alex":
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
    if net == "squeeze":
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        return nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool,
            Fire(64, 16, 64), Fire(128, 16, 64), pool,
            Fire(128, 32, 128), Fire(256, 32, 128), pool,
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
    layers: list[nn.Module] = []
    inputs = 3
    for widths in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
        layers += [nn.MaxPool2d(2, 2)] if layers else []
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers)


def load(config: LpipsConfig) -> Compare:
    """The distance of two (N, 3, H, W) batches in [0, 1].

    Raises:
        ModelError: a file cannot be read, or its weights are not those of the network.
    """
    layers = trunk(config.net)
    prefix = "features."
    found = {
        name.removeprefix(prefix): value.float()
        for name, value in _tensors(Path(config.backbone)).items()
        if name.startswith(prefix)
    }
    try:
        layers.load_state_dict(found)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(
            f"{config.backbone} does not hold torchvision's `features.*` weights of "
            f"{config.net}: {reason}"
        ) from error
    taps = TAPS[config.net]
    heads = _heads(Path(config.heads) if config.heads else HEADS, config.net, len(taps))
    return _Lpips(layers.eval(), taps, heads)


class _Lpips:
    def __init__(self, layers: nn.Sequential, taps: tuple[int, ...], heads: list[Tensor]) -> None:
        self.layers, self.taps, self.heads = layers, taps, heads

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(N,) sum over layers of the mean over places of weighted squared differences."""
        x = (torch.cat([a, b]) * 2 - 1 - _channels(SHIFT)) / _channels(SCALE)
        total = torch.zeros(len(a))
        heads = iter(self.heads)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                unit = x / (x.square().sum(1, keepdim=True) + EPSILON).sqrt()
                first, second = unit.chunk(2)
                squares = (first - second).square().mean((2, 3))
                total = total + squares @ next(heads)
        return total


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _heads(path: Path, net: str, count: int) -> list[Tensor]:
    tensors = _tensors(path)
    try:
        return [tensors[f"{net}.{i}"].float().flatten() for i in range(count)]
    except KeyError as error:
        raise ModelError(
            f"{path} lacks the linear head {error}; expected `{net}.0` to `{net}.{count - 1}`."
        ) from None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"Cannot read {path} as safetensors: {error}") from error
