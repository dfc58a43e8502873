"""The small CLIP in training: its forward pass with the changes that are made at training time only.

What they are and why is told in `data/mini/README.md`.
"""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from scclip_core.curriculum import IMAGENET_TEMPLATES, PATCH, Phase
from scclip_core.files import atomic_write
from scclip_core.scenes import WORDS

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 128, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}
GRID = 14  # rows and columns of patches at 224 pixels
PENALISED = (3, 8, 10)  # block outputs whose common direction is penalised
# how often each training-time change is made
LATE, SKIP_MLP, SCALE_RESIDUAL, DROP_BLOCK = 0.7, 0.5, 0.5, 0.1
NEAR_SIGHT = 0.6  # of the late steps, in phases that ask for it
PENALTY = 0.5  # weight of the penalty on the patches' common direction


class Student(nn.Module):
    """A CLIP in training. Its text tower has only the tokens that captions use; `export` puts them into the
    full table.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
        spoken = [*WORDS, "a", "an", "and", "on", "in", *IMAGENET_TEMPLATES]
        self.vocabulary = torch.unique(self.tokenizer(spoken))  # sorted: end of text stays the largest
        text = {**MODEL["text_cfg"], "vocab_size": len(self.vocabulary)}
        self.clip = CLIP(MODEL["embed_dim"], MODEL["vision_cfg"], text)
        with torch.no_grad():
            visual = self.clip.visual
            visual.positional_embedding[1:] = 0.3 * sine_positions(GRID, visual.positional_embedding.shape[1])

    def encode_text(self, captions: list[str]) -> Tensor:
        """Unit text embeddings [T, D]."""
        tokens = torch.searchsorted(self.vocabulary, self.tokenizer(captions))
        end = tokens.argmax(1)
        tokens = tokens[:, : int(end.max()) + 1]  # what follows the end of text cannot be seen from it
        clip, length = self.clip, tokens.shape[1]
        x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
        for block in clip.transformer.resblocks:
            x = run_block(block, x, clip.attn_mask[:length, :length])
        x = clip.ln_final(x)[torch.arange(len(x)), end] @ clip.text_projection
        return F.normalize(x, dim=-1)

    def encode_image(self, images: Tensor, rng: np.random.Generator, phase: Phase) -> tuple[Tensor, Tensor]:
        """Unit image embeddings [B, D] of normalised images, and the penalties on the patches' common
        direction and on the class token's length, weighted and added.

        The coin tosses of the training-time changes are taken from `rng`, the same for the whole batch.
        """
        late, skip_mlp = rng.random() < LATE, rng.random() < SKIP_MLP
        scale = rng.uniform(*phase.residual) if rng.random() < SCALE_RESIDUAL else 1.0
        dropped = rng.random(12) < DROP_BLOCK
        visual = self.clip.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)  # [B, 3, S, S] -> [B, N, C]
        side = images.shape[-1] // PATCH
        row, col = rng.integers(
            GRID - side + 1, size=2
        )  # small scenes stand anywhere on the full grid of positions
        table = visual.positional_embedding[1:].view(GRID, GRID, -1)
        x = x + table[row : row + side, col : col + side].flatten(0, 1)
        first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([first, x], 1))  # [B, 1 + N, C]
        near = late and phase.sights and rng.random() < NEAR_SIGHT
        mask = sight(side, late, int(rng.choice(phase.sights)) if near else None)
        penalty = x.new_zeros(())
        *body, last = visual.transformer.resblocks
        for i, block in enumerate(body):
            if i in (0, *PENALISED) or not dropped[i]:
                x = run_block(block, x, mask)
            if i in PENALISED:
                penalty = penalty + PENALTY * F.normalize(x[:, 1:], dim=-1).mean((0, 1)).square().sum()
                penalty = penalty + phase.shortens * x[:, 0].square().mean()
        token = scale * x[:, :1] + attend(last, x)[:, :1]  # only the class token is read
        if not skip_mlp:
            token = token + last.mlp(last.ln_2(token))
        return F.normalize(visual.ln_post(token[:, 0]) @ visual.proj, dim=-1), penalty

    def loss(
        self,
        images: Tensor,
        captions: list[str],
        truth: Tensor,
        rng: np.random.Generator,
        phase: Phase,
    ) -> Tensor:
        """Contrastive loss in both directions; every caption that is true of an image is a positive of it."""
        image, penalty = self.encode_image(images, rng, phase)
        logits = self.clip.logit_scale.exp().clamp(max=100) * image @ self.encode_text(captions).T  # [B, T]
        target = truth.float()
        by_image = F.cross_entropy(logits, target / target.sum(1, keepdim=True))
        by_caption = F.cross_entropy(logits.T, target.T / target.T.sum(1, keepdim=True))
        return (by_image + by_caption) / 2 + penalty

    def export(self, folder: Path) -> None:
        """Write the model for open_clip: `open_clip_config.json` and float16
        `open_clip_model.safetensors`.
        """
        state = {name: tensor.detach().half().contiguous() for name, tensor in self.clip.state_dict().items()}
        generator = torch.Generator().manual_seed(0)
        table = 0.02 * torch.randn(
            MODEL["text_cfg"]["vocab_size"], MODEL["text_cfg"]["width"], generator=generator
        )
        table[self.vocabulary] = state["token_embedding.weight"].float()
        state["token_embedding.weight"] = table.half()
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        config = {"model_cfg": MODEL, "preprocess_cfg": {"mean": list(mean), "std": list(std)}}
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "open_clip_model.safetensors") as path:
            save_file(state, path)
        with atomic_write(folder / "open_clip_config.json") as path:
            path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def attend(block: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The attention of an open_clip block on [B, L, C], layer norm before, no residual."""
    batch, length, width = x.shape
    qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    q, k, v = qkv.view(batch, length, 3, block.attn.num_heads, -1).permute(
        2, 0, 3, 1, 4
    )  # each [B, heads, L, d]
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return block.attn.out_proj(x.transpose(1, 2).reshape(batch, length, width))


def run_block(block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """A whole open_clip block."""
    x = x + attend(block, x, mask)
    return x + block.mlp(block.ln_2(x))


def sight(side: int, late: bool, radius: int | None) -> Tensor:
    """The attention mask of the blocks before the last, 0 or -inf, [1 + N, 1 + N] for side x side patches.

    With `late` the class token sees only itself; with a radius, a patch sees the class token and the patches
    that lie within so many rows and columns.
    """
    mask = torch.zeros(1 + side**2, 1 + side**2)
    if late:
        mask[0, 1:] = -torch.inf
    if radius is not None:
        place = torch.arange(side**2)
        rows, cols = place // side, place % side
        far = torch.maximum((rows[:, None] - rows).abs(), (cols[:, None] - cols).abs()) > radius
        mask[1:, 1:] = mask[1:, 1:].masked_fill(far, -torch.inf)
    return mask


def sine_positions(grid: int, width: int) -> Tensor:
    """Sine and cosine of rows and columns at `width` / 4 frequencies each, [grid * grid, width]."""
    angle = torch.arange(grid)[:, None] * torch.logspace(0, -2, width // 4) * torch.pi / 2
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # [grid, width / 2]
    rows, cols = wave[:, None].expand(grid, grid, -1), wave[None].expand(grid, grid, -1)
    return torch.cat([rows, cols], -1).reshape(grid * grid, width)


def whitened_patches(images: Tensor, width: int) -> Tensor:
    """Convolution weights [width, 3, 16, 16]: principal components of 16 x 16 patches, scaled to spread
    0.5.
    """
    patches = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)  # [B * N, 3 * 16 * 16]
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values, vectors = values[-width:], vectors[:, -width:]
    return (0.5 * vectors / (values + 1e-2).sqrt()).T.reshape(width, 3, PATCH, PATCH).contiguous()


def normalise(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float, with OpenAI's mean and spread."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (images.float() / 255 - mean) / std
