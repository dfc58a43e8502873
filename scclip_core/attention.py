"""Stage 5: the last block's attention, calibrated by the similarities of a middle layer."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.precision import at_least_float32
from scclip_core.sharing import shareable

# For each kind of self-attention: which of q, k, v (0, 1, 2) is the query and which the key.
QUERY_AND_KEY = {"qk": (0, 1), "kk": (1, 1), "qq": (0, 0), "vv": (2, 2)}


@shareable
def content_attention(similarity: Tensor, gain: float) -> Tensor:
    """Attention weights from the similarities of a middle layer (stage 5).

    softmax(L), L_ij = gain (S_ij - mean(S)), where negative L_ij become -inf

    The mean is taken over the whole matrix of an image, and all heads share the result. A patch
    always keeps itself, so that no row is empty, even where rounding puts a matrix of ones below
    its own mean.

    Args:
        similarity: S, [B, N, N], as `patch_similarity` returns it, without a threshold.
        gain: 3 in the article and in the published code.

    Returns [B, N, N]; every row sums to 1.
    """
    return attention_of_rows(similarity, gain, similarity.mean((1, 2), keepdim=True))


def attention_of_rows(similarity: Tensor, gain: float, mean: Tensor, first: int = 0) -> Tensor:
    """Some rows of `content_attention`, the first of them row `first` of the matrix.

    Takes their similarities [B, rows, N] and the mean of the whole matrix [B, 1, 1]; returns
    [B, rows, N].
    """
    logits = gain * (similarity - mean)
    negative = logits < 0
    negative.diagonal(first, 1, 2).fill_(False)  # a patch keeps itself
    return logits.masked_fill_(negative, -torch.inf).softmax(-1)


def scaled_products(query: Tensor, key: Tensor) -> Tensor:
    """Attention logits Q K^T / sqrt(d), [B, heads, L, d] twice -> [B, heads, L, L]."""
    products: Tensor = query @ key.mT / query.shape[-1] ** 0.5
    return products


def self_attention_weights(qkv: Tensor, kind: str) -> Tensor:
    """Self-attention weights of every head, softmax(Q K^T / sqrt(d)) (stage 5).

    `kind` chooses which projections stand for Q and K: qk (the article), kk (the published code),
    qq or vv. Takes qkv [3, B, heads, N, d]; returns [B, heads, N, N].
    """
    query, key = (qkv[i] for i in QUERY_AND_KEY[kind])
    return at_least_float32(scaled_products(query, key)).softmax(-1).to(qkv.dtype)


def mixed_weights(qkv: Tensor, content: Tensor, kind: str, mix: float) -> Tensor:
    """The weights that `mixed_attention` reads with, of every head (stage 5).

    mix A_content + (1 - mix) softmax(Q K^T / sqrt(d))

    Takes what `mixed_attention` takes; returns [B, heads, N, N].
    """
    by_content = content[:, None].to(qkv.dtype)  # [B, N, N] -> [B, 1, N, N]
    return torch.lerp(self_attention_weights(qkv, kind), by_content, mix)


@shareable
def mixed_attention(qkv: Tensor, content: Tensor, kind: str, mix: float) -> Tensor:
    """Values read by content attention and by self-attention, mixed (stage 5).

    (mix A_content + (1 - mix) softmax(Q K^T / sqrt(d))) V

    Args:
        qkv: projections of the patches, [3, B, heads, N, d].
        content: A_content, [B, N, N]; every row sums to 1.
        kind: which projections score the self-attention, see `self_attention_weights`.
        mix: share of the content attention, in [0, 1].

    Returns [B, N, heads * d]. Both parts are applied to V separately, so that the mixed weights of
    each head are never stored.
    """
    query, key = (qkv[i] for i in QUERY_AND_KEY[kind])
    values = qkv[2]
    by_self = F.scaled_dot_product_attention(query, key, values)
    by_self = by_self.transpose(1, 2).flatten(2)  # [B, heads, N, d] -> [B, N, heads * d]
    by_content = content.to(values.dtype) @ values.transpose(1, 2).flatten(2)
    return torch.lerp(by_self, by_content, mix)
