"""ResCLIP: attention of middle blocks, and the words' own first segmentation, in the last block."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from scclip_core.attention import scaled_products, self_attention_weights
from scclip_core.clip import FrozenCLIP, add_mlp, join_heads
from scclip_core.config import is_number, is_whole
from scclip_core.dense import DenseCLIP
from scclip_core.last_block import BaselineConfig, check_sigma, gaussian_window
from scclip_core.precision import at_least_float32
from scclip_core.segmentation import upsample


@dataclass(frozen=True)
class ResCLIPConfig(BaselineConfig):
    """Parameters of ResCLIP; the defaults are those of the published code for COCO-Stuff.

    Values:
        sigma: standard deviation of the Gaussian window, in patches, and of the smoothing of the
            feedback, in patches along a row of its matrix, > 0.
        first, end: blocks whose attention is averaged, counted from 0, the end excluded; the
            article's layers 6 to 9.
        cross_mix, cross_scale: share of that attention in [0, 1], and a factor on the result, > 0.
        feedback_mix, feedback_scale: share of the feedback in the attention logits in [0, 1], and
            a factor on these, > 0.
        logit_scale: factor on cosine similarities before the softmax of the feedback, > 0.
        threshold: pixels whose largest probability is below it count as the first name, in [0, 1].

    Raises ValueError that names the field, the value given and what is allowed.
    """

    sigma: float = 5.0
    first: int = 5
    end: int = 9
    cross_mix: float = 0.4
    cross_scale: float = 2.0
    feedback_mix: float = 0.7
    feedback_scale: float = 1.8
    logit_scale: float = 40.0
    threshold: float = 0.11

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma(self.sigma)
        if not is_whole(self.first) or self.first < 0:
            raise ValueError(f"first must be a whole number >= 0, got {self.first!r}")
        if not is_whole(self.end) or self.end <= self.first:
            raise ValueError(f"end must be a whole number > first, {self.first}, got {self.end!r}")
        for name in ("cross_mix", "feedback_mix", "threshold"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a number in [0, 1], got {value!r}")
        for name in ("cross_scale", "feedback_scale", "logit_scale"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


def patch_labels(logits: Tensor, patch: int, scale: float, threshold: float) -> Tensor:
    """The most frequent label among the pixels of every patch.

    Logits are brought to image size; a pixel takes the name of the largest softmax(scale logits),
    or the first name, 0, where that is below `threshold`.

    Args:
        logits: of one image, [rows, cols, Q].
        patch: side of a patch, in pixels.
        scale: factor before the softmax.
        threshold: a probability.

    Returns int64 [rows, cols].
    """
    size = (logits.shape[0] * patch, logits.shape[1] * patch)
    probabilities = (scale * upsample(logits[None], size)[0]).softmax(0)  # [Q, H, W]
    largest, labels = probabilities.max(0)  # [H, W]
    labels = labels.masked_fill(largest < threshold, 0)
    patches = labels.unfold(0, patch, patch).unfold(1, patch, patch)  # [rows, cols, patch, patch]
    return patches.flatten(2).mode(-1).values


def same_label_affinity(labels: Tensor, sigma: float) -> Tensor:
    """Which patches have the same label, near ones and those of one object above others.

    A_ij = 1 where i and j have one label and no other lies between them, exp(-s_ij / max(s)) where
    they have one label only, 0 elsewhere; s_ij is the larger of the distances in rows and in
    columns. Each row of A is smoothed by a Gaussian along the numbers of the patches, and divided
    by its sum.

    What lies between two patches are points of the straight line from one to the other, at the
    positions 0, 1, ..., s_ij of max(s). This is how the published code does it; of a pair nearer
    than max(s) it so looks at the beginning of the line alone.

    Takes labels [rows, cols]; returns [N, N], whose rows sum to 1.
    """
    rows, cols = labels.shape
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    places = torch.stack([row.flatten(), col.flatten()], 1).to(labels.device)  # [N, 2]
    flat = labels.flatten()  # [N]
    start, end = places[:, None], places[None]  # [N, 1, 2], [1, N, 2]
    steps = (end - start).abs().amax(-1)  # [N, N]
    longest = max(rows, cols) - 1
    connected = torch.ones_like(steps, dtype=torch.bool)
    for step, t in enumerate(torch.linspace(0, 1, longest + 1)):
        between = (start * (1 - t) + end * t).round().long()  # [N, N, 2]
        found = labels[between[..., 0], between[..., 1]]  # [N, N]
        connected &= (found == flat[:, None]) | (step > steps)
    affinity = (flat[:, None] == flat[None]).float()
    affinity = torch.where(connected, affinity, affinity * torch.exp(-steps / max(longest, 1)))
    width = min(len(flat), int(6 * sigma + 1)) // 2 * 2 + 1  # odd
    offsets = torch.arange(width, device=labels.device) - width // 2
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]  # [1, 1, width]
    smooth = F.conv1d(affinity[:, None], kernel, padding=width // 2)[:, 0]  # [N, N]
    return smooth / (smooth.sum(-1, keepdim=True) + 1e-8)


class ResCLIP(DenseCLIP):
    """ResCLIP (Yang et al. 2024, arXiv 2411.15851) on NACLIP's last block.

    Residual cross-correlation self-attention: the mean query-key attention A_c of blocks 5 to 8,
    counted from 0, is mixed into the key-key attention of the last block, which has no residual
    and no MLP:

    weights = cross_scale ((1 - cross_mix) softmax(L) + cross_mix A_c)
    L = K K^T / sqrt(d) + Gaussian window

    so that the weights of a token sum to `cross_scale`. Semantic feedback refinement: `logits`
    first segments with these weights; the affinity A of patches with the same label, divided by
    its largest value and 0 for the class token, then changes the attention logits, and the last
    block runs again:

    L = feedback_scale ((1 - feedback_mix) K K^T / sqrt(d) + feedback_mix A) + Gaussian window

    The feedback needs words, so `features`, which has none, stops before it. Formulas follow the
    published code (yvhangyang/ResCLIP), which also smooths the first segmentation by the colours
    of the picture (PAMR); this is left out here, as all post-processing is. Its parameters differ
    from data set to data set.

    Raises ValueError where the model has fewer blocks than `end` needs.
    """

    config_class = ResCLIPConfig
    config: ResCLIPConfig

    def __init__(self, model: FrozenCLIP | CLIP, config: ResCLIPConfig | None = None):
        super().__init__(model, config)
        last = self.model.depth - 1
        if self.config.end > last:
            raise ValueError(
                f"end must be at most {last}, the blocks before the last, got {self.config.end}"
            )

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens, cross = self.encode_with_cross(images)
        return self.attend(tokens, cross, grid, None)

    def features_for(self, images: Tensor, text: Tensor) -> Tensor:
        """Features after the feedback of a first segmentation by `text`, [B, rows, cols, D]."""
        cfg, grid = self.config, self.model.grid_of(images)
        tokens, cross = self.encode_with_cross(images)
        first = self.finish(self.attend(tokens, cross, grid, None), grid)
        feedback = []
        for logits in first.to(text.dtype) @ text.T:  # [rows, cols, Q]
            labels = patch_labels(logits, self.model.patch_size, cfg.logit_scale, cfg.threshold)
            feedback.append(same_label_affinity(labels, cfg.sigma))
        return self.finish(self.attend(tokens, cross, grid, torch.stack(feedback)), grid)

    def encode_with_cross(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens before the last block [B, L, C], and A_c [B, heads, L, L]."""
        tokens = self.embed(images)
        attentions = []
        for i in range(self.model.depth - 1):
            if not self.config.first <= i < self.config.end:
                tokens = self.run_block(i, tokens)
                continue
            block, place = self.model.blocks[i], f"blocks.{i}"
            qkv = self.model.qkv(block, tokens)  # [3, B, heads, L, d]
            weights = self_attention_weights(qkv, "qk")  # [B, heads, L, L]
            attentions.append(weights)
            tokens = add_mlp(block, tokens + join_heads(block, self.read(place, weights, qkv[2])))
            tokens = self.hook(f"{place}.hook_resid_post", tokens)
        return tokens, torch.stack(attentions).mean(0)

    def attend(
        self, tokens: Tensor, cross: Tensor, grid: tuple[int, int], feedback: Tensor | None
    ) -> Tensor:
        """The last block, with feedback [B, N, N] or without; [B, L, C] -> [B, N, C]."""
        cfg, last = self.config, self.model.blocks[-1]
        _, k, v = self.model.qkv(last, tokens)
        logits = at_least_float32(scaled_products(k, k))  # [B, heads, L, L]
        if feedback is not None:
            affinity = F.pad(feedback / feedback.amax((1, 2), keepdim=True), (1, 0, 1, 0))
            affinity = affinity[:, None].to(logits)  # [B, 1, L, L]
            logits = torch.lerp(logits, affinity, cfg.feedback_mix) * cfg.feedback_scale
        logits = logits + F.pad(gaussian_window(grid, cfg.sigma).to(k.device), (1, 0, 1, 0))
        weights = torch.lerp(logits.softmax(-1), cross.to(logits), cfg.cross_mix) * cfg.cross_scale
        read = self.read(f"blocks.{self.model.depth - 1}", weights.to(v.dtype), v)
        return join_heads(last, read)[:, 1:]
