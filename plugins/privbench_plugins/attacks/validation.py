"""What is chosen on attacker-validation identities, and by which numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Fusion = Literal["max", "mean"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Cross-photo identification of anonymized validation photos.

    Attributes:
        rank1: share of probes whose person comes first.
        log_rank: mean natural logarithm of the person's rank; 0 is perfect.
        mean_average_precision: over the other photos of the probe's person.
    """

    rank1: float
    log_rank: float
    mean_average_precision: float


def quality(scores: Tensor, column: Tensor, fusion: Fusion) -> Quality:
    """Judge scores of N anonymized photos against the clear originals of the same photos.

    A probe's own source is taken out of the gallery; people whom that leaves without a
    reference do not exist for that probe, and probes without a person do not count. A tie
    counts half. Scores that are not finite, of a training that diverged, are worst.

    Args:
        scores: (N, N); row i is the anonymized, column j the clear photo.
        column: (N,) int64 person 0..S-1 of each photo.
        fusion: how scores against several references combine.
    """
    if not bool(scores.isfinite().all()):
        return Quality(0.0, math.log(int(column.max()) + 1), 0.0)
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    ranks = _ranks(person_scores(scores.masked_fill(itself, float("nan")), column, fusion), column)
    precision = _average_precision(scores.masked_fill(itself, float("-inf")), column)
    known = ~ranks.isnan()
    ranks = ranks[known]
    return Quality(
        float((ranks < 1.5).double().mean()),
        float(ranks.log().mean()),
        float(precision[known].mean()),
    )


def person_scores(scores: Tensor, column: Tensor, fusion: Fusion) -> Tensor:
    """(N, G) to (N, S) float64: the mean or largest score over each person's references.

    NaN marks a reference that is left out, and a person without any.
    """
    n, people = len(scores), int(column.max()) + 1
    index = column[None].expand(n, -1)
    absent = scores.isnan()
    count = scores.new_zeros(n, people, dtype=torch.float64)
    count.scatter_add_(1, index, (~absent).double())
    if fusion == "mean":
        total = torch.zeros_like(count).scatter_add_(1, index, scores.double().nan_to_num(0.0))
        return total / count
    lowest = torch.full_like(count, float("-inf"))
    filled = scores.double().masked_fill(absent, float("-inf"))
    best = lowest.scatter_reduce(1, index, filled, "amax")
    return best.masked_fill(count == 0, float("nan"))


def _ranks(person: Tensor, column: Tensor) -> Tensor:
    true = person.gather(1, column[:, None])
    above = (person > true).sum(1) + 0.5 * ((person == true).sum(1) - 1)
    return torch.where(true[:, 0].isnan(), float("nan"), above.double() + 1)


def _average_precision(scores: Tensor, column: Tensor) -> Tensor:
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :-1]
    hit = (column[order] == column[:, None]).double()
    precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1, device=hit.device)
    return (precision * hit).sum(1) / hit.sum(1).clamp_min(1)
