"""How an inversion attack judges itself: by its own encoder, on attacker-validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privbench_plugins.attacks.inversion.pairs import Pairs
from privbench_plugins.attacks.validation import Quality, quality
from privbench_plugins.models import resolve
from privbench_plugins.tiny_encoder import net

ENCODER = "tiny-encoder"
"""The attacker's encoder: in losses and choices, and therefore never a judge."""

_BATCH = 64


def encoder_folder() -> Path:
    """Where the attacker's encoder lies."""
    return resolve(ENCODER)


@dataclass(frozen=True, slots=True, eq=False)
class OwnJudge:
    """Compares reconstructions of validation photos with the clear originals.

    Attributes:
        encoder: the attacker's, frozen.
        clear: (V, D) embeddings of the originals.
        column: (V,) person 0..P-1 of each.
        device: of the encoder.
    """

    encoder: nn.Module
    clear: Tensor
    column: Tensor
    device: torch.device

    @classmethod
    def of(cls, validation: Pairs, device: torch.device) -> OwnJudge:
        """Embed the originals."""
        encoder = net.load(encoder_folder()).to(device).requires_grad_(False)
        column = torch.from_numpy(np.unique(validation.subject, return_inverse=True)[1])
        clear = embed(encoder, validation.clear, device)
        return cls(encoder, clear, column, device)

    def similarity(self, pixels: Tensor) -> float:
        """Mean cosine of (V, 3, H, W) uint8 reconstructions with their originals."""
        rows = embed(self.encoder, pixels, self.device)
        return float((rows * self.clear).sum(1).mean())

    def identification(self, pixels: Tensor) -> Quality:
        """How well (V, 3, H, W) uint8 reconstructions find other photos of their people; NaN
        where nobody has a second photo: then only `similarity` can choose."""
        return quality(embed(self.encoder, pixels, self.device) @ self.clear.T, self.column, "mean")


@torch.no_grad()
def embed(encoder: nn.Module, pixels: Tensor, device: torch.device) -> Tensor:
    """(N, 3, H, W) uint8 to (N, D) rows of length one on the CPU, in batches of one size."""
    rows = []
    for block in torch.split(pixels, _BATCH):
        filled = F.pad(block, (0,) * 7 + (_BATCH - len(block),))
        rows.append(encoder(filled.to(device).float().div_(255))[: len(block)].float().cpu())
    return torch.cat(rows)
