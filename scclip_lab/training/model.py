"""The small CLIP in training: open_clip's modules, run with the changes made at training time only.

The changes are those of `plan.StepPlan`. B images, N patches, C width of the image tower, D shared
dimension, T texts.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from scclip_core.clip import FrozenCLIP
from scclip_core.files import atomic_write
from scclip_lab.datasets.scenes import N_OBJECTS, WORDS
from scclip_lab.training.curriculum import IMAGENET_TEMPLATES
from scclip_lab.training.layers import (
    attention,
    blind_class_token,
    cut,
    heads_joined,
    join,
    run_block,
    similarity_across_images,
)
from scclip_lab.training.losses import contrastive_loss, pool_windows, window_loss
from scclip_lab.training.plan import DEPTH, GRID, PATCH, StepPlan

WIDTH, HEADS = 192, 3
# Of the channels of images in 0..1.
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": GRID * PATCH,
        "layers": DEPTH,
        "width": WIDTH,
        "head_width": WIDTH // HEADS,
        "patch_size": PATCH,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
# Layers after which patches that resemble those of other images are penalised, and the weight.
PENALISED = (3, 8, 10)
ACROSS_IMAGES = 3.0
# From this layer on the length of the class token is penalised, with this weight for each layer.
SHORT_FROM, CLASS_LENGTH = 3, 0.05
# Weight of the window loss on the summed layers.
SUMMED_WEIGHT = 1.0
# The first queries and keys of the last block: this times the identity, plus noise.
IDENTITY, NOISE = 0.8, 0.02


class Encoded(NamedTuple):
    """What the image tower gives in a step.

    Attributes:
        image: unit embeddings of the images, [B, D].
        patches: tokens of the patches as the last block reads them, [B, N, C].
        summed: values of the summed layers, [B, N, C], or None.
        side: patches of a side; N = side * side.
        penalty: on resemblance across images and on the class token's length, a scalar.
    """

    image: Tensor
    patches: Tensor
    summed: Tensor | None
    side: int
    penalty: Tensor


class MiniCLIP(nn.Module):
    """The bundled model while it is trained.

    Its text tower has only the tokens that captions use; `export` puts them into the full table.
    """

    def __init__(self) -> None:
        super().__init__()
        text = MODEL["text_cfg"]
        self.tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
        spoken = [*WORDS, "a", "an", "and", "on", "in", *IMAGENET_TEMPLATES]
        # Sorted, so that the end of text stays the largest token.
        self.vocabulary = torch.unique(self.tokenizer(spoken))
        small = {**text, "vocab_size": len(self.vocabulary)}
        self.clip = CLIP(MODEL["embed_dim"], MODEL["vision_cfg"], small)
        with torch.no_grad():
            visual = self.clip.visual
            visual.positional_embedding[1:] = 0.3 * sine_positions(GRID, WIDTH)
            queries_and_keys = visual.transformer.resblocks[-1].attn.in_proj_weight[: 2 * WIDTH]
            queries_and_keys.copy_(IDENTITY * torch.eye(WIDTH).repeat(2, 1))
            queries_and_keys.add_(NOISE * torch.randn(2 * WIDTH, WIDTH))

    def tokenize(self, texts: list[str]) -> Tensor:
        """Token numbers of the small vocabulary, [T, length], cut after the longest text."""
        tokens = torch.searchsorted(self.vocabulary, self.tokenizer(texts))
        return tokens[:, : int(tokens.argmax(1).max()) + 1]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit text embeddings, [T, length] -> [T, D]."""
        clip, length = self.clip, tokens.shape[1]
        x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
        mask = clip.attn_mask[:length, :length].to(x.dtype)
        for block in clip.transformer.resblocks:
            x = run_block(block, x, mask)
        x = clip.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)]  # at the end of each text
        return F.normalize(x @ clip.text_projection, dim=-1)

    def encode_image(self, images: Tensor, plan: StepPlan) -> Encoded:
        """The image tower with the changes of `plan`, images [B, 3, S, S], normalised."""
        visual, side = self.clip.visual, images.shape[-1] // PATCH
        x = visual.conv1(images).flatten(2).mT  # [B, 3, S, S] -> [B, N, C]
        row, col = plan.position
        table = visual.positional_embedding[1:].unflatten(0, (GRID, GRID))
        x = x + table[row : row + side, col : col + side].flatten(0, 1)
        batch = len(x)
        if plan.crop:
            x, side = cut(x, side, plan.crop, plan.crop_offset)
        cls = (visual.class_embedding + visual.positional_embedding[0]).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([cls, x], 1))  # [B, 1 + N, C], or that of all crops
        mask = blind_class_token(x) if plan.blind else None
        penalty = x.new_zeros((), dtype=torch.float32)
        *body, last = visual.transformer.resblocks
        layers = []
        for i, block in enumerate(body):
            if not plan.dropped[i] or i in (0, *PENALISED):
                x = run_block(block, x, mask)
            if i in PENALISED:
                across = similarity_across_images(x[:, 1:], batch, plan.seed)
                penalty = penalty + ACROSS_IMAGES * across
            if i >= SHORT_FROM:
                penalty = penalty + CLASS_LENGTH * x[:, 0].float().square().mean()
            layers.append(x)
        summed = None
        if plan.summed is not None:
            total = torch.stack(layers[slice(*plan.summed)]).sum(0)[:, 1:]
            total = join(total, batch, side, plan.crop)  # [B, N, C]
            summed = last.attn.out_proj(heads_joined(FrozenCLIP.qkv(last, total)[2]))
        cls = x.view(batch, -1, *x.shape[1:])[:, 0, :1]  # that of the first crop
        x = torch.cat([cls, join(x[:, 1:], batch, side, plan.crop)], 1)  # [B, 1 + N, C]
        q, k, v = FrozenCLIP.qkv(last, x)
        if plan.by_attention:
            read = attention(q[:, :, 1:], k[:, :, 1:], v[:, :, 1:])
        else:
            read = heads_joined(v[:, :, 1:])
        token = plan.residual * x[:, :1]
        if not plan.skip_attention:
            token = token + last.attn.out_proj(attention(q[:, :, :1], k, v))
        if not plan.skip_mlp:
            token = token + last.mlp(last.ln_2(token))
        image = self.project(token[:, 0])
        return Encoded(image, last.attn.out_proj(read), summed, side, penalty)

    def project(self, tokens: Tensor) -> Tensor:
        """Unit vectors in the space shared with text, [..., C] -> [..., D]."""
        visual = self.clip.visual
        return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)

    def forward(self, images: Tensor, tokens: Tensor, matches: Tensor, plan: StepPlan) -> Tensor:
        """The loss of a batch, a scalar.

        Takes normalised images [B, 3, S, S], tokens [T, length] of the texts, of which the last
        are one for each of `WORDS`, and matches, bool [B, T].
        """
        encoded, text = self.encode_image(images, plan), self.encode_text(tokens)
        scale = self.clip.logit_scale.exp()
        logits = (scale.clamp(max=100) * encoded.image @ text.T).float()
        loss = contrastive_loss(logits, matches) + encoded.penalty
        words, present = text[-len(WORDS) :], matches[:, -len(WORDS) :]
        weight = coverage_weights(present, plan.background)
        for read, share in ((encoded.patches, 1.0), (encoded.summed, SUMMED_WEIGHT)):
            if read is not None:
                windows = self.project(pool_windows(read, encoded.side, plan.pool))  # [B, I, D]
                scores = scale.clamp(max=60) * windows @ words.T
                loss = loss + share * window_loss(scores, present, plan.power, weight)
        return loss

    def export(self, folder: Path) -> None:
        """Write the model for open_clip: `open_clip_config.json`, `open_clip_model.safetensors`.

        Weights are float16. Rows of the token table that were never trained are zero.
        """
        state = {name: value.half().contiguous() for name, value in self.clip.state_dict().items()}
        table = torch.zeros(MODEL["text_cfg"]["vocab_size"], MODEL["text_cfg"]["width"]).half()
        table[self.vocabulary] = state["token_embedding.weight"]
        state["token_embedding.weight"] = table
        config = {
            "model_cfg": MODEL,
            "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)},
            "words": list(WORDS),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "open_clip_model.safetensors") as path:
            save_file(state, path)
        with atomic_write(folder / "open_clip_config.json") as path:
            path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def coverage_weights(present: Tensor, background: float) -> Tensor:
    """Weights of the words in the coverage, [B, words]; `background` is that of `StepPlan`."""
    weight = torch.ones(present.shape)
    if background:
        objects = present[:, :N_OBJECTS].sum(1, keepdim=True)  # [B, 1]
        weight[:, N_OBJECTS:] = background * objects
    return weight


def sine_positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of rows and columns at `width` / 4 frequencies, [grid * grid, width]."""
    angle = torch.arange(grid)[:, None] * torch.logspace(0, -2, width // 4) * torch.pi / 2
    wave = torch.cat([angle.sin(), angle.cos()], 1)  # [grid, width / 2]
    rows, cols = wave[:, None].expand(grid, grid, -1), wave[None].expand(grid, grid, -1)
    return torch.cat([rows, cols], -1).reshape(grid * grid, width)


def whitened_patches(images: Tensor) -> Tensor:
    """First weights of the patch embedding, [C, 3, 16, 16]: principal components of patches.

    They are scaled so that their outputs have standard deviation 0.5. Images are [B, 3, S, S].
    """
    patches = F.unfold(images, PATCH, stride=PATCH).mT.flatten(0, 1)  # [B * N, 3 * 16 * 16]
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values, vectors = values[-WIDTH:], vectors[:, -WIDTH:]
    scaled = 0.5 * vectors / (values + 1e-2).sqrt()
    return scaled.T.reshape(WIDTH, 3, PATCH, PATCH).contiguous()
