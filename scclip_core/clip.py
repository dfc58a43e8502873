"""The frozen CLIP, and the pieces of its forward pass that the pipeline rearranges."""

from collections.abc import Callable, Sequence
from typing import Self

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from scclip_core.images import Picture, to_tensor
from scclip_core.precision import at_least_float32, check_finite
from scclip_core.sharing import shareable


class FrozenCLIP(nn.Module):
    """An open_clip `CLIP` with a ViT image tower, always in evaluation mode, without gradients.

    Args:
        clip: the model. It is frozen in place.
        name: what error messages and reports call it.
        words: the class names that a small model was trained on, where that is known.

    Attributes:
        patch_size, image_size: pixels of a patch's side and of the side of a training image.
        grid_size: (rows, cols) of patches in a training image.
        width, heads, depth: of the image tower.
        embed_dim: dimensions of the space that images and text share.

    Raises TypeError for anything but an open_clip `CLIP`, ValueError for one without a plain ViT or
    with weights of several dtypes.
    """

    def __init__(self, clip: CLIP, name: str = "custom", words: Sequence[str] = ()):
        super().__init__()
        if not isinstance(clip, CLIP):
            hint = "load one with load_clip(name, pretrained)"
            raise TypeError(f"model must be an open_clip CLIP, got {type(clip).__name__}; {hint}")
        visual = clip.visual
        if not isinstance(visual, VisionTransformer):
            kind = type(visual).__name__
            raise ValueError(f"model must have a ViT image tower, {name} has a {kind}")
        block = visual.transformer.resblocks[0]
        plain = visual.attn_pool is None and isinstance(block.attn, nn.MultiheadAttention)
        if visual.pool_type != "tok" or not plain:
            raise ValueError(
                f"model must read its class token through plain attention, {name} does not"
            )
        kinds = sorted({str(one.dtype) for one in clip.parameters() if one.is_floating_point()})
        if len(kinds) > 1:
            raise ValueError(
                f"model must have weights of one dtype, {name} has {' and '.join(kinds)}; "
                f"load it with load_clip(name, pretrained, precision=...)"
            )
        self.clip = clip.requires_grad_(False)
        self.name = name
        self.words = tuple(words)
        self.tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
        self.patch_size: int = visual.patch_size[0]
        self.image_size: int = visual.image_size[0]
        self.grid_size: tuple[int, int] = visual.grid_size
        self.width: int = visual.conv1.out_channels
        self.heads: int = block.attn.num_heads
        self.depth = len(self.blocks)
        self.embed_dim: int = visual.output_dim
        self.mean = tuple(getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN)
        self.std = tuple(getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD)
        # Filled by `text.embed_names`: (name, templates) -> embedding.
        self.text_cache: dict[tuple[str, tuple[str, ...]], Tensor] = {}
        self.eval()

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        return self.clip.visual

    @property
    def blocks(self) -> Sequence[ResidualAttentionBlock]:
        """The image tower's transformer blocks, in order."""
        blocks: Sequence[ResidualAttentionBlock] = self.visual.transformer.resblocks
        return blocks

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.visual.conv1.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        dtype: torch.dtype = self.visual.conv1.weight.dtype
        return dtype

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosine similarities by before a softmax."""
        return float(self.clip.logit_scale.exp())

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the model is frozen."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Called by .to(...), .half() and .cuda(): cached embeddings would stay behind.
        self.text_cache.clear()
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def preprocess(self, picture: Picture, short_side: int | None = None) -> Tensor:
        """A picture as a normalised tensor [3, H, W] of the model's device and dtype.

        The short side becomes `short_side` pixels (default: the training size), rounded to whole
        patches like the long side, so that the aspect is kept up to rounding and nothing is
        cropped. Raises what `images.to_tensor` raises.
        """
        side = self.image_size if short_side is None else short_side
        tensor = to_tensor(picture, side, self.patch_size, self.mean, self.std)
        return tensor.to(self.device, self.dtype)

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """The patch grid (rows, cols) of images [B, 3, H, W].

        Raises TypeError for anything but a tensor, ValueError for a wrong shape, dtype or device,
        or for values that are not finite.
        """
        require_tensor("images", images, "predict(picture, classes), or preprocess(picture) first")
        shape, patch = tuple(images.shape), self.patch_size
        if len(shape) != 4 or shape[1] != 3 or shape[0] < 1:
            raise ValueError(f"images must be [batch, 3, height, width], got shape {shape}")
        if min(shape[2:]) < patch or shape[2] % patch or shape[3] % patch:
            given = f"{shape[2]} x {shape[3]}"
            raise ValueError(
                f"images must have sides that are multiples of the patch, {patch}, got {given}"
            )
        if images.dtype != self.dtype or images.device != self.device:
            wanted, given = f"{self.dtype} on {self.device}", f"{images.dtype} on {images.device}"
            raise ValueError(
                f"images must be {wanted} like the model, got {given}: move one of them"
            )
        check_finite("images", images)
        return shape[2] // patch, shape[3] // patch

    def embed(self, images: Tensor, position_offset: float = 0.0) -> Tensor:
        """Stage 1: patch embedding, class token, positional embedding, layer norm.

        x = LN([class token; E patches] + positions)

        Takes images [B, 3, H, W], and the offset as in `positions`; returns tokens [B, 1 + N, C],
        the class token first.
        """
        rows, cols = (side // self.patch_size for side in images.shape[2:])
        return self.embed_at(images, self.positions((rows, cols), position_offset))

    @shareable
    def embed_at(self, images: Tensor, positions: Tensor) -> Tensor:
        """Stage 1 with given positional embeddings [1 + N, C]; [B, 3, H, W] -> [B, 1 + N, C]."""
        patches = self.visual.conv1(images)  # [B, C, rows, cols]
        patches = patches.flatten(2).mT  # [B, C, rows, cols] -> [B, N, C]
        cls = self.visual.class_embedding.expand(len(patches), 1, -1)
        tokens: Tensor = self.visual.ln_pre(torch.cat([cls, patches], 1) + positions)
        return tokens

    @shareable
    def positions(self, grid: tuple[int, int], offset: float = 0.0) -> Tensor:
        """Positional embeddings [1 + rows * cols, C], the class token's first.

        Those of patches are interpolated, bicubically, where the grid is not the training grid: by
        the scale (rows + offset) / training rows, and likewise for columns. An offset in [0, 1)
        shifts the places that are read; the published code has 0.1.
        """
        table: Tensor = self.visual.positional_embedding
        if grid == tuple(self.grid_size):
            return table
        maps = torch.unflatten(table[1:].T, 1, self.grid_size)[None]  # [1, C, rows, cols]
        pairs = zip(grid, self.grid_size, strict=True)
        scale = [(new + offset) / trained for new, trained in pairs]
        size = None if offset else grid
        factor = scale if offset else None
        maps = at_least_float32(maps)
        maps = F.interpolate(maps, size, factor, mode="bicubic", align_corners=False)[0]
        return torch.cat([table[:1], maps.flatten(1).T.to(table.dtype)])

    @staticmethod
    @shareable
    def qkv(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
        """Layer norm 1 and the projections of a block, [B, L, C] -> [3, B, heads, L, d]."""
        attn = block.attn
        projected = F.linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)
        split = torch.unflatten(projected, 2, (3, attn.num_heads, -1))  # [B, L, 3, heads, d]
        return split.permute(2, 0, 3, 1, 4)

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """The names with a token that was never trained: its row of the text table is zero."""
        trained = self.clip.token_embedding.weight.any(-1)  # [vocabulary]
        return [name for name in names if not trained[self.tokenizer.encode(name)].all()]

    def project(self, tokens: Tensor) -> Tensor:
        """Stage 8: layer norm and projection into the shared space, [B, L, C] -> [B, L, D]."""
        projected: Tensor = self.visual.ln_post(tokens) @ self.visual.proj
        return projected

    @torch.no_grad()
    def encode_text(self, prompts: list[str], batch: int = 256) -> Tensor:
        """Unit embeddings of sentences, [P, D], in float32 at least; ValueError for none."""
        if not prompts:
            raise ValueError("prompts must hold at least one sentence, got none")
        parts = []
        for start in range(0, len(prompts), batch):
            tokens = self.tokenizer(prompts[start : start + batch]).to(self.device)
            embedded = self.clip.encode_text(tokens)
            parts.append(F.normalize(at_least_float32(embedded), dim=-1))
        return torch.cat(parts)


def join_heads(block: ResidualAttentionBlock, read: Tensor) -> Tensor:
    """The end of a block's attention: heads joined, times W_o; [B, heads, L, d] -> [B, L, C]."""
    return project_heads(block, read.transpose(1, 2).flatten(2))  # [B, heads, L, d] -> [B, L, C]


@shareable
def project_heads(block: ResidualAttentionBlock, joined: Tensor) -> Tensor:
    """What the heads of a block have read, side by side, times W_o; [B, L, C] -> [B, L, C]."""
    projected: Tensor = block.ls_1(block.attn.out_proj(joined))
    return projected


def run_block(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """A block as trained, [B, L, C] -> [B, L, C]."""
    return add_mlp(block, add_attention(block, tokens))


@shareable
def add_attention(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The first half of a block: x + W_o softmax(Q K^T / sqrt(d)) V; [B, L, C] -> [B, L, C]."""
    attended: Tensor = block.ls_1(block.attention(block.ln_1(tokens)))
    return tokens + attended


@shareable
def add_mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The second half of a block: x + MLP(LN(x)), [B, L, C] -> [B, L, C]."""
    second: Tensor = block.ls_2(block.mlp(block.ln_2(tokens)))
    return tokens + second


def require_tensor(name: str, value: object, instead: str) -> None:
    """Raise TypeError, with what to call instead, unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        given = type(value).__name__
        raise TypeError(f"{name} must be a tensor, got {given}; call {instead}")
