"""SC-CLIP for large grids: its N x N matrices a few rows at a time, with less memory.

Nearly all that SC-CLIP does with such a matrix happens in each row by itself. So the rows are made
again from the tokens wherever they are read, some at a time. Only the mean of the similarities
(stage 5) needs all of them; of unit vectors u_i it is |sum_i u_i|^2 / N^2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from scclip_core.anomaly import check_points, factor_of_neighbours
from scclip_core.attention import QUERY_AND_KEY, attention_of_rows
from scclip_core.clip import FrozenCLIP, join_heads
from scclip_core.config import SCCLIPConfig, is_whole
from scclip_core.pipeline import SCCLIP
from scclip_core.precision import at_least_float32
from scclip_core.sharing import ResultCache, shared_results
from scclip_core.similarity import adaptive_aggregate, threshold_similarity, unit_tokens


class SCCLIPByRows(SCCLIP):
    """SC-CLIP with the same result up to rounding; no matrix [B, N, N] exists as a whole.

    Where the attention weights of a block are asked for, they do.

    Such matrices have no names here: `run_with_cache` lacks `stage4.similarity` and its like.

    Args:
        model, config: as for `SCCLIP`.
        rows_at_once: how many rows of a matrix exist together, >= 1.

    Raises what `SCCLIP` raises, and ValueError for other numbers of rows.
    """

    def __init__(
        self,
        model: FrozenCLIP | CLIP,
        config: SCCLIPConfig | None = None,
        rows_at_once: int = 512,
    ):
        if not is_whole(rows_at_once) or rows_at_once < 1:
            raise ValueError(f"rows_at_once must be a whole number >= 1, got {rows_at_once!r}")
        super().__init__(model, config)
        self.rows_at_once = rows_at_once

    def by_rows(self, count: int, compute: Callable[[slice], Tensor]) -> Tensor:
        """What `compute` gives for some rows, for all `count` of them, [..., rows, C] joined."""
        step = self.rows_at_once
        return torch.cat([compute(slice(i, i + step)) for i in range(0, count, step)], -2)

    def add_attention(self, i: int, tokens: Tensor) -> Tensor:
        """The first half of block `i`; no weights [L, L] are formed, unless they are asked for."""
        if self.attention_asked(f"blocks.{i}"):
            return super().add_attention(i, tokens)
        block = self.model.blocks[i]
        query, key, values = self.model.qkv(block, tokens)  # [B, heads, L, d] each
        return tokens + join_heads(block, F.scaled_dot_product_attention(query, key, values))

    def anomaly_scores(self, patches: Tensor, grid: tuple[int, int], k: int) -> Tensor:
        """Stage 3: the local outlier factor from some rows of distances at a time; [B, N]."""
        if self.config.detector != "lof":
            return super().anomaly_scores(patches, grid, k)
        points = check_points(at_least_float32(patches))
        points = points - points.mean(1, keepdim=True)
        power = 2 if self.config.lof == "published" else 1

        def nearest(rows: slice) -> Tensor:
            distances = torch.cdist(points[:, rows], points)  # [B, rows, N]
            distances.diagonal(rows.start, 1, 2).fill_(torch.inf)  # no neighbour of itself
            near, index = distances.topk(k, largest=False)
            return torch.stack([near.pow(power), index.to(near.dtype)])

        near, index = self.by_rows(points.shape[1], nearest)  # [B, N, k] each
        scores = factor_of_neighbours(near, index.long(), self.config.lof)
        return self.hook("stage3.lof_scores", scores)

    def middle_similarity(self, middle: Tensor) -> Tensor | None:
        """Stage 4: unit tokens u [B, N, C], of which S = u u^T is made by rows."""
        if not (self.config.first_aggregation or self.config.calibrated_attention):
            return None
        return unit_tokens(middle)

    def aggregate_by_middle(self, patches: Tensor, similarity: Tensor | None) -> Tensor:
        """Stage 4 as in `SCCLIP`, from the unit tokens of the middle layer."""
        if not self.config.first_aggregation or similarity is None:
            return patches
        return self.hook("stage4.aggregated", self.aggregate(patches, similarity))

    def aggregate(self, tokens: Tensor, unit: Tensor) -> Tensor:
        """F' = D^-1 S F with the thresholded S of unit tokens; [B, N, C] twice -> [B, N, C]."""

        def some(rows: slice) -> Tensor:
            similarity = unit[:, rows] @ unit.mT  # [B, rows, N]
            return adaptive_aggregate(tokens, threshold_similarity(similarity, self.config.beta))

        with shared_results(ResultCache(max_bytes=0)):  # rows are not to be kept
            return self.by_rows(tokens.shape[1], some)

    def content_weights(self, similarity: Tensor | None) -> Tensor | None:
        """Stage 5: the unit tokens of the middle layer again, or None where it is off."""
        return similarity if self.config.calibrated_attention else None

    def mixed_attention(self, qkv: Tensor, content: Tensor) -> Tensor:
        """Stage 5 as in `attention.mixed_attention`, the content attention made by rows.

        Takes qkv [3, B, heads, N, d] and unit tokens [B, N, C]; returns [B, N, heads * d].
        """
        query, key = (qkv[i] for i in QUERY_AND_KEY[self.config.self_attention])
        values = qkv[2].transpose(1, 2).flatten(2)  # [B, heads, N, d] -> [B, N, heads * d]
        count = content.shape[1]
        mean = content.sum(1).square().sum(-1)[:, None, None] / count**2  # [B, 1, 1]

        def some(rows: slice) -> Tensor:
            similarity = content[:, rows] @ content.mT  # [B, rows, N]
            weights = attention_of_rows(similarity, self.config.content_gain, mean, rows.start)
            return weights.to(values.dtype) @ values

        by_self = F.scaled_dot_product_attention(query, key, qkv[2]).transpose(1, 2).flatten(2)
        return torch.lerp(by_self, self.by_rows(count, some), self.config.mix)

    def mixed_weights(self, qkv: Tensor, content: Tensor) -> Tensor:
        """Stage 5: where weights are asked for, all of them, [B, heads, N, N], exist together.

        Takes qkv [3, B, heads, N, d] and unit tokens [B, N, C].
        """
        similarity = content @ content.mT  # [B, N, N]
        mean = similarity.mean((1, 2), keepdim=True)
        # Not by `content_attention`, whose results are shared and kept.
        weights = attention_of_rows(similarity, self.config.content_gain, mean)
        return super().mixed_weights(qkv, weights)

    def shallow_similarity(self, shallow: Tensor) -> Tensor | None:
        """Stage 6: unit tokens of the shallow layer, [B, N, C], or None where it is off."""
        return unit_tokens(shallow) if self.config.second_aggregation else None

    def aggregate_by_shallow(self, tokens: Tensor, shallow: Tensor | None, stage: str) -> Tensor:
        """Stages 6 and 7 as in `SCCLIP`, from the unit tokens of the shallow layer."""
        if shallow is None:
            return tokens
        return self.hook(f"{stage}.aggregated", self.aggregate(tokens, shallow))
