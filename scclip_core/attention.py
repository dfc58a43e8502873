"""Stage 5: the last block's attention, calibrated by how alike the patches look in a middle layer."""

import torch
import torch.nn.functional as F
from torch import Tensor

SELF_ATTENTION = {
    "qk": (0, 1),
    "kk": (1, 1),
    "qq": (0, 0),
    "vv": (2, 2),
}  # which of q, k, v asks and which answers


def content_attention(similarity: Tensor, gain: float) -> Tensor:
    """softmax(gain * (S - mean(S))) with negative logits at -inf (seed 5.1), [B, N, N] -> [B, N, N].

    The mean is over the whole matrix of an image, and the result is the same for every head. A patch always
    keeps itself, so that no row is empty even where rounding puts a matrix of ones below its own mean.
    """
    logits = gain * (similarity - similarity.mean((1, 2), keepdim=True))
    itself = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    return logits.masked_fill_((logits < 0) & ~itself, -torch.inf).softmax(-1)


def self_attention_maps(qkv: Tensor, kind: str) -> Tensor:
    """softmax of the scaled products of patches, per head: qkv [3, B, heads, N, d] -> [B, heads, N, N].

    `kind` is qk (seed 5.1), kk (published code), qq or vv.
    """
    asks, answers = (qkv[i] for i in SELF_ATTENTION[kind])
    logits = asks @ answers.mT / asks.shape[-1] ** 0.5
    return logits.float().softmax(-1).to(qkv.dtype)


def mixed_attention(qkv: Tensor, content: Tensor, kind: str, mix: float) -> Tensor:
    """(mix * content + (1 - mix) * self attention) @ V, heads side by side again (seed 5.1, 3.3).

    Args:
        qkv: projections of the patches, [3, B, heads, N, d].
        content: [B, N, N], rows sum to 1.
        kind: which projections score the self attention, see `self_attention_maps`.
        mix: share of the content attention, in [0, 1].

    Returns [B, N, heads * d]. Both parts are applied to V by themselves, so that no map per head is ever
    stored.
    """
    asks, answers = (qkv[i] for i in SELF_ATTENTION[kind])
    values = qkv[2]
    by_itself = F.scaled_dot_product_attention(asks, answers, values)
    by_itself = by_itself.transpose(1, 2).flatten(2)  # [B, heads, N, d] -> [B, N, heads * d]
    by_content = content.to(values.dtype) @ values.transpose(1, 2).flatten(2)
    return torch.lerp(by_itself, by_content, mix)
