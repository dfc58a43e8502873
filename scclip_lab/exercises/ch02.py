"""Tests of the exercises of chapter 2: density, the local outlier factor, and repair."""

import torch

from scclip_core.anomaly import local_outlier_factor, repair_anomalies
from scclip_lab.exercises import Attempt, exercise


@exercise("02-5")
def reachability_density(attempt: Attempt) -> None:
    """The local reachability density: attempt(points, k), [N, D] -> [N]."""
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double()
    given = attempt(line, 1)
    assert given.shape == (4,), f"one density for each of 4 points, got {list(given.shape)}"
    assert given.isfinite().all() and given[0] < 10, (
        "a point is no neighbour of itself: its distance 0 must not count"
    )
    # Nearest neighbours 1, 0, 1, 2 at distances 1, 1, 2, 4; their own k-distances are 1, 1, 1, 2.
    assert torch.allclose(given, torch.tensor([1, 1, 1 / 2, 1 / 4]).double()), (
        "points 0, 1, 3, 7 on a line with k = 1 have the densities 1, 1, 1/2, 1/4: one over the"
        f" mean reachability distance; got {given.tolist()}"
    )
    # With k = 2 the k-distances are 3, 2, 3, 6.
    assert torch.allclose(attempt(line, 2), 1 / torch.tensor([2.5, 3, 2.5, 5]).double()), (
        "with k = 2 the k-distances of the points 0, 1, 3, 7 are 3, 2, 3, 6, and the densities"
        " 1/2.5, 1/3, 1/2.5, 1/5: a reachability distance is the larger of the distance and the"
        " k-distance of the *neighbour*, not of the point itself"
    )


@exercise("02-6")
def outlier_factor(attempt: Attempt) -> None:
    """The local outlier factor: attempt(points, k), [N, D] -> [N]."""
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    points[7] = 9
    given = attempt(points, 5)
    assert given.shape == (40,), f"one factor for each of 40 points, got {list(given.shape)}"
    assert given.argmax() == 7, (
        "the point far from all others must have the largest factor: the neighbours' density over"
        " its own, not the other way round"
    )
    wanted = local_outlier_factor(points[None], 5)[0]
    assert torch.allclose(given, wanted, atol=1e-6), (
        "the far point is found, the numbers are not right: the *mean* density of the k neighbours"
        " divided by the point's own density"
    )
    assert torch.allclose(attempt(10 * points, 5), wanted, atol=1e-6), (
        "ten times as large a picture of the points has the same factors: nothing absolute is left"
    )


@exercise("02-7")
def repair_from_clean(attempt: Attempt) -> None:
    """Repair by neighbours that are not flagged: attempt([N, C], bool [N], rows, cols) -> [N, C].

    A flagged token without such a neighbour stays as it is.
    """
    tokens = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    before, flagged = tokens.clone(), torch.zeros(20, dtype=torch.bool)
    assert torch.equal(attempt(tokens, flagged, 4, 5), before), (
        "where nothing is flagged, nothing changes"
    )
    flagged[[0, 7, 8]] = True
    given = attempt(tokens, flagged, 4, 5)
    assert torch.equal(tokens, before), "the tokens given must not be changed: work on a clone"
    assert torch.equal(given[~flagged], before[~flagged]), "tokens without a flag stay as they are"
    assert torch.allclose(given[0], before[[1, 5, 6]].mean(0)), (
        "the first token lies in a corner and has the neighbours 1, 5 and 6 of a grid with five"
        " columns, and no others"
    )
    wanted = repair_anomalies(tokens[None], flagged[None], (4, 5), "clean")[0]
    assert torch.allclose(given, wanted, atol=1e-6), (
        "tokens 7 and 8 are neighbours and both flagged: neither may count for the other, however"
        " the loop is ordered"
    )
    everything = torch.ones(20, dtype=torch.bool)
    assert torch.equal(attempt(tokens, everything, 4, 5), before), (
        "a token whose neighbours are all flagged stays as it is (the mean of nothing is NaN)"
    )
