"""Training-free baselines on the same frozen blocks, and the table of all methods by name.

Each is a `DenseCLIP` with a configuration of its own. Text, logits and upsampling are shared with
SC-CLIP and nothing is post-processed, so that only the forward pass differs. Prompts are the
article's one sentence, except for `scclip-published`, which keeps its 80.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.config import ARTICLE_TEMPLATE, SCCLIPConfig, check_templates
from scclip_core.dense import DenseCLIP
from scclip_core.pipeline import SCCLIP


@dataclass(frozen=True)
class BaselineConfig:
    """What every baseline has: the sentences, with one {} each, that a class name is put into."""

    templates: tuple[str, ...] = (ARTICLE_TEMPLATE,)

    def __post_init__(self) -> None:
        check_templates(self.templates)


@dataclass(frozen=True)
class NACLIPConfig(BaselineConfig):
    """`sigma`: standard deviation of the Gaussian window, in patches, > 0."""

    sigma: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.sigma) not in (int, float) or not self.sigma > 0:
            raise ValueError(f"sigma must be a number > 0, in patches, got {self.sigma!r}")


@dataclass(frozen=True)
class GEMConfig(BaselineConfig):
    """How many of the last `blocks` have a second path, and `iterations` of self-self attention."""

    blocks: int = 6
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.blocks) is not int or self.blocks < 1:
            raise ValueError(f"blocks must be a whole number >= 1, got {self.blocks!r}")
        if type(self.iterations) is not int or self.iterations < 0:
            raise ValueError(f"iterations must be a whole number >= 0, got {self.iterations!r}")


def join_heads(block: ResidualAttentionBlock, values: Tensor) -> Tensor:
    """The end of a block's attention: heads joined, times W_o; [B, heads, L, d] -> [B, L, C]."""
    joined = values.transpose(1, 2).flatten(2)  # [B, heads, L, d] -> [B, L, C]
    projected: Tensor = block.ls_1(block.attn.out_proj(joined))
    return projected


def scaled_products(query: Tensor, key: Tensor) -> Tensor:
    """Attention logits Q K^T / sqrt(d), [B, heads, L, d] twice -> [B, heads, L, L]."""
    products: Tensor = query @ key.mT / query.shape[-1] ** 0.5
    return products


def add_mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The second half of a block: x + MLP(LN(x)), [B, L, C] -> [B, L, C]."""
    second: Tensor = block.ls_2(block.mlp(block.ln_2(tokens)))
    return tokens + second


class Vanilla(DenseCLIP):
    """CLIP's forward pass as trained, its patch tokens read densely (Radford et al. 2021)."""

    config_class = BaselineConfig

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.depth - 1
        tokens: Tensor = self.model.blocks[last](self.encode(images)[-1])
        return self.hook(f"blocks.{last}.hook_resid_post", tokens)[:, 1:]


class Values(DenseCLIP):
    """The last block's value path alone: W_o V of each patch, no residual, no MLP.

    This is SC-CLIP with every module off.
    """

    config_class = BaselineConfig

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.blocks[-1]
        values = self.model.qkv(last, self.encode(images)[-1])[2]  # [B, heads, L, d]
        return join_heads(last, values)[:, 1:]


class MaskCLIP(DenseCLIP):
    """MaskCLIP (Zhou, Loy, Dai 2022, arXiv 2112.01071): the value path, residual and MLP kept.

    y = x + W_o V, then y + MLP(LN(y))
    """

    config_class = BaselineConfig

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens, last = self.encode(images)[-1], self.model.blocks[-1]
        values = self.model.qkv(last, tokens)[2]  # [B, heads, L, d]
        return add_mlp(last, tokens + join_heads(last, values))[:, 1:]


class SCLIP(DenseCLIP):
    """SCLIP (Wang, Mei, Yuille 2023, arXiv 2312.01597), correlative self-attention.

    In the last block softmax(Q Q^T / sqrt(d)) + softmax(K K^T / sqrt(d)) weigh the values; the
    residual and the MLP stay.
    """

    config_class = BaselineConfig

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens, last = self.encode(images)[-1], self.model.blocks[-1]
        q, k, v = self.model.qkv(last, tokens)
        weights = scaled_products(q, q).softmax(-1) + scaled_products(k, k).softmax(-1)
        return add_mlp(last, tokens + join_heads(last, weights @ v))[:, 1:]


class ClearCLIP(DenseCLIP):
    """ClearCLIP (Lan et al. 2024, arXiv 2407.12442), query-query attention in the last block.

    softmax(Q Q^T / sqrt(d)) weighs the values; there is no residual and no MLP.
    """

    config_class = BaselineConfig

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.blocks[-1]
        q, _, v = self.model.qkv(last, self.encode(images)[-1])
        return join_heads(last, scaled_products(q, q).softmax(-1) @ v)[:, 1:]


def gaussian_window(grid: tuple[int, int], sigma: float) -> Tensor:
    """exp(-distance^2 / (2 sigma^2)) of every pair of patches, [N, N]; distances in patches."""
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], 1).float()
    squared = (places[:, None] - places[None]).square().sum(-1)
    return torch.exp(-squared / (2 * sigma**2))


class NACLIP(DenseCLIP):
    """NACLIP (Hajimiri, Ben Ayed, Dolz 2024, arXiv 2404.08181), its reduced last block.

    softmax(K K^T / sqrt(d) + Gaussian window), no residual, no MLP. The window is 1 at the patch
    itself; the class token gets none.
    """

    config_class = NACLIPConfig
    config: NACLIPConfig

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.blocks[-1]
        _, k, v = self.model.qkv(last, self.encode(images)[-1])
        window = gaussian_window(grid, self.config.sigma).to(k.device)
        window = F.pad(window, (1, 0, 1, 0))  # [L, L], the class token first
        logits = scaled_products(k, k).float() + window
        return join_heads(last, logits.softmax(-1).to(v.dtype) @ v)[:, 1:]


def self_self_attention(x: Tensor, values: Tensor, scale: Tensor, iterations: int) -> Tensor:
    """GEM's iterated self-self attention, [B, heads, L, d] -> the same shape; scale [B, 1, 1, 1].

    x is made of unit length and replaced `iterations` times by softmax(scale x x^T) x, made of
    unit length again; then softmax(scale x x^T) weighs the values.
    """
    for _ in range(iterations):
        x = F.normalize(x, dim=-1)
        x = (scale * x @ x.mT).softmax(-1) @ x
    x = F.normalize(x, dim=-1)
    return (scale * x @ x.mT).softmax(-1) @ values


class GEM(DenseCLIP):
    """GEM (Bousselham et al. 2023, arXiv 2312.00878): a second path of self-self attention.

    In each of the last blocks (the published code's depth = 7 changes six) the path adds the mean
    of query-query, key-key and value-value attention of the ordinary path's tokens, projected,
    without an MLP; the ordinary path goes on as trained. The scale of the products is the mean
    length of the block's normalised tokens over sqrt(d), for each image.
    """

    config_class = GEMConfig
    config: GEMConfig

    def __init__(self, model: FrozenCLIP | CLIP, config: GEMConfig | None = None):
        super().__init__(model, config)
        depth, blocks = self.model.depth, self.config.blocks
        if blocks > depth:
            raise ValueError(f"blocks must be in 1..{depth}, the model's depth, got {blocks}")

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        first, iterations = self.model.depth - self.config.blocks, self.config.iterations
        tokens = self.hook("hook_embed", self.model.embed(images))
        path = tokens
        for i, block in enumerate(self.model.blocks):
            if i >= first:
                qkv = self.model.qkv(block, tokens)
                scale = block.ln_1(tokens).norm(dim=-1).mean(1) / qkv.shape[-1] ** 0.5  # [B]
                scale = scale[:, None, None, None]
                q, k, v = (self_self_attention(x, qkv[2], scale, iterations) for x in qkv)
                path = path + join_heads(block, (q + k + v) / 3)
            tokens = self.hook(f"blocks.{i}.hook_resid_post", block(tokens))
            path = path if i >= first else tokens
        return path[:, 1:]


# name -> the class, and the configuration for a model of that many blocks
METHODS: dict[str, tuple[type[DenseCLIP], Callable[[int], Any]]] = {
    "vanilla": (Vanilla, lambda depth: BaselineConfig()),
    "values": (Values, lambda depth: BaselineConfig()),
    "maskclip": (MaskCLIP, lambda depth: BaselineConfig()),
    "sclip": (SCLIP, lambda depth: BaselineConfig()),
    "clearclip": (ClearCLIP, lambda depth: BaselineConfig()),
    "naclip": (NACLIP, lambda depth: NACLIPConfig()),
    "gem": (GEM, lambda depth: GEMConfig()),
    "scclip": (SCCLIP, SCCLIPConfig.for_depth),
    "scclip-published": (SCCLIP, SCCLIPConfig.published),
}


def make_method(name: str, model: FrozenCLIP | CLIP, **parameters: Any) -> DenseCLIP:
    """A method by name, over a frozen model.

    `parameters` replace fields of its configuration, such as `sigma` of naclip. Raises ValueError
    for an unknown name or parameter, listing what exists, and for values that are not allowed;
    TypeError for another kind of model.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    method, configure = METHODS[name]
    model = model if isinstance(model, FrozenCLIP) else FrozenCLIP(model)
    config = configure(model.depth)
    known = [field.name for field in fields(config)]
    unknown = ", ".join(parameter for parameter in parameters if parameter not in known)
    if unknown:
        raise ValueError(f"parameters of {name} must be of: {', '.join(known)}; got {unknown}")
    return method(model, replace(config, **parameters))
