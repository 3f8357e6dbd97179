"""The networks of `mia-generated`: a start, and a new head of two classes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from privbench.errors import ModelError
from privbench_plugins.attacks.membership.black_box import ENCODER
from privbench_plugins.attacks.membership.generated import RESNET_18, GeneratedConfig
from privbench_plugins.attacks.recogniser_files import backbone_folder
from privbench_plugins.attacks.recogniser_models import Backbone, Preprocessing
from privbench_plugins.models import resolve
from privbench_plugins.tiny_encoder import net


class Encoded(nn.Module):
    """Embeddings of `tiny-encoder`, scaled to a mean square of one."""

    def __init__(self, encoder: net.TinyEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 to (N, D)."""
        rows: Tensor = self.encoder(pixels.float().div_(255))
        return rows.mul(math.sqrt(self.encoder.config.dim))


class Pooled(nn.Module):
    """Pooled features of a vision model of `transformers`."""

    def __init__(self, network: nn.Module, prepare: Preprocessing) -> None:
        super().__init__()
        self.network, self.prepare = network, prepare

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 to (N, D)."""
        x = self.prepare.normalised(pixels).contiguous(memory_format=torch.channels_last)
        rows: Tensor = self.network(pixel_values=x).pooler_output
        return rows.flatten(1)


class Classifier(nn.Module):
    """Features and a head of two classes: not of the target, of the target.

    Attributes:
        rounded: features are computed in bfloat16; the head is not, as scores would tie.
    """

    def __init__(self, features: nn.Module, width: int, rounded: bool) -> None:
        super().__init__()
        self.features, self.head, self.rounded = features, nn.Linear(width, 2), rounded
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 to (N, 2) float32."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.rounded):
            rows = self.features(pixels)
        scores: Tensor = self.head(rows.float())
        return scores


def create(config: GeneratedConfig, seed: int, rounded: bool) -> Classifier:
    """An attack model before training; what is untrained is drawn from `seed`.

    Raises:
        ModelError: the start cannot be read, or takes no images of `side` pixels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = _features(config)
        return Classifier(features, _width(features, config.side), rounded)


def _features(config: GeneratedConfig) -> nn.Module:
    if config.backbone == RESNET_18:
        return _resnet_18()
    if config.backbone == ENCODER:
        return Encoded(net.load(resolve(ENCODER)))
    from privbench_plugins.anonymizers._ldm.loading import quiet

    with quiet():
        start = Backbone.load(backbone_folder(config.backbone), config.batch, torch.device("cpu"))
    return Pooled(start.network, start.prepare)


def _resnet_18() -> Pooled:
    """The shape of He et al. 2016, with values between -2 and 2 as input."""
    from transformers import ResNetConfig, ResNetModel

    shape: dict[str, Any] = {"layer_type": "basic", "depths": [2, 2, 2, 2]}
    shape |= {"hidden_sizes": [64, 128, 256, 512]}
    prepare = Preprocessing(0, (0, 0), 1 / 255, (0.5,) * 3, (0.25,) * 3)
    return Pooled(ResNetModel(ResNetConfig(**shape)), prepare)


@torch.no_grad()
def _width(features: nn.Module, side: int) -> int:
    try:
        rows = features.eval()(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    except (AttributeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"The network pools no features of images of {side} x {side} pixels: {error}. "
            "Set another `side` or `backbone`."
        ) from error
    return int(rows.shape[1])
