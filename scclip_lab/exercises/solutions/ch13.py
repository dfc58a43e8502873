"""Solutions of chapter 13."""

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_at(index: int, depth: int) -> int:
    """The layer of the same relative depth as `index` in 12 blocks, halves up, before the last."""
    return min((2 * index * depth + 12) // 24, depth - 2)


def aggregate_by_rows(tokens: Tensor, guide: Tensor, beta: float, rows: int) -> Tensor:
    """Stage 4 for one image, some rows at a time, [N, C] -> [N, C]."""
    unit = F.normalize(guide, dim=-1)
    parts = []
    for some in unit.split(rows):
        weights = some @ unit.T  # [rows, N]
        weights = torch.where(weights >= beta, weights, 0)
        parts.append(weights @ tokens / (weights.sum(1, keepdim=True) + 1e-6))
    return torch.cat(parts)


SOLUTIONS = {"13-4": layer_at, "13-5": aggregate_by_rows}
