"""Solutions of chapter 7."""

import torch
from torch import Tensor


def block_operations(n: int, width: int, mlp_ratio: int) -> int:
    """Multiply-adds of a block: (4 + 2 ratio) n C^2 for its matrices, 2 n^2 C for attention."""
    matrices = (3 + 1 + 2 * mlp_ratio) * n * width**2
    return matrices + 2 * n**2 * width


def ratio_within_rounds(base: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Quartiles and median of other / base, both seconds of the same rounds, [R]."""
    low, middle, high = torch.quantile(other / base, torch.tensor([0.25, 0.5, 0.75])).tolist()
    return low, middle, high


SOLUTIONS = {"07-4": block_operations, "07-5": ratio_within_rounds}
