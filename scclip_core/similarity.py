"""Stages 4 and 6: which patches look alike, and averaging each token with those it looks like."""

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_similarity(tokens: Tensor) -> Tensor:
    """Cosine similarity of all pairs of patch tokens, [B, N, C] -> [B, N, N], float32 at least (seed 4.2)."""
    tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.mT


def threshold_similarity(similarity: Tensor, beta: float) -> Tensor:
    """Similarities below `beta` set to 0, [B, N, N] -> [B, N, N] (seed 4.2).

    A token's similarity with itself may fall short of 1 by rounding, so a `beta` of 1 is read as 1 - 1e-6.
    """
    return similarity.masked_fill(similarity < min(beta, 1 - 1e-6), 0)


def adaptive_aggregate(tokens: Tensor, similarity: Tensor) -> Tensor:
    """F' = D^-1 S F: each token becomes the similarity-weighted mean of those it looks like (seed 4.3, 3.2).

    Args:
        tokens: [B, N, C].
        similarity: [B, N, N], thresholded; rows are normalised here, with 1e-6 added to their sums.

    Returns [B, N, C], in the dtype of `tokens`.
    """
    share = similarity / (similarity.sum(-1, keepdim=True) + 1e-6)
    return share.to(tokens.dtype) @ tokens  # [B, N, N] @ [B, N, C] -> [B, N, C]
