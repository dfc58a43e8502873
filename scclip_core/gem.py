"""GEM: a second path of self-self attention beside the last blocks."""

from dataclasses import dataclass

import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from scclip_core.clip import FrozenCLIP, join_heads, run_block
from scclip_core.config import is_whole
from scclip_core.dense import DenseCLIP
from scclip_core.last_block import BaselineConfig


@dataclass(frozen=True)
class GEMConfig(BaselineConfig):
    """How many of the last `blocks` have a second path, and `iterations` of self-self attention."""

    blocks: int = 6
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.blocks) or self.blocks < 1:
            raise ValueError(f"blocks must be a whole number >= 1, got {self.blocks!r}")
        if not is_whole(self.iterations) or self.iterations < 0:
            raise ValueError(f"iterations must be a whole number >= 0, got {self.iterations!r}")


def self_self_weights(x: Tensor, scale: Tensor, iterations: int) -> Tensor:
    """GEM's iterated self-self attention, [B, heads, L, d] -> [B, heads, L, L].

    x is made of unit length and replaced `iterations` times by softmax(scale x x^T) x, made of
    unit length again; then softmax(scale x x^T) are the weights. Takes scale [B, 1, 1, 1].
    """
    for _ in range(iterations):
        x = F.normalize(x, dim=-1)
        x = (scale * x @ x.mT).softmax(-1) @ x
    x = F.normalize(x, dim=-1)
    return (scale * x @ x.mT).softmax(-1)


class GEM(DenseCLIP):
    """GEM (Bousselham et al. 2023, arXiv 2312.00878): a second path of self-self attention.

    In each of the last blocks (the published code's depth = 7 changes six) the path adds the mean
    of query-query, key-key and value-value attention of the ordinary path's tokens, projected,
    without an MLP; the ordinary path goes on as trained. The scale of the products is the mean
    length of the block's normalised tokens over sqrt(d), for each image.

    In these blocks `attn.hook_pattern` is the mean of the three attentions of the second path, and
    the attention of the ordinary path has no name.
    """

    config_class = GEMConfig
    config: GEMConfig

    def __init__(self, model: FrozenCLIP | CLIP, config: GEMConfig | None = None):
        super().__init__(model, config)
        depth, blocks = self.model.depth, self.config.blocks
        if blocks > depth:
            raise ValueError(f"blocks must be in 1..{depth}, the model's depth, got {blocks}")

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        first = self.model.depth - self.config.blocks
        tokens = self.embed(images)
        for i in range(first):
            tokens = self.run_block(i, tokens)
        path = tokens
        for i, block in enumerate(self.model.blocks[first:], first):
            path = path + join_heads(block, self.read_second_path(i, tokens))
            tokens = self.hook(f"blocks.{i}.hook_resid_post", run_block(block, tokens))
        return path[:, 1:]

    def read_second_path(self, i: int, tokens: Tensor) -> Tensor:
        """The mean of three self-self attentions of block `i`, [B, L, C] -> [B, heads, L, d]."""
        block, place = self.model.blocks[i], f"blocks.{i}"
        qkv = self.model.qkv(block, tokens)  # [3, B, heads, L, d]
        scale = block.ln_1(tokens).norm(dim=-1).mean(1) / qkv.shape[-1] ** 0.5  # [B]
        scale = scale[:, None, None, None]
        q, k, v = (self_self_weights(x, scale, self.config.iterations) for x in qkv)
        if self.attention_asked(place):
            return self.read(place, (q + k + v) / 3, qkv[2])
        return (q @ qkv[2] + k @ qkv[2] + v @ qkv[2]) / 3
