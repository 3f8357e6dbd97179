"""The networks that `contrastive-reid` starts from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privbench.errors import ModelError, PluginError
from privbench_plugins.attacks.contrastive import ContrastiveConfig
from privbench_plugins.models import digest, resolve
from privbench_plugins.tiny_encoder import net


def folder_of(config: ContrastiveConfig) -> Path | None:
    """Folder of the weights to start from, or None for an untrained network."""
    name = config.weights or ("tiny-encoder" if config.backbone == "tiny-encoder" else "")
    return resolve(name, config.revision, stem="model") if name else None


def weight_files(config: ContrastiveConfig) -> Mapping[str, str]:
    """SHA-256 of each file that the start is read from."""
    folder = folder_of(config)
    return digest(folder) if folder else {}


class ResNet(nn.Module):
    """A vision model of `transformers` with a linear layer onto the unit sphere."""

    def __init__(self, backbone: nn.Module, features: int, dim: int, side: int) -> None:
        super().__init__()
        self.backbone, self.side = backbone, side
        self.head = nn.Linear(features, dim, bias=False)
        self.head_norm = nn.BatchNorm1d(dim, affine=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1] to (N, dim) float32 rows of length one."""
        x = net.resize(pixels, self.side).sub(0.5).mul(4.0)
        x = x.contiguous(memory_format=torch.channels_last)
        pooled = self.backbone(pixel_values=x).pooler_output.flatten(1)
        return F.normalize(self.head_norm(self.head(pooled).float()), dim=1)


class Towers(nn.Module):
    """The embedders of clear and of anonymized images; the same network, or a copy each."""

    def __init__(self, network: nn.Module, separate: bool) -> None:
        super().__init__()
        self.clear = network
        self.anonymized = copy.deepcopy(network) if separate else None

    def forward(self, pixels: Tensor, anonymized: bool) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, D) rows of length one."""
        tower = self.anonymized if anonymized and self.anonymized is not None else self.clear
        rows: Tensor = tower(pixels)
        return rows

    def pairs(self, clear: Tensor, anonymized: Tensor) -> Tensor:
        """(2n, D): n clear, then n anonymized images; one batch where the network is shared."""
        if self.anonymized is None:
            rows: Tensor = self.clear(torch.cat([clear, anonymized]))
            return rows
        return torch.cat([self(clear, False), self(anonymized, True)])


def create(config: ContrastiveConfig, seed: int) -> Towers:
    """Build the network that training starts from; what is untrained is drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Towers(_network(config), config.towers == "separate")


def _network(config: ContrastiveConfig) -> nn.Module:
    folder = folder_of(config)
    if config.backbone in ("tiny-encoder", "tiny"):
        if folder is None:
            return net.TinyEncoder(net.NetConfig(side=config.side))
        try:
            return net.load(folder)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"Cannot read a tiny-encoder from {folder}: {error}") from error
    if folder is not None:
        return _pretrained(folder, config)
    if config.backbone == "transformers":
        raise PluginError("The backbone 'transformers' needs `weights`: a folder or a hub id.")
    return _untrained(config)


def _untrained(config: ContrastiveConfig) -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    kind: dict[str, Any] = {"layer_type": "bottleneck", "depths": [3, 4, 6, 3]}
    kind |= {"hidden_sizes": [256, 512, 1024, 2048]}
    if config.backbone == "resnet-18":
        kind = {"layer_type": "basic", "depths": [2, 2, 2, 2]}
        kind |= {"hidden_sizes": [64, 128, 256, 512]}
    features = kind["hidden_sizes"][-1]
    return ResNet(ResNetModel(ResNetConfig(**kind)), features, config.dim, config.side)


def _pretrained(folder: Path, config: ContrastiveConfig) -> nn.Module:
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot read a vision model from {folder}: {error}") from error
    with torch.no_grad():
        pooled = model(pixel_values=torch.zeros(1, 3, config.side, config.side)).pooler_output
    return ResNet(model, pooled.flatten(1).shape[1], config.dim, config.side)
