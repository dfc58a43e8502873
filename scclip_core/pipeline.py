"""SC-CLIP: a frozen CLIP's forward pass, rearranged into a segmenter. Stages 1 to 8 in the seed's order.

B images, N = rows * cols patches, L = 1 + N tokens, width C, shared dimension D, Q names. Tokens stay [B, L,
C] all the way where the seed writes [L, B, C].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from scclip_core.anomaly import flag_anomalies, local_outlier_factor, repair_anomalies
from scclip_core.attention import content_attention, mixed_attention
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_core.text import Classes, best_name, embed_names, parse_classes


@dataclass(frozen=True)
class Step:
    """One line of a trace: seed stage, name, the tensor itself, and what happened."""

    stage: int
    name: str
    tensor: Tensor
    note: str


Record = Callable[[int, str, Tensor, str], None]
AVERAGED = "tokens averaged with those they look like"


class Trace(dict[str, Step]):
    """Every intermediate tensor of one run, by name, in the order of the computation."""

    def record(self, stage: int, name: str, tensor: Tensor, note: str) -> None:
        self[name] = Step(stage, name, tensor, note)

    def rows(self) -> list[dict[str, object]]:
        """The walk as a table: stage, tensor, shape, what happened."""
        shapes = {name: "[" + ", ".join(map(str, step.tensor.shape)) + "]" for name, step in self.items()}
        return [
            {"stage": step.stage, "tensor": name, "shape": shapes[name], "what happened": step.note}
            for name, step in self.items()
        ]


def _forget(stage: int, name: str, tensor: Tensor, note: str) -> None:
    """What records when no trace is asked for: nothing."""


class SCCLIP(nn.Module):
    """A frozen CLIP as an open-vocabulary segmenter, with no training.

    Args:
        model: what `load_clip` returns, or an open_clip `CLIP` with a ViT (which is frozen in place).
        config: hyper-parameters; the default is `SCCLIPConfig.for_depth` of the model.

    Raises ValueError where the config reads layers that the model does not have.
    """

    def __init__(self, model: FrozenCLIP | CLIP, config: SCCLIPConfig | None = None):
        super().__init__()
        self.model = model if isinstance(model, FrozenCLIP) else FrozenCLIP(model)
        self.config = config or SCCLIPConfig.for_depth(self.model.depth)
        self.config.check_depth(self.model.depth)

    @torch.no_grad()
    def features(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Dense features in the space shared with text, [B, 3, H, W] -> [B, rows, cols, D].

        H and W are any multiples of the patch; dtype and device are the model's. Unit length, unless
        `normalize` is False. Raises ValueError for other shapes, dtypes and devices.
        """
        return self._features(images, normalize, _forget)

    @torch.no_grad()
    def logits(self, images: Tensor, text: Tensor) -> Tensor:
        """Stage 8.2: cosine similarity with unit text embeddings [Q, D] -> [B, rows, cols, Q], float32 at
        least.
        """
        return self._logits(self.features(images), text)

    @torch.no_grad()
    def segment(self, images: Tensor, classes: Classes) -> Tensor:
        """Label maps at image size, [B, 3, H, W] -> int64 [B, H, W], indices into `classes`.

        A class is a name, or several ("dog|puppy", or a list), of which it takes the best. Raises ValueError
        for no classes, empty or repeated names.
        """
        named, text = self.embed_classes(classes)
        logits = best_name(self.logits(images, text), named)
        # one image at a time: logits at image size are the largest tensors of all
        return torch.cat([upsample(one, images.shape[2:]).argmax(1) for one in logits.split(1)])

    @torch.no_grad()
    def trace(self, images: Tensor, classes: Classes | None = None) -> Trace:
        """Every intermediate tensor of a run, by name; with `classes`, up to the logits at image size."""
        trace = Trace()
        trace.record(1, "images", images, "normalised pictures")
        features = self._features(images, True, trace.record)
        if classes is not None:
            named, text = self.embed_classes(classes)
            trace.record(8, "text", text, "unit text embeddings, one row a name")
            logits = best_name(self._logits(features, text), named)
            trace.record(8, "logits", logits, "cosine similarity of every patch with every class")
            trace.record(8, "segmentation", upsample(logits, images.shape[2:]), "bilinear, to image size")
        return trace

    def embed_classes(self, classes: Classes) -> tuple[list[tuple[str, ...]], Tensor]:
        """The names of every class, and the unit embeddings [Q, D] of all names with the config's
        templates.
        """
        named = parse_classes(classes)
        return named, embed_names(
            self.model, [name for names in named for name in names], self.config.templates
        )

    # ---- the forward pass
    # -------------------------------------------------------------------------------------

    def _features(self, images: Tensor, normalize: bool, record: Record) -> Tensor:
        cfg, grid, before = self.config, self.model.check_images(images), self.model.depth - 2
        layers = self.encode(images, record)  # stages 1 and 2
        if cfg.unchanged:
            tokens = self.model.blocks[-1](layers[before])[:, 1:]
            record(2, "last_block", tokens, "the last block as trained, class token dropped")
            return self.project(tokens, grid, normalize, record)
        cls, patches = layers[before][:, :1], layers[before][:, 1:]
        middle = layers[cfg.pre_adjust_idx][:, 1:]
        if cfg.repair:
            patches, middle = self.repair(patches, middle, grid, record)  # stage 3
        content = None
        if cfg.first_aggregation or cfg.calibrated_attention:
            similarity = patch_similarity(middle)
            record(4, "similarity_mid_raw", similarity, f"cosine similarity at layer {cfg.pre_adjust_idx}")
        if cfg.first_aggregation:  # stage 4
            sparse = threshold_similarity(similarity, cfg.beta)
            record(4, "similarity_mid", sparse, f"values below {cfg.beta} set to 0")
            patches = adaptive_aggregate(patches, sparse)
            record(4, "aggregated_pre", patches, AVERAGED)
        if cfg.calibrated_attention:
            content = content_attention(similarity, cfg.content_gain)
            record(5, "content_attention", content, "softmax of the centred similarity, negatives masked")
        result = self.attend(cls, patches, content, 5, "main", record)  # stage 5
        if cfg.second_aggregation:  # stage 6
            shallow = patch_similarity(layers[cfg.post_adjust_idx][:, 1:])
            shallow = threshold_similarity(shallow, cfg.beta)
            note = f"cosine similarity at layer {cfg.post_adjust_idx}, values below {cfg.beta} set to 0"
            record(6, "similarity_shallow", shallow, note)
            result = adaptive_aggregate(result, shallow)
            record(6, "aggregated_post_main", result, AVERAGED)
        if cfg.fusion:  # stage 7
            fused = sum(layers[i] for i in range(cfg.multi_start_idx, cfg.multi_end_idx))
            note = f"sum of layers {cfg.multi_start_idx} to {cfg.multi_end_idx - 1}"
            record(7, "fused_layers", fused, note)
            aux = self.attend(fused[:, :1], fused[:, 1:], content, 7, "aux", record)
            if cfg.second_aggregation:
                aux = adaptive_aggregate(aux, shallow)
                record(7, "aggregated_post_aux", aux, AVERAGED)
            result = result + aux
            record(7, "fused", result, "main and auxiliary branch added")
        return self.project(result, grid, normalize, record)

    def encode(self, images: Tensor, record: Record) -> dict[int, Tensor]:
        """Stages 1 and 2: the outputs of those blocks before the last that are read again, each [B, L, C]."""
        cfg = self.config
        read = {self.model.depth - 2, cfg.pre_adjust_idx, cfg.post_adjust_idx}
        if cfg.fusion:
            read |= set(range(cfg.multi_start_idx, cfg.multi_end_idx))
        tokens = self.model.embed(images)  # [B, 3, H, W] -> [B, L, C]
        record(1, "embedded", tokens, "patches, class token, positions, layer norm (seed: [L, B, C])")
        layers = {}
        for i, block in enumerate(self.model.blocks[:-1]):
            tokens = block(tokens)
            if i in read:
                layers[i] = tokens
            record(
                2, f"block_{i}", tokens, f"output of block {i + 1} of {self.model.depth} (seed: [L, B, C])"
            )
        return layers

    def repair(
        self, patches: Tensor, middle: Tensor, grid: tuple[int, int], record: Record
    ) -> tuple[Tensor, Tensor]:
        """Stage 3: the patches of the last kept layer and of the middle one, anomalies replaced, each [B, N,
        C].

        On a grid with too few patches for `lof_neighbors`, k is one less than the patches; a single patch is
        kept.
        """
        cfg, k = self.config, min(self.config.lof_neighbors, patches.shape[1] - 1)
        if k < 1:
            return patches, middle
        scores = local_outlier_factor(patches, k, cfg.lof)
        record(3, "lof_scores", scores, f"local outlier factor, k = {k}")
        anomalous = flag_anomalies(scores, cfg.contamination)
        record(
            3, "anomalous", anomalous, f"scores above the {1 - cfg.contamination:.0%} quantile of the image"
        )
        patches = repair_anomalies(patches, anomalous, grid, cfg.repair_from)
        record(3, "repaired_penultimate", patches, "anomalies replaced by the mean of their neighbours")
        middle = repair_anomalies(middle, anomalous, grid, cfg.repair_from)
        record(4, "repaired_mid", middle, f"layer {cfg.pre_adjust_idx}, repaired at the same places")
        return patches, middle

    def attend(
        self, cls: Tensor, patches: Tensor, content: Tensor | None, stage: int, branch: str, record: Record
    ) -> Tensor:
        """Stages 5 and 7: the last block's attention without residual and MLP, the class token added.

        cls [B, 1, C], patches [B, N, C], content [B, N, N] or None for values alone -> [B, N, C].
        """
        cfg, last = self.config, self.model.blocks[-1]
        qkv = self.model.qkv(last, patches)  # [3, B, heads, N, d]
        if content is None:
            tokens = qkv[2].transpose(1, 2).flatten(2)  # every patch attends to itself: its values, [B, N, C]
        else:
            tokens = mixed_attention(qkv, content, cfg.self_attention, cfg.mix)
        tokens = last.ls_1(last.attn.out_proj(tokens))
        record(stage, f"attention_{branch}", tokens, "the last block's attention, no residual, no MLP")
        if cfg.class_residual:
            tokens = tokens + cfg.res_cls * cls
            record(stage, f"residual_{branch}", tokens, f"plus {cfg.res_cls} of the class token")
        return tokens

    def project(self, tokens: Tensor, grid: tuple[int, int], normalize: bool, record: Record) -> Tensor:
        """Stage 8.1: patches into the space shared with text, [B, N, C] -> [B, rows, cols, D]."""
        features = self.model.project(tokens)
        record(8, "projected", features, "layer norm and projection, [B, N, C] -> [B, N, D]")
        if normalize:
            features = F.normalize(features, dim=-1)
            record(8, "features", features, "unit length")
        return features.unflatten(1, grid)

    @staticmethod
    def _logits(features: Tensor, text: Tensor) -> Tensor:
        if text.ndim != 2 or text.shape[1] != features.shape[-1]:
            raise ValueError(f"text must be [names, {features.shape[-1]}], got shape {tuple(text.shape)}")
        return features.to(text.dtype) @ text.T


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Stage 8.3: [B, rows, cols, C] -> [B, C, H, W], bilinear."""
    return F.interpolate(logits.permute(0, 3, 1, 2), size=tuple(size), mode="bilinear", align_corners=False)
