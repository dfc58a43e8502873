"""Tests of the exercises of chapter 11: a detector on the grid, and a rule without a budget."""

import torch

from scclip_core.detectors import neighbour_dissimilarity
from scclip_lab.exercises import Attempt, exercise
from scclip_lab.studies.ch11_flags import above_deviation


@exercise("11-4")
def unlike_its_neighbours(attempt: Attempt) -> None:
    """attempt(tokens [N, C], (rows, cols)) -> [N], minus the mean cosine with 8 neighbours."""
    tokens = torch.ones(12, 3)
    given = attempt(tokens, (3, 4))
    assert tuple(given.shape) == (12,), f"one score for every patch, got {tuple(given.shape)}"
    assert torch.allclose(given, -torch.ones(12)), (
        "among equal tokens every cosine is 1, so every score is -1, at the border too: divide by"
        " the number of neighbours that a patch really has"
    )
    longer = tokens.clone()
    longer[5] *= 7
    assert torch.allclose(attempt(longer, (3, 4)), -torch.ones(12)), (
        "a cosine does not depend on lengths: bring the tokens to unit length first"
    )
    tokens = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    before = tokens.clone()
    given, wanted = attempt(tokens, (3, 4)), neighbour_dissimilarity(tokens[None], (3, 4))[0]
    assert torch.equal(tokens, before), "the tokens that are given must stay as they are"
    assert not torch.allclose(given, -wanted, atol=1e-5), (
        "the sign is the other way round: unlike tokens need the larger scores"
    )
    assert torch.allclose(given, wanted, atol=1e-5), (
        "patch i is at row i // cols and column i % cols; its neighbours are at most one row and"
        " one column away, and it is none of them itself"
    )


@exercise("11-5")
def far_above_the_median(attempt: Attempt) -> None:
    """attempt(scores [B, N], factor) -> bool [B, N], by the median absolute deviation."""
    scores = torch.tensor([[1.0, 1.1, 0.9, 1.2, 0.8, 5.0, -3.0]])
    given = attempt(scores, 3.5)
    assert given.dtype == torch.bool and given.shape == scores.shape, (
        f"a bool for every score is needed, got {given.dtype} {list(given.shape)}"
    )
    assert not given[0, 6], "only scores above the median are outliers here, not those below it"
    assert given[0, 5], "5.0 is far above the median, 1.0, of which half the scores are within 0.2"
    both = torch.cat([scores, 100 * scores])
    assert torch.equal(attempt(both, 3.5), given.expand(2, -1)), (
        "every image has a median and a deviation of its own: reduce over dimension 1 alone"
    )
    edge = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0]])
    assert not attempt(edge, 2.0).any(), (
        "the limit is the median plus factor * 1.4826 * deviation: 3 + 2 * 1.4826 * 2 = 8.93"
    )
    values = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attempt(values, 1.5), above_deviation(values, 1.5)), (
        "the deviation is the median of |s - median(s)|, not a mean and not a standard deviation"
    )
