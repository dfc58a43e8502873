"""RF-CLIP: tokens with over-activated dimensions are filtered in every block."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from scclip_core.attention import self_attention_weights
from scclip_core.clip import FrozenCLIP, join_heads, run_block
from scclip_core.config import is_number
from scclip_core.dense import DenseCLIP
from scclip_core.last_block import BaselineConfig
from scclip_core.similarity import patch_similarity, threshold_similarity

# The over-activated dimensions of OpenAI's ViT-B/16 and ViT-L/14, by their width, as the published
# code has them.
DIMENSIONS = {
    768: (4, 162, 189, 326, 429, 474, 633, 713),
    1024: (250, 261, 437, 650, 720, 779, 936, 1005),
}
# How many are looked for in other models.
COUNT = 8


@dataclass(frozen=True)
class RFCLIPConfig(BaselineConfig):
    """Parameters of RF-CLIP; the defaults are those of the published code.

    Values:
        dimensions: the over-activated ones, each >= 0. None: those of the published code where the
            width is that of ViT-B/16 or ViT-L/14, and else what `find_dimensions` finds.
        factor: a token is filtered where one of them has more than `factor` times an even share of
            the token's weight, > 0.
        strength: share of the filtered token in the result, in [0, 1].
        beta: similarities below this threshold are set to 0, in [-1, 1].

    Raises ValueError that names the field, the value given and what is allowed.
    """

    dimensions: tuple[int, ...] | None = None
    factor: float = 5.0
    strength: float = 0.4
    beta: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.dimensions
        if given is not None and not (
            isinstance(given, tuple) and given and all(type(n) is int and n >= 0 for n in given)
        ):
            told = "None or a non-empty tuple of whole numbers >= 0"
            raise ValueError(f"dimensions must be {told}, got {given!r}")
        if not is_number(self.factor) or not 0 < self.factor < float("inf"):
            raise ValueError(f"factor must be a number > 0, got {self.factor!r}")
        for name, low in (("strength", 0), ("beta", -1)):
            value = getattr(self, name)
            if not is_number(value) or not low <= value <= 1:
                raise ValueError(f"{name} must be a number in [{low}, 1], got {value!r}")


def shares(tokens: Tensor) -> Tensor:
    """The share of every dimension in the weight of its token, [B, N, C] -> [B, N, C].

    w_j = (f_j - min(f)) / sum_k (f_k - min(f)); an even share is 1 / C.
    """
    above = tokens - tokens.amin(-1, keepdim=True)
    return above / above.sum(-1, keepdim=True).clamp(min=1e-8)


def filter_tokens(
    tokens: Tensor,
    grid: tuple[int, int],
    dimensions: tuple[int, ...],
    factor: float,
    strength: float,
) -> Tensor:
    """Patch tokens with an over-activated dimension drawn towards the mean around them.

    f' = (1 - strength) f + strength (mean of the 3 x 3 patches around f, itself among them)

    where w_j > factor / C for one of the dimensions j, with w of `shares`; what lies outside the
    grid counts as 0.

    Takes tokens [B, N, C] with N = rows * cols; returns [B, N, C].
    """
    chosen = shares(tokens)[..., list(dimensions)].amax(-1) > factor / tokens.shape[-1]  # [B, N]
    maps = torch.unflatten(tokens, 1, grid).permute(0, 3, 1, 2)  # [B, C, rows, cols]
    around = F.avg_pool2d(maps, 3, stride=1, padding=1).flatten(2).mT  # [B, N, C]
    return torch.where(chosen[..., None], torch.lerp(tokens, around, strength), tokens)


@torch.no_grad()
def find_dimensions(model: FrozenCLIP, count: int = COUNT) -> tuple[int, ...]:
    """The dimensions with the largest mean share over all blocks and patches of a grey picture.

    The article averages over the pictures of data sets and finds the same dimensions in each: they
    belong to the model. Raises ValueError unless `count` is in 1..width.
    """
    if not 1 <= count <= model.width:
        raise ValueError(f"count must be in 1..{model.width}, the model's width, got {count}")
    side = model.image_size
    tokens = model.embed(torch.zeros(1, 3, side, side, device=model.device, dtype=model.dtype))
    total = torch.zeros(model.width, device=model.device)
    for block in model.blocks:
        tokens = run_block(block, tokens)
        total += shares(tokens[0, 1:].float()).mean(0)
    return tuple(sorted(total.topk(count).indices.tolist()))


class RFCLIP(DenseCLIP):
    """RF-CLIP (Li et al. 2025, arXiv 2511.16170), ReFocusing CLIP, as its published code runs.

    1. After every block, patch tokens with an over-activated dimension are filtered
       (`filter_tokens`); the next block goes on from there.
    2. G is the mean of all blocks' filtered outputs, and S their patches' cosine similarities,
       those below beta set to 0. The tokens before the last block, F, become S F.
    3. The last block, without residual and MLP, weighs the values of patches by the mean
       softmax(K K^T / sqrt(d)) of all blocks, the last one's own among them. The class token is
       left out after the softmax, so that the weights of a patch sum to less than 1.
    4. The same of S G in place of S F; the result is the mean of both.

    The article besides moves attention in the middle blocks from such tokens to the foreground
    that a normalised cut finds (its factor 0.7); the published code (liblacklucy/RF-CLIP) has no
    cut, and has its own version of the move switched off. Neither is here, nor is the code's
    treatment of text and of the whole picture.

    In the last block `attn.hook_pattern` is that of step 3; step 4 names its own
    `guide.attn.hook_pattern`.

    Raises ValueError for dimensions that the model does not have.
    """

    config_class = RFCLIPConfig
    config: RFCLIPConfig

    def __init__(self, model: FrozenCLIP | CLIP, config: RFCLIPConfig | None = None):
        super().__init__(model, config)
        given, width = self.config.dimensions, self.model.width
        if given is None:
            count = min(COUNT, width)
            self.dimensions = DIMENSIONS.get(width) or find_dimensions(self.model, count)
        elif max(given) >= width:
            raise ValueError(f"dimensions must be below {width}, the model's width, got {given}")
        else:
            self.dimensions = given

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        last = self.model.depth - 1
        tokens = self.embed(images)
        guide, attention = torch.zeros_like(tokens), self.key_attention(0, tokens)
        for i in range(last):
            tokens = self.filter(self.run_block(i, tokens), grid)
            guide = guide + tokens
            if i + 1 < last:
                attention = attention + self.key_attention(i + 1, tokens)
        ended = self.hook(
            f"blocks.{last}.hook_resid_post", run_block(self.model.blocks[last], tokens)
        )
        guide = (guide + self.filter(ended, grid)) / self.model.depth  # [B, L, C]
        similarity = threshold_similarity(patch_similarity(guide[:, 1:]), self.config.beta)
        similarity = similarity.to(tokens.dtype)  # [B, N, N]
        main = self.attend(tokens, similarity, attention, f"blocks.{last}")
        return (main + self.attend(guide, similarity, attention, "guide")) / 2

    def filter(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Step 1, the class token unchanged; [B, L, C] -> [B, L, C]."""
        cfg = self.config
        patches = filter_tokens(tokens[:, 1:], grid, self.dimensions, cfg.factor, cfg.strength)
        return torch.cat([tokens[:, :1], patches], 1)

    def key_attention(self, i: int, tokens: Tensor) -> Tensor:
        """softmax(K K^T / sqrt(d)) of block `i`, [B, L, C] -> [B, heads, L, L]."""
        return self_attention_weights(self.model.qkv(self.model.blocks[i], tokens), "kk")

    def attend(self, tokens: Tensor, similarity: Tensor, attention: Tensor, place: str) -> Tensor:
        """Steps 2 and 3, [B, L, C] -> [B, N, C]; `attention` is the sum of the other blocks'."""
        last = self.model.blocks[-1]
        tokens = torch.cat([tokens[:, :1], similarity @ tokens[:, 1:]], 1)
        qkv = self.model.qkv(last, tokens)  # [3, B, heads, L, d]
        weights = (attention + self_attention_weights(qkv, "kk")) / self.model.depth
        return join_heads(last, self.read(place, weights[..., 1:, 1:], qkv[2][:, :, 1:]))
