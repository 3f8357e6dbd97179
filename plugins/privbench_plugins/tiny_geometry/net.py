"""The network of ``tiny-geometry``, and its file format (safetensors and a JSON configuration)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LANDMARKS: Final = 5


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Shape of the network.

    Attributes:
        side: pixels per side that the network works on.
        widths: channels at full, half, quarter, ... resolution.
        angle_scale: degrees that an output of 1 stands for.
    """

    side: int = 64
    widths: tuple[int, ...] = (16, 32, 64, 96)
    angle_scale: float = 30.0


class Maps(NamedTuple):
    """What the network says of N faces.

    depth: (N, S, S) in [0, 1], 1 nearest; meaningless outside the person.
    outline: (N, S, S) logits of being the person rather than the background.
    landmarks: (N, 5, 2) x, y in [0, 1] of the image's side.
    pose: (N, 2) yaw and pitch in degrees.
    """

    depth: Tensor
    outline: Tensor
    landmarks: Tensor
    pose: Tensor


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, with group normalisation (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm2 = nn.GroupNorm(8, outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x)))))
        return F.silu(residual + self.shortcut(x))


class TinyGeometry(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) with heads for maps, landmarks and pose.

    Landmarks are the expectation of a heat map (integral regression, Sun et al. 2018), so they
    are finer than its cells.
    """

    def __init__(self, config: NetConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetConfig()
        widths = self.config.widths
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(Block(a, b, stride=2) for a, b in pairs)
        self.middle = Block(widths[-1], widths[-1])
        self.up = nn.ModuleList(Block(a + b, a) for a, b in reversed(pairs))
        self.maps = nn.Conv2d(widths[0], 2, 1)
        self.points = nn.Conv2d(widths[1], LANDMARKS, 1)
        self.pose = nn.Sequential(nn.Linear(widths[-1] * 4, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, pixels: Tensor) -> Maps:
        """(N, 3, S, S) float in [0, 1] to maps, landmarks and pose."""
        x = self.stem(pixels * 2 - 1)
        skips = [x]
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.middle(x)
        pose = self.pose(F.adaptive_avg_pool2d(x, 2).flatten(1))
        points = x
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0)], 1))
            if x.shape[1] == self.config.widths[1]:
                points = x
        depth, outline = self.maps(x).unbind(1)
        return Maps(
            depth.sigmoid(), outline, centre(self.points(points)), pose * self.config.angle_scale
        )


def centre(heat: Tensor) -> Tensor:
    """(N, K, h, w) logits to the (N, K, 2) mean x, y of their softmax; in [0, 1] of the side."""
    height, width = heat.shape[-2:]
    share = heat.flatten(2).softmax(-1).reshape(heat.shape)
    x = (torch.arange(width, device=heat.device) + 0.5) / width
    y = (torch.arange(height, device=heat.device) + 0.5) / height
    return torch.stack([(share.sum(-2) * x).sum(-1), (share.sum(-1) * y).sum(-1)], -1)


def save(net: TinyGeometry, folder: Path) -> None:
    """Write the configuration and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().half().contiguous() for k, v in net.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(asdict(net.config), indent=2) + "\n")


def load(folder: Path) -> TinyGeometry:
    """Read what `save` wrote, as float32, ready for use."""
    body = json.loads((folder / "config.json").read_text())
    net = TinyGeometry(NetConfig(**body | {"widths": tuple(body["widths"])}))
    net.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return net.eval().requires_grad_(False)
