"""Scores that know nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import torch

from privbench.types import AttackerView, ImageSet, Scorer, TrainedAttack


@dataclass(frozen=True, slots=True)
class _Guesses:
    seed: int
    gallery: int

    def score(self, probes: ImageSet) -> torch.Tensor:
        """(N, G) uniform in [0, 1); row i depends on the seed and the key of probe i alone."""
        rows = []
        for key in probes.keys:
            digest = sha256(f"{self.seed}:{key}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            rows.append(torch.rand(self.gallery, generator=generator))
        return torch.stack(rows) if rows else torch.zeros(0, self.gallery)


@dataclass(slots=True)
class _Trained:
    seed: int
    fusion: Literal["max", "mean"] = "mean"
    report: Mapping[str, Any] = field(default_factory=dict)

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Scorer:
        """Remember how many references there are."""
        return _Guesses(self.seed, len(gallery))


class RandomGuess:
    """Guesses."""

    def train(self, view: AttackerView) -> TrainedAttack:
        """Keep the seed."""
        return _Trained(view.seed)
