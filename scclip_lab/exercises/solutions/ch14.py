"""Solution of chapter 14."""

import torch
from torch import Tensor


def best_name(logits: Tensor, sizes: list[int]) -> Tensor:
    """The largest logit within each class, [..., names] -> [..., classes]."""
    return torch.stack([part.amax(-1) for part in logits.split(sizes, -1)], -1)


SOLUTIONS = {"14-4": best_name}
