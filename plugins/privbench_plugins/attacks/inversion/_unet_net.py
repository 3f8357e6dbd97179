"""The network of `inversion-unet`."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH: Final = 4
"""Pixels per side that the finest level holds at one place: most of the time of a network that
works pixel by pixel goes to its outermost levels."""

LEVELS: Final = 4

STRIDE: Final = PATCH * 2 ** (LEVELS - 1)
"""What an image's sides must be multiples of."""

_CENTRE: Final = 0.5
_SCALE: Final = 4.0
_GROUPS: Final = 4


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is all that it is at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        change: Tensor = self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))
        return x + change


class Unet(nn.Module):
    """U-Net (Ronneberger et al. 2015) of residual blocks.

    It predicts what is added to the input and by how much the input itself counts: a blurred
    image is nearly the answer, a face painted along edges is not. Untrained, it returns its input.
    """

    def __init__(self, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        widths = [width * (2 + level) // 2 for level in range(LEVELS)]
        self.entry = nn.Conv2d(3 * PATCH**2 + 2, width, 3, padding=1)
        self.down = nn.ModuleList(_blocks(w, depth) for w in widths)
        self.up = nn.ModuleList(_blocks(w, depth) for w in widths[:-1])
        steps = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, 2) for fine, coarse in steps)
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.exit = nn.Conv2d(width, 6 * PATCH**2, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) about [0, 1], H and W multiples of `STRIDE`, to float32 of that shape."""
        centred = pixels - _CENTRE
        patches = F.pixel_unshuffle(_SCALE * centred, PATCH)
        x = torch.cat([patches, places(patches)], 1)
        x = self.entry(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=False):
            x = blocks(x)
            skips.append(x)
            x = shrink(x)
        x = self.down[-1](x)
        for blocks, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = blocks(skips.pop() + grow(x))
        added, gate = F.pixel_shuffle(self.exit(F.silu(self.norm(x))).float(), PATCH).chunk(2, 1)
        return _CENTRE + (1 + gate) * centred + added


def places(maps: Tensor) -> Tensor:
    """(N, 2, H, W) row and column of each place, from -1 to 1: faces are centred, and where
    something lies tells what it is."""
    n, _, height, width = maps.shape
    axes = [torch.linspace(-1, 1, size, device=maps.device) for size in (height, width)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.to(maps.dtype).expand(n, -1, -1, -1)


def _blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(depth)))
