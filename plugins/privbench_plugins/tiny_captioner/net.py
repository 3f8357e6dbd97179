"""The network of ``tiny-captioner``, its file format, and the captions that it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from numpy import uint8
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from privbench_plugins.synthfaces.captions import describe


@dataclass(frozen=True)
class NetConfig:
    """Shape of the network and the words that it knows.

    labels: attribute -> its values; the order is that of the network's outputs.
    side: pixels per side that the network works on; inputs are resized to it.
    widths: channels of the convolutions. strides: of each of them.
    squeeze: channels per place that the last, fully connected layer reads.
    """

    labels: Mapping[str, tuple[str, ...]]
    side: int = 96
    widths: tuple[int, ...] = (16, 32, 40, 40, 40)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2)
    squeeze: int = 16


class TinyCaptioner(nn.Module):
    """A few convolutions and one linear layer for all attributes.

    The linear layer reads every place of the last map: hair is above, clothes are below.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (3, *config.widths[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1, bias=False)
            for a, b, stride in zip(inputs, config.widths, config.strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in config.widths)
        self.squeeze = nn.Conv2d(config.widths[-1], config.squeeze, 1)
        side = config.side
        for stride in config.strides:
            side //= stride
        outputs = sum(len(values) for values in config.labels.values())
        self.head = nn.Linear(config.squeeze * side * side, outputs)

    def forward(self, pixels: Tensor, dropout: float = 0.0) -> tuple[Tensor, ...]:
        """Scores of each attribute's values.

        Args:
            pixels: (N, 3, side, side) RGB in [0, 1].
            dropout: share of the last features that training leaves out.

        Returns:
            for each attribute of `config.labels`, (N, values) logits.
        """
        x = pixels.sub(0.5).mul(4.0)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        features = F.dropout(F.relu(self.squeeze(x)).flatten(1), dropout, self.training)
        return self.head(features).split([len(v) for v in self.config.labels.values()], 1)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def attributes(self, pixels: NDArray[uint8]) -> list[dict[str, str]]:
        """The likeliest value of every attribute.

        Each image is treated alone, so that no caption depends on the batch.

        Args:
            pixels: (N, H, W, 3) uint8 RGB, any size.
        """
        return [self._attributes(image) for image in torch.from_numpy(pixels)]

    def captions(self, pixels: NDArray[uint8]) -> list[str]:
        """One caption an image, in the wording of synthfaces' own.

        Args:
            pixels: (N, H, W, 3) uint8 RGB, any size.
        """
        return [describe(words) for words in self.attributes(pixels)]

    def _attributes(self, image: Tensor) -> dict[str, str]:
        pixels = fit(image.permute(2, 0, 1)[None].float() / 255, self.config.side)
        best = (int(scores.argmax()) for scores in self(pixels))
        labels = self.config.labels
        return {name: labels[name][i] for name, i in zip(labels, best, strict=True)}


def fit(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) at another size: bilinear, antialiased; untouched where it fits."""
    if tuple(pixels.shape[-2:]) == (side, side):
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)


def save(net: TinyCaptioner, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (float16) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    body = {"architecture": "tiny-captioner"} | asdict(net.config)
    (folder / "config.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> TinyCaptioner:
    """Read what `save` wrote, as float32, ready for use.

    Raises:
        ValueError: the folder describes something else.
    """
    body = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if body.pop("architecture", None) != "tiny-captioner":
        raise ValueError(f"{folder / 'config.json'} does not describe a tiny-captioner.")
    labels = {name: tuple(values) for name, values in body.pop("labels").items()}
    for name in ("widths", "strides"):
        body[name] = tuple(body[name])
    net = TinyCaptioner(NetConfig(labels, **body))
    net.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return net.eval().requires_grad_(False)
