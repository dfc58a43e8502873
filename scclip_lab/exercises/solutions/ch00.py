"""Solutions of chapter 0."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, each [L, d] -> [L, d]."""
    weights = (q @ k.T / q.shape[-1] ** 0.5).softmax(-1)  # [L, L], every row sums to 1
    return weights @ v


def contrastive(pictures: Tensor, captions: Tensor, scale: float) -> Tensor:
    """Cross entropy of rows and of columns, the right pairs on the diagonal; unit [B, D] twice."""
    logits = scale * pictures @ captions.T  # [B, B]
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


SOLUTIONS = {"00-4": attend, "00-5": contrastive}
