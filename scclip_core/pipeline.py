"""SC-CLIP: a frozen CLIP's forward pass, rearranged into a segmenter. Stages 1 to 8 in order.

Bai et al., "Self-Calibrated CLIP for Training-Free Open-Vocabulary Segmentation", arXiv 2411.15869.
B images, N = rows * cols patches, L = 1 + N tokens, width C, shared dimension D.

`self.hook(name, tensor)` returns the tensor; it only gives it a name by which it can be looked at
or replaced (`hooks`).
"""

from collections.abc import Sequence
from functools import reduce

import torch
from open_clip.model import CLIP
from torch import Tensor

from scclip_core.anomaly import flag_anomalies, local_outlier_factor, repair_anomalies
from scclip_core.attention import content_attention, mixed_attention, mixed_weights
from scclip_core.clip import FrozenCLIP, join_heads, project_heads
from scclip_core.config import SCCLIPConfig
from scclip_core.dense import DenseCLIP
from scclip_core.detectors import detect
from scclip_core.notes import SCCLIP_NOTES
from scclip_core.sharing import shareable
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity


class SCCLIP(DenseCLIP):
    """A frozen CLIP as an open-vocabulary segmenter, with no training.

    Args:
        model: what `load_clip` returns, or an open_clip `CLIP` with a ViT (it is frozen in place).
        config: hyper-parameters (default: `SCCLIPConfig.for_depth` of the model).

    Raises TypeError for another kind of model or config, ValueError where the layers of the config
    were chosen for a model of another depth.
    """

    config_class = SCCLIPConfig
    config: SCCLIPConfig
    notes = SCCLIP_NOTES

    def __init__(self, model: FrozenCLIP | CLIP, config: SCCLIPConfig | None = None):
        super().__init__(model, config)
        if config is None:
            self.config = SCCLIPConfig.for_depth(self.model.depth)
        self.config.check_depth(self.model.depth)

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The rearranged forward pass up to the last layer norm, [B, 3, H, W] -> [B, N, C]."""
        cfg = self.config
        layers = self.encode(images)  # stages 1 and 2: [B, L, C] each
        cls, patches = layers[-1][:, :1], layers[-1][:, 1:]  # [B, 1, C], [B, N, C]
        middle = layers[cfg.pre_adjust_idx][:, 1:]  # [B, N, C]
        patches, middle = self.repair(patches, middle, grid)  # stage 3
        similarity = self.middle_similarity(middle)  # stage 4: [B, N, N]
        patches = self.aggregate_by_middle(patches, similarity)
        content = self.content_weights(similarity)  # stage 5: [B, N, N]
        tokens = self.attend(cls, patches, content, "stage5")
        shallow = self.shallow_similarity(layers[cfg.post_adjust_idx][:, 1:])  # stage 6: [B, N, N]
        tokens = self.aggregate_by_shallow(tokens, shallow, "stage6")
        if cfg.fusion:  # stage 7
            summed = self.sum_layers(layers)  # [B, L, C]
            auxiliary = self.attend(summed[:, :1], summed[:, 1:], content, "stage7")
            auxiliary = self.aggregate_by_shallow(auxiliary, shallow, "stage7")
            tokens = self.hook("stage7.fused", tokens + auxiliary)
        return tokens

    def repair(
        self, patches: Tensor, middle: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Stage 3: anomalous tokens replaced by the mean of their neighbours, in two layers.

        The local outlier factor, or another detector's score, is computed on `patches`, the last
        layer but one; the same positions are repaired in the `middle` layer. Both are [B, N, C]
        and stay so. On a grid with too few patches for `lof_neighbors`, k is half of the others: if
        all of them were neighbours, an outlier would be its neighbours' farthest neighbour, and
        they would look as isolated as it is. One or two patches are kept.
        """
        cfg, others = self.config, patches.shape[1] - 1
        k = cfg.lof_neighbors if cfg.lof_neighbors < others else others // 2
        if not cfg.repair or k < 1:
            return patches, middle
        scores = self.anomaly_scores(patches, grid, k)  # [B, N]
        flags = self.hook("stage3.anomalous", flag_anomalies(scores, cfg.contamination))  # [B, N]
        patches = repair_anomalies(patches, flags, grid, cfg.repair_from)
        middle = repair_anomalies(middle, flags, grid, cfg.repair_from)
        return self.hook("stage3.repaired", patches), self.hook("stage4.repaired", middle)

    def anomaly_scores(self, patches: Tensor, grid: tuple[int, int], k: int) -> Tensor:
        """Stage 3: the local outlier factor with k neighbours, or another detector's score; [B, N].

        Takes patches [B, N, C] on a grid (rows, cols).
        """
        cfg = self.config
        if cfg.detector == "lof":
            return self.hook("stage3.lof_scores", local_outlier_factor(patches, k, cfg.lof))
        return self.hook("stage3.scores", detect(cfg.detector, patches, grid, k))

    def middle_similarity(self, middle: Tensor) -> Tensor | None:
        """Stage 4: S_ij = cos(f_i, f_j) of the middle layer, [B, N, C] -> [B, N, N].

        It guides the first aggregation and the content attention; None where both are off.
        """
        if not (self.config.first_aggregation or self.config.calibrated_attention):
            return None
        return self.hook("stage4.similarity", patch_similarity(middle))

    def aggregate_by_middle(self, patches: Tensor, similarity: Tensor | None) -> Tensor:
        """Stage 4: F' = D^-1 S F, with similarities below beta set to 0; [B, N, C] -> [B, N, C]."""
        if not self.config.first_aggregation or similarity is None:
            return patches
        thresholded = threshold_similarity(similarity, self.config.beta)
        thresholded = self.hook("stage4.thresholded", thresholded)
        return self.hook("stage4.aggregated", adaptive_aggregate(patches, thresholded))

    def content_weights(self, similarity: Tensor | None) -> Tensor | None:
        """Stage 5: softmax(gain (S - mean(S))), negative logits masked; [B, N, N], None if off."""
        if not self.config.calibrated_attention or similarity is None:
            return None
        weights = content_attention(similarity, self.config.content_gain)
        return self.hook("stage5.content_attention", weights)

    def attend(self, cls: Tensor, patches: Tensor, content: Tensor | None, stage: str) -> Tensor:
        """Stages 5 and 7: the last block's attention, without residual and MLP.

        out = W_o (mix A_content + (1 - mix) A_self) V + res_cls cls, with Q, K and V of the tokens
        after the block's first layer norm; mix = 0.5 and res_cls = 0.3 by default

        Takes cls [B, 1, C], patches [B, N, C] and content [B, N, N], or None, where every patch
        attends to itself alone; returns [B, N, C]. Weights and values are named on request, those
        of stage 5 by the last block, those of stage 7 `stage7.attn.hook_pattern` and `hook_v`.
        """
        cfg, last = self.config, self.model.blocks[-1]
        place = stage if stage == "stage7" else f"blocks.{self.model.depth - 1}"
        qkv = self.model.qkv(last, patches)  # [3, B, heads, N, d]
        if content is None:
            tokens = join_heads(last, self.read_itself(place, qkv[2]))
        elif self.attention_asked(place):
            read = self.read(place, self.mixed_weights(qkv, content), qkv[2])
            tokens = join_heads(last, read)
        else:
            tokens = project_heads(last, self.mixed_attention(qkv, content))
        tokens = self.hook(f"{stage}.attention", tokens)
        if cfg.class_residual:
            tokens = self.hook(f"{stage}.class_residual", tokens + cfg.res_cls * cls)
        return tokens

    def mixed_attention(self, qkv: Tensor, content: Tensor) -> Tensor:
        """Stage 5: values read by content attention and by self-attention, mixed; [B, N, C]."""
        return mixed_attention(qkv, content, self.config.self_attention, self.config.mix)

    def mixed_weights(self, qkv: Tensor, content: Tensor) -> Tensor:
        """Stage 5: the weights that `mixed_attention` reads with; [B, heads, N, N]."""
        return mixed_weights(qkv, content, self.config.self_attention, self.config.mix)

    def shallow_similarity(self, shallow: Tensor) -> Tensor | None:
        """Stage 6: thresholded similarities of a shallow layer, [B, N, C] -> [B, N, N], or None."""
        if not self.config.second_aggregation:
            return None
        similarity = self.hook("stage6.similarity", patch_similarity(shallow))
        return self.hook("stage6.thresholded", threshold_similarity(similarity, self.config.beta))

    def aggregate_by_shallow(self, tokens: Tensor, shallow: Tensor | None, stage: str) -> Tensor:
        """Stages 6 and 7: F' = D^-1 S F with the similarities of the shallow layer; [B, N, C]."""
        if shallow is None:
            return tokens
        return self.hook(f"{stage}.aggregated", adaptive_aggregate(tokens, shallow))

    def sum_layers(self, layers: list[Tensor]) -> Tensor:
        """Stage 7: the sum of layers multi_start_idx..multi_end_idx - 1, [B, L, C] -> [B, L, C]."""
        start, end = self.config.multi_start_idx, self.config.multi_end_idx
        return self.hook("stage7.summed_layers", sum_tokens(layers[start:end]))


@shareable
def sum_tokens(layers: Sequence[Tensor]) -> Tensor:
    """Stage 7: the sum of several layers' tokens, [B, L, C] each -> [B, L, C]."""
    return reduce(torch.add, layers)
