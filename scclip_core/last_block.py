"""Training-free baselines that change the last block alone.

Each is a `DenseCLIP` with a configuration of its own. On request its attention in the last block is
named, as that of SC-CLIP is (`hooks`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.attention import scaled_products
from scclip_core.clip import add_mlp, join_heads
from scclip_core.config import ARTICLE_TEMPLATE, check_position_offset, check_templates, is_number
from scclip_core.dense import DenseCLIP
from scclip_core.precision import at_least_float32


@dataclass(frozen=True)
class BaselineConfig:
    """What every baseline has.

    templates: the sentences, with one {} each, that a class name is put into.
    position_offset: as in `SCCLIPConfig`; the public code of SCLIP, ClearCLIP and NACLIP has 0.1.
    """

    templates: tuple[str, ...] = (ARTICLE_TEMPLATE,)
    position_offset: float = 0.0

    def __post_init__(self) -> None:
        check_templates(self.templates)
        check_position_offset(self.position_offset)


@dataclass(frozen=True)
class NACLIPConfig(BaselineConfig):
    """`sigma`: standard deviation of the Gaussian window, in patches, > 0."""

    sigma: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma(self.sigma)


def check_sigma(sigma: float) -> None:
    """Raise ValueError unless `sigma` is a number > 0."""
    if not is_number(sigma) or not 0 < sigma < float("inf"):
        raise ValueError(f"sigma must be a number > 0, in patches, got {sigma!r}")


class LastBlock(DenseCLIP):
    """A method that changes the last block alone: what it shares with the others of this kind."""

    config_class = BaselineConfig

    @property
    def place(self) -> str:
        """The name of the last block, `blocks.11` in a model of 12."""
        return f"blocks.{self.model.depth - 1}"


class Vanilla(LastBlock):
    """CLIP's forward pass as trained, its patch tokens read densely (Radford et al. 2021)."""

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.run_block(self.model.depth - 1, self.encode(images)[-1])[:, 1:]


class Values(LastBlock):
    """The last block's value path alone: W_o V of each patch, no residual, no MLP.

    This is SC-CLIP with every module off.
    """

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.blocks[-1]
        values = self.model.qkv(last, self.encode(images)[-1])[2]  # [B, heads, L, d]
        return join_heads(last, self.read_itself(self.place, values))[:, 1:]


class MaskCLIP(LastBlock):
    """MaskCLIP (Zhou, Loy, Dai 2022, arXiv 2112.01071): the value path, residual and MLP kept.

    y = x + W_o V, then y + MLP(LN(y))
    """

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens, last = self.encode(images)[-1], self.model.blocks[-1]
        values = self.model.qkv(last, tokens)[2]  # [B, heads, L, d]
        read = self.read_itself(self.place, values)
        return add_mlp(last, tokens + join_heads(last, read))[:, 1:]


class SCLIP(LastBlock):
    """SCLIP (Wang, Mei, Yuille 2023, arXiv 2312.01597), correlative self-attention.

    In the last block softmax(Q Q^T / sqrt(d)) + softmax(K K^T / sqrt(d)) weigh the values, so that
    the weights of a token sum to 2; the residual and the MLP stay.
    """

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens, last = self.encode(images)[-1], self.model.blocks[-1]
        q, k, v = self.model.qkv(last, tokens)
        weights = scaled_products(q, q).softmax(-1) + scaled_products(k, k).softmax(-1)
        read = self.read(self.place, weights, v)
        return add_mlp(last, tokens + join_heads(last, read))[:, 1:]


class ClearCLIP(LastBlock):
    """ClearCLIP (Lan et al. 2024, arXiv 2407.12442), query-query attention in the last block.

    softmax(Q Q^T / sqrt(d)) weighs the values; there is no residual and no MLP.
    """

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.blocks[-1]
        q, _, v = self.model.qkv(last, self.encode(images)[-1])
        read = self.read(self.place, scaled_products(q, q).softmax(-1), v)
        return join_heads(last, read)[:, 1:]


def gaussian_window(grid: tuple[int, int], sigma: float) -> Tensor:
    """exp(-distance^2 / (2 sigma^2)) of every pair of patches, [N, N]; distances in patches."""
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], 1).float()
    squared = (places[:, None] - places[None]).square().sum(-1)
    return torch.exp(-squared / (2 * sigma**2))


class NACLIP(LastBlock):
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
        logits = at_least_float32(scaled_products(k, k)) + window
        return join_heads(last, self.read(self.place, logits.softmax(-1).to(v.dtype), v))[:, 1:]
