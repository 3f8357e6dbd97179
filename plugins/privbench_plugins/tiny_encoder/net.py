"""The network of `tiny-encoder`, and its file format (safetensors and a JSON configuration)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Shape of the network.

    Attributes:
        side: pixels per side that the network works on; inputs are resized to it.
        stem: channels after the first, strided convolution.
        widths: channels of each stage; every stage halves the side.
        depths: residual blocks of each stage.
        squeeze: channels per place that the last, fully connected layer reads.
        dim: length of the embedding.
    """

    side: int = 80
    stem: int = 32
    widths: tuple[int, ...] = (64, 96, 128)
    depths: tuple[int, ...] = (2, 2, 1)
    squeeze: int = 32
    dim: int = 128


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class TinyEncoder(nn.Module):
    """Embeds face crops on the unit sphere.

    The last layer reads every place of the final map (as recognisers do) instead of its
    average: where a feature lies is what edges tell about a person.
    """

    def __init__(self, config: NetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetConfig()
        self.stem = nn.Conv2d(3, config.stem, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.stem)
        blocks: list[nn.Module] = []
        inputs = config.stem
        for width, depth in zip(config.widths, config.depths, strict=True):
            for index in range(depth):
                blocks.append(Block(inputs, width, 2 if index == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*blocks)
        self.squeeze = nn.Conv2d(inputs, config.squeeze, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(config.squeeze)
        places = (config.side // 2 ** (len(config.widths) + 1)) ** 2
        self.head = nn.Linear(config.squeeze * places, config.dim, bias=False)
        self.head_norm = nn.BatchNorm1d(config.dim, affine=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixels: (N, 3, H, W) RGB in [0, 1], any size.

        Returns:
            (N, dim) float32 with rows of length one.
        """
        x = resize(pixels, self.config.side).sub(0.5).mul(4.0)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.body(F.relu(self.stem_norm(self.stem(x))))
        x = F.relu(self.squeeze_norm(self.squeeze(x))).flatten(1)
        return F.normalize(self.head_norm(self.head(x).float()), dim=1)


def resize(pixels: Tensor, side: int) -> Tensor:
    """Bilinear, anti-aliased resize of (N, C, H, W) to `side` x `side`; a no-op where it fits."""
    if tuple(pixels.shape[-2:]) == (side, side):
        return pixels
    return F.interpolate(
        pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )


def save(model: TinyEncoder, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (float16) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    text = json.dumps({"architecture": "tiny-encoder", **asdict(model.config)}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> TinyEncoder:
    """Read a model that `save` wrote; float32, in evaluation mode."""
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if fields.pop("architecture", None) != "tiny-encoder":
        raise ValueError(f"{folder / 'config.json'} does not describe a tiny-encoder.")
    fields = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    model = TinyEncoder(NetConfig(**fields))
    state = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{folder} lacks {missing} and has surplus {unexpected}.")
    return model.eval()
