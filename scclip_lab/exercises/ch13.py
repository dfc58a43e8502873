"""Tests of the exercises of chapter 13: the rule of relative depth, and a mean over rows."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scclip_core.config import LAYERS, layers_at
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_lab.exercises import Attempt, exercise


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of entries of any tensor that is made within the block."""

    entries = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(made) if isinstance(one, Tensor)]
        self.entries = max([self.entries, *sizes])
        return made


@exercise("13-4")
def layer_at_relative_depth(attempt: Attempt) -> None:
    """attempt(index, depth) -> the layer that a model of `depth` blocks has for one of 12."""
    given = attempt(8, 24)
    assert isinstance(given, int), f"a layer is a whole number, got {type(given).__name__}"
    assert given == 16, f"8 of 12 blocks are two thirds: layer 16 of 24, got {given}"
    assert attempt(3, 8) == 2, "3 * 8 / 12 = 2 exactly"
    assert attempt(8, 32) == 21, "8 * 32 / 12 = 21.33 is rounded to 21"
    assert attempt(8, 5) == 3, "8 * 5 / 12 = 3.33 is rounded to 3"
    assert attempt(3, 10) == 3, (
        "3 * 10 / 12 = 2.5: halves are rounded up, and Python's `round` takes the even neighbour"
    )
    assert attempt(8, 4) == 2, (
        "8 * 4 / 12 = 2.67 would be layer 3, the last block, which is rearranged: at most depth - 2"
    )
    for depth in (4, 6, 8, 18, 32, 40, 48):
        for name in ("pre_adjust_idx", "post_adjust_idx"):
            wanted = layers_at(depth)[name]
            assert attempt(LAYERS[12][name], depth) == wanted, f"layer {wanted} for {depth} blocks"


@exercise("13-5")
def aggregate_by_rows(attempt: Attempt) -> None:
    """attempt(tokens [N, C], guide [N, C], beta, rows) -> [N, C], stage 4 without an N x N."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(90, 4, generator=generator)
    guide = torch.randn(90, 3, generator=generator)
    similarity = threshold_similarity(patch_similarity(guide[None]), 0.4)
    wanted = adaptive_aggregate(tokens[None], similarity)[0]
    with LargestTensor() as largest:
        given = attempt(tokens, guide, 0.4, 20)
    assert tuple(given.shape) == (90, 4), f"a token for every patch, got {tuple(given.shape)}"
    ones = torch.ones(90, 1)
    assert torch.allclose(attempt(ones, guide, 0.4, 20), ones, atol=1e-4), (
        "the weights of a row must sum to about 1: divide by the sum of its kept similarities"
    )
    assert torch.allclose(given, wanted, atol=1e-4), (
        "row i has the mean of all tokens, each with the weight cos(guide_i, guide_j) where that is"
        " at least beta: every group of rows needs all N columns"
    )
    assert largest.entries <= 90 * 20, (
        f"no tensor may hold more than rows * N = 1800 numbers, one held {largest.entries}"
    )
    assert torch.allclose(attempt(tokens, guide, 0.4, 500), wanted, atol=1e-4), (
        "more rows than there are patches must give the same result in one group"
    )
