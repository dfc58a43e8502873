"""Tests of the exercise of chapter 14: the best of several names."""

import torch

from scclip_lab.exercises import Attempt, exercise


@exercise("14-4")
def best_of_the_names(attempt: Attempt) -> None:
    """The largest logit within each class: attempt([..., names], sizes) -> [..., classes]."""
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3], [-0.1, -0.4, -0.2, -0.3]])
    given = attempt(logits, [1, 2, 1])
    assert given.shape == (2, 3), (
        f"four names of three classes give [2, 3], got {list(given.shape)}"
    )
    assert torch.allclose(given[0], torch.tensor([0.1, 0.4, 0.3])), (
        "the second class has the names of numbers 1 and 2, and takes the larger logit, 0.4"
    )
    assert torch.allclose(given[1], torch.tensor([-0.1, -0.2, -0.3])), (
        "of negative logits the larger one is the one nearer to zero: no zero may be mixed in"
    )
    maps = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert attempt(maps, [4]).shape == (2, 5, 1), "any number of dimensions may come before names"
