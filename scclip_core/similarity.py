"""Stages 4 and 6: which patches resemble each other, and means over those that do."""

import torch.nn.functional as F
from torch import Tensor

from scclip_core.precision import at_least_float32
from scclip_core.sharing import shareable


def unit_tokens(tokens: Tensor) -> Tensor:
    """Tokens at unit length, in float32 at least, [B, N, C] -> [B, N, C]."""
    return F.normalize(at_least_float32(tokens), dim=-1)


@shareable
def patch_similarity(tokens: Tensor) -> Tensor:
    """Cosine similarity of all pairs of patch tokens (stages 4 and 6).

    S_ij = f_i . f_j / (|f_i| |f_j|)

    Takes tokens [B, N, C]; returns [B, N, N], in float32 at least.
    """
    unit = unit_tokens(tokens)
    return unit @ unit.mT  # [B, N, C] @ [B, C, N] -> [B, N, N]


@shareable
def threshold_similarity(similarity: Tensor, beta: float) -> Tensor:
    """Similarities below `beta` set to 0, [B, N, N] -> [B, N, N] (stages 4 and 6).

    S_ij = S_ij if S_ij >= beta else 0

    Rounding can leave the similarity of a token with itself just below 1, so a `beta` of 1 is read
    as 1 - 1e-6.
    """
    return similarity.masked_fill(similarity < min(beta, 1 - 1e-6), 0)


@shareable
def adaptive_aggregate(tokens: Tensor, similarity: Tensor) -> Tensor:
    """Each token becomes the similarity-weighted mean of all tokens (stages 4 and 6).

    F' = D^-1 S F with D_ii = sum_j S_ij + 1e-6

    Args:
        tokens: F, [B, N, C].
        similarity: S, [B, N, N], thresholded and not normalised.

    Returns [B, N, C], in the dtype of `tokens`.
    """
    weights = similarity / (similarity.sum(-1, keepdim=True) + 1e-6)
    return weights.to(tokens.dtype) @ tokens  # [B, N, N] @ [B, N, C] -> [B, N, C]
