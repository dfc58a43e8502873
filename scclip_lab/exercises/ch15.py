"""Tests of the exercise of chapter 15: one head of a pattern of attention made even."""

import torch

from scclip_lab.exercises import Attempt, exercise


@exercise("15-4")
def one_head_made_even(attempt: Attempt) -> None:
    """attempt(pattern [B, heads, L, L], head) -> the same with that head even, nothing in place."""
    pattern = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    before = pattern.clone()
    given = attempt(pattern, 1)
    assert torch.equal(pattern, before), (
        "a hook must not change the tensor that it is given: clone it first"
    )
    assert given.shape == pattern.shape, f"the shape must stay, got {list(given.shape)}"
    assert torch.allclose(given[:, 1], torch.full((2, 5, 5), 1 / 5)), (
        "an even head gives each of the five tokens one fifth"
    )
    assert torch.equal(given[:, [0, 2]], pattern[:, [0, 2]]), "the other heads must stay"
