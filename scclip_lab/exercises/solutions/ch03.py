"""Solutions of chapter 3."""

import torch.nn.functional as F
from torch import Tensor


def thresholded(tokens: Tensor, beta: float) -> Tensor:
    """Cosines of all pairs, those below beta set to 0, [N, C] -> [N, N]."""
    unit = F.normalize(tokens, dim=-1)
    cosines = unit @ unit.T
    return cosines.masked_fill(cosines < beta, 0)


def aggregate(tokens: Tensor, similarity: Tensor) -> Tensor:
    """D^-1 S F, tokens [N, C] and similarity [N, N] -> [N, C]."""
    return (similarity / similarity.sum(-1, keepdim=True)) @ tokens


def steps_until_alike(tokens: Tensor, similarity: Tensor, limit: float) -> int:
    """The number of aggregations until the smallest cosine of two tokens is at least `limit`."""
    steps = 0
    while thresholded(tokens, -1).min() < limit:
        tokens, steps = aggregate(tokens, similarity), steps + 1
    return steps


SOLUTIONS = {"03-4": thresholded, "03-5": aggregate, "03-6": steps_until_alike}
