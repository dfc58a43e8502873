"""Solution of chapter 15."""

from torch import Tensor


def flatten_head(pattern: Tensor, head: int) -> Tensor:
    """The pattern [B, heads, L, L] with one head even."""
    changed = pattern.clone()
    changed[:, head] = 1 / pattern.shape[-1]
    return changed


SOLUTIONS = {"15-4": flatten_head}
