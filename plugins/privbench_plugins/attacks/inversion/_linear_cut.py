"""Images as rows of patches, and back: a whole image is one patch without surroundings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Cut:
    """How images of one size are cut.

    Attributes:
        size: (height, width) of the images.
        patch: (height, width) of a patch; patches lie side by side.
        margin: pixels of its surroundings on each side.
    """

    size: tuple[int, int]
    patch: tuple[int, int]
    margin: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across; those at the lower and right edge may stick out."""
        (height, width), (rows, columns) = self.size, self.patch
        return -(-height // rows), -(-width // columns)

    @property
    def count(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    def patches(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) to (N, L, E): the patches themselves."""
        return self._unfolded(pixels, 0)

    def surroundings(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) to (N, L, D): each patch with its margin."""
        return self._unfolded(pixels, self.margin)

    def images(self, patches: Tensor) -> Tensor:
        """(N, L, E) patches to (N, C, H, W)."""
        (height, width), (rows, columns) = self.size, self.patch
        whole = (self.grid[0] * rows, self.grid[1] * columns)
        folded = F.fold(patches.transpose(1, 2), whole, self.patch, stride=self.patch)
        return folded[:, :, :height, :width]

    def _unfolded(self, pixels: Tensor, margin: int) -> Tensor:
        (height, width), (rows, columns) = self.size, self.patch
        below, right = self.grid[0] * rows - height, self.grid[1] * columns - width
        around = (margin, margin + right, margin, margin + below)
        kernel = (rows + 2 * margin, columns + 2 * margin)
        padded = F.pad(pixels, around, mode="replicate")
        return F.unfold(padded, kernel, stride=self.patch).transpose(1, 2)


def sampled(
    cut: Cut, released: Tensor, wanted: Cut, clear: Tensor, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Patches to train on, equally many from each image: at most `samples`, at least one each.

    Args:
        released: (N, 3, H, W) float, cut by `cut`.
        clear: (N, C, h, w) float, the same images in the clear or their latents; `wanted` cuts
            them into as many patches.

    Returns:
        (M, D) released patches with their margins, (M, E) clear ones.
    """
    each = min(cut.count, max(1, samples // len(released)))
    generator = Generator().manual_seed(seed)
    chosen = torch.rand(len(released), cut.count, generator=generator).argsort(1)[:, :each]
    blocks = [torch.split(t, _BLOCK) for t in (released, clear, chosen)]
    rows = [
        (_picked(cut.surroundings(r), i), _picked(wanted.patches(c), i))
        for r, c, i in zip(*blocks, strict=True)
    ]
    return torch.cat([r for r, _ in rows]), torch.cat([c for _, c in rows])


def _picked(rows: Tensor, chosen: Tensor) -> Tensor:
    """(N, L, D) rows and (N, S) positions to (N * S, D)."""
    return rows.gather(1, chosen[..., None].expand(-1, -1, rows.shape[2])).flatten(0, 1)
