"""open_clip's blocks as functions of tokens, and images cut into separate crops.

A block is open_clip's `ResidualAttentionBlock`, whose parts torch types as `Tensor | Module`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.clip import FrozenCLIP

# Patches of each image that `similarity_across_images` compares.
SAMPLED = 4


def heads_joined(x: Tensor) -> Tensor:
    """[B, heads, L, d] -> [B, L, C]."""
    return x.transpose(1, 2).flatten(2)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + mask) V, heads joined, [B, heads, L, d] thrice -> [B, L, C].

    Written out, since on a CPU the backward pass of torch's fused kernel takes three times as long
    in bfloat16.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.mT
    logits = logits if mask is None else logits + mask
    return heads_joined(logits.softmax(-1) @ v)


def run_block(block: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """A whole block of open_clip, [B, L, C] -> [B, L, C]."""
    q, k, v = FrozenCLIP.qkv(block, x)
    x = x + block.attn.out_proj(attention(q, k, v, mask))
    return x + block.mlp(block.ln_2(x))


def blind_class_token(x: Tensor) -> Tensor:
    """The attention mask [L, L] with which the class token sees itself alone."""
    mask = x.new_zeros(x.shape[1], x.shape[1])
    mask[0, 1:] = -torch.inf
    return mask


def similarity_across_images(patches: Tensor, batch: int, seed: int) -> Tensor:
    """How far patches of different images resemble each other: mean of max(0, cosine)^2.

    Of every image `SAMPLED` patches are drawn. They mostly show different words, so that a token
    that resembles those of other images tells little about its own content. The penalty is akin
    to the uniformity loss of Wang and Isola (2020), arXiv 2005.10242.

    Args:
        patches: [B', n, C], where B' is `batch`, or that times the crops of an image.
        batch: number of images.
        seed: of the patches that are drawn.

    Returns a scalar in [0, 1].
    """
    grouped = patches.reshape(batch, -1, patches.shape[-1])  # [B, N, C]
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(grouped.shape[1], (batch, SAMPLED), generator=generator)
    drawn = grouped[torch.arange(batch)[:, None], index].flatten(0, 1)  # [B * SAMPLED, C]
    unit = F.normalize(drawn.float(), dim=-1)
    owner = torch.arange(batch).repeat_interleave(SAMPLED)
    others = owner[:, None] != owner[None]
    return ((unit @ unit.T).clamp(min=0).square() * others).sum() / others.sum()


def cut(x: Tensor, side: int, crop: int, offset: tuple[int, int]) -> tuple[Tensor, int]:
    """Patches of separate crops: [B, side * side, C] -> [B * crops, crop * crop, C].

    Crops of crop x crop patches lie side by side from `offset` on; the rest is left out. Returns
    them with the number of patches of a side that are left.
    """
    n = side // crop
    row, col = offset
    maps = x.unflatten(1, (side, side))[:, row : row + n * crop, col : col + n * crop]
    cells = maps.unflatten(1, (n, crop)).unflatten(3, (n, crop))  # [B, n, crop, n, crop, C]
    return cells.transpose(2, 3).flatten(3, 4).flatten(0, 2), n * crop


def join(x: Tensor, batch: int, side: int, crop: int) -> Tensor:
    """The inverse of `cut`: [B * crops, crop * crop, C] -> [B, side * side, C]."""
    if not crop:
        return x
    n = side // crop
    cells = x.unflatten(1, (crop, crop)).unflatten(0, (batch, n, n))  # [B, n, n, crop, crop, C]
    return cells.transpose(2, 3).flatten(1, 4)
