"""Training-free peers under one interface: what each does with the same frozen blocks.

A method is a function from a frozen model and images [B, 3, H, W] to tokens of the last layer [B, N, C],
before layer norm and projection. Everything else (text, logits, upsampling) is shared with SC-CLIP; prompts
are the seed's one sentence (but for `reference`, which keeps its 80) and nothing is post-processed, so that
only the forward pass differs.
"""

import inspect
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP, Record

Peer = Callable[[FrozenCLIP, Tensor], Tensor]


def attend(block: nn.Module, weights: Tensor, values: Tensor) -> Tensor:
    """weights [B, heads, L, L] times values [B, heads, L, d], heads joined and projected -> [B, L, C]."""
    joined = (weights @ values).transpose(1, 2).flatten(2)
    return block.ls_1(block.attn.out_proj(joined))


def before_last(model: FrozenCLIP, images: Tensor) -> Tensor:
    """Tokens that enter the last block, class token first, [B, L, C]."""
    tokens = model.embed(images)
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    return tokens


def products(asks: Tensor, answers: Tensor) -> Tensor:
    """Scaled products [B, heads, L, L] of projections [B, heads, L, d]."""
    return asks @ answers.mT / asks.shape[-1] ** 0.5


def sclip(model: FrozenCLIP, images: Tensor) -> Tensor:
    """SCLIP (Wang, Mei, Yuille 2023, arXiv 2312.01597), correlative self-attention in the last block.

    softmax(Q Q^T / sqrt d) + softmax(K K^T / sqrt d) weigh the values; the residual and the MLP stay.
    """
    tokens, last = before_last(model, images), model.blocks[-1]
    q, k, v = model.qkv(last, tokens)
    tokens = tokens + attend(last, products(q, q).softmax(-1) + products(k, k).softmax(-1), v)
    return (tokens + last.ls_2(last.mlp(last.ln_2(tokens))))[:, 1:]


def clearclip(model: FrozenCLIP, images: Tensor) -> Tensor:
    """ClearCLIP (Lan et al. 2024, arXiv 2407.12442): softmax(Q Q^T / sqrt d), no residual, no MLP."""
    last = model.blocks[-1]
    q, _, v = model.qkv(last, before_last(model, images))
    return attend(last, products(q, q).softmax(-1), v)[:, 1:]


def gaussian_window(grid: tuple[int, int], sigma: float) -> Tensor:
    """exp(-distance^2 / (2 sigma^2)) of every pair of patches on the grid, [N, N]; the patch is the unit."""
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], 1).float()
    squared = (places[:, None] - places[None]).square().sum(-1)
    return torch.exp(-squared / (2 * sigma**2))


def naclip(model: FrozenCLIP, images: Tensor, sigma: float = 5.0) -> Tensor:
    """NACLIP (Hajimiri, Ben Ayed, Dolz 2024, arXiv 2404.08181), its reduced last block.

    softmax(K K^T / sqrt d + Gaussian window), no residual, no MLP. The window of standard deviation `sigma`
    (patches, > 0) is 1 at the patch itself; the class token gets none.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be > 0 patches, got {sigma!r}")
    grid, last = model.check_images(images), model.blocks[-1]
    _, k, v = model.qkv(last, before_last(model, images))
    window = F.pad(gaussian_window(grid, sigma).to(k.device), (1, 0, 1, 0))  # [L, L], class token first
    logits = products(k, k).float() + window
    return attend(last, logits.softmax(-1).to(v.dtype), v)[:, 1:]


def self_self(x: Tensor, values: Tensor, scale: Tensor, iterations: int) -> Tensor:
    """GEM's iterated self-self attention, [B, heads, L, d] -> the same shape; scale [B, 1, 1, 1].

    x is made of unit length and replaced `iterations` times by softmax(scale x x^T) x, of unit length again;
    then softmax(scale x x^T) weighs the values.
    """
    for _ in range(iterations):
        x = F.normalize(x, dim=-1)
        x = (scale * x @ x.mT).softmax(-1) @ x
    x = F.normalize(x, dim=-1)
    return (scale * x @ x.mT).softmax(-1) @ values


def gem(model: FrozenCLIP, images: Tensor, blocks: int = 6, iterations: int = 1) -> Tensor:
    """GEM (Bousselham et al. 2023, arXiv 2312.00878): a second path, of self-self attention, in the last
    blocks.

    In each of the last `blocks` blocks (the published code's depth = 7 changes six), the path adds the mean
    of query-query, key-key and value-value attention of the ordinary path's tokens, projected, without an
    MLP; the ordinary path goes on as trained. The scale of the products is the mean length of the block's
    normalised tokens over sqrt d, per image. Raises ValueError where the blocks do not exist or iterations
    are negative.
    """
    if not 1 <= blocks <= model.depth:
        raise ValueError(f"blocks must be in 1..{model.depth}, the model's depth, got {blocks!r}")
    if iterations < 0:
        raise ValueError(f"iterations must be >= 0, got {iterations!r}")
    tokens = model.embed(images)
    for block in model.blocks[:-blocks]:
        tokens = block(tokens)
    path = tokens
    for block in model.blocks[-blocks:]:
        qkv = model.qkv(block, tokens)
        scale = block.ln_1(tokens).norm(dim=-1).mean(1) / qkv.shape[-1] ** 0.5  # [B]
        scale = scale[:, None, None, None]
        mixed = sum(self_self(x, qkv[2], scale, iterations) for x in qkv) / 3  # [B, heads, L, d]
        path = path + block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
        tokens = block(tokens)
    return path[:, 1:]


class PeerCLIP(SCCLIP):
    """A peer with SC-CLIP's interface: features, logits, segment; its trace starts at the projection."""

    def __init__(self, model: FrozenCLIP, peer: Peer):
        super().__init__(model, SCCLIPConfig.maskclip())
        self.peer = peer

    def _features(self, images: Tensor, normalize: bool, record: Record) -> Tensor:
        grid = self.model.check_images(images)
        return self.project(self.peer(self.model, images), grid, normalize, record)


PEERS: dict[str, Peer] = {"sclip": sclip, "clearclip": clearclip, "naclip": naclip, "gem": gem}
PRESETS: dict[str, Callable[[int], SCCLIPConfig]] = {  # the config of a model of that many blocks
    "vanilla": lambda depth: SCCLIPConfig.vanilla(),
    "maskclip": lambda depth: SCCLIPConfig.maskclip(),
    "seed": SCCLIPConfig.for_depth,
    "reference": SCCLIPConfig.reference,
}
METHODS = ("vanilla", "maskclip", "sclip", "clearclip", "naclip", "gem", "seed", "reference")


def make_method(name: str, model: FrozenCLIP, **parameters: float) -> SCCLIP:
    """A method by name, over a frozen model.

    `parameters` are the peer's own (`sigma` of naclip; `blocks` and `iterations` of gem). Raises ValueError
    for an unknown name, which lists what exists, or for parameters that a method does not have.
    """
    if name in PEERS:
        known = [p for p in inspect.signature(PEERS[name]).parameters if p not in ("model", "images")]
        if set(parameters) - set(known):
            given = ", ".join(parameters)
            raise ValueError(f"parameters of {name} must be of: {', '.join(known) or 'none'}; got {given}")
        return PeerCLIP(model, partial(PEERS[name], **parameters))
    if name not in PRESETS:
        raise ValueError(f"name must be one of {', '.join(METHODS)}, got {name!r}")
    if parameters:
        raise ValueError(f"{name} takes no parameters, got {', '.join(parameters)}: give SCCLIP a config")
    return SCCLIP(model, PRESETS[name](model.depth))
