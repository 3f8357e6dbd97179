"""Contrastive losses on embeddings of length one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    embeddings: Tensor, positives: Tensor, temperature: float, hardness: float = 0.0
) -> Tensor:
    """Supervised contrastive loss, of which NT-Xent is the case of one positive each.

    For anchor i with positives P(i) and similarity s = cosine / temperature::

        L_i = -1/|P(i)| * sum_{p in P(i)} ( s_ip - log sum_{a != i} exp s_ia )

    The sum in the denominator runs over *every* other view of the batch, so both other
    people's originals and other people's anonymized images are negatives. The loss is the
    mean over the anchors that have a positive (0 if none has).

    With a hardness the exponential of each negative is weighted, see `hard_negatives`.

    Sources: NT-Xent, Chen et al. 2020 (SimCLR), equation 1; several positives, Khosla et
    al. 2020 (SupCon), equation 2.

    Args:
        embeddings: (N, D) rows of length one.
        positives: (N, N) bool, True where two views belong together; its diagonal is ignored.
        temperature: tau, above 0.
        hardness: beta, 0 or above.

    Returns:
        Scalar.
    """
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    similarity = (embeddings @ embeddings.T) / temperature
    if hardness:
        similarity = hard_negatives(similarity, ~(positives | itself), hardness)
    log_share = F.log_softmax(similarity.masked_fill(itself, float("-inf")), dim=1)
    wanted = positives & ~itself
    count = wanted.sum(1)
    total = log_share.masked_fill(~wanted, 0.0).sum(1)
    anchors = count > 0
    return -(total / count.clamp_min(1)).sum() / anchors.sum().clamp_min(1)


def hard_negatives(similarity: Tensor, negatives: Tensor, hardness: float) -> Tensor:
    """Similarities whose negatives carry the logarithm of a weight that grows with them::

        w_ia = exp(beta * s_ia) / mean over negatives b of exp(beta * s_ib)

    Source: Robinson et al. 2021 (ICLR), equation 4, by its importance sampling, with tau+ = 0:
    who is a negative is known here, so there is nothing to debias.

    Args:
        similarity: (N, N) cosine / temperature.
        negatives: (N, N) bool.
        hardness: beta, above 0.
    """
    pull = (hardness * similarity).masked_fill(~negatives, float("-inf"))
    count = negatives.sum(1, keepdim=True).to(similarity.dtype)
    mean = pull.logsumexp(1, keepdim=True) - count.log()
    return similarity + torch.where(negatives, pull - mean, 0.0)


def margin_softmax(cosine: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """Cross-entropy over classes with the target cosine lowered by `margin`.

    Source: Wang et al. 2018 (CosFace), equation 4.

    Args:
        cosine: (N, C) cosine of each embedding with each class centre.
        labels: (N,) int64 class of each embedding.
        scale: inverse temperature.
        margin: what the target's cosine loses.
    """
    logits = cosine - margin * F.one_hot(labels, cosine.shape[1]).to(cosine.dtype)
    return F.cross_entropy(scale * logits, labels)
