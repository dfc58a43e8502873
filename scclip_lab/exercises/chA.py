"""Visible checks of the assignment: small cases that can be worked out with pencil and paper.

The grade comes from other cases (`scclip_lab.teaching.hidden`).
"""

import math

import torch

from scclip_lab.exercises import Attempt, exercise


@exercise("A-1")
def cosine_of_three(attempt: Attempt) -> None:
    """attempt(tokens [B, N, C]) -> [B, N, N], of vectors at 0, 45 and 90 degrees."""
    given = attempt(torch.tensor([[[2.0, 0.0], [3.0, 3.0], [0.0, 0.5]]]))
    assert given.shape == (1, 3, 3), f"three tokens give [1, 3, 3], got {list(given.shape)}"
    assert torch.allclose(given.diagonal(dim1=1, dim2=2), torch.ones(1, 3)), (
        "the cosine of a token with itself is 1: divide by the lengths"
    )
    half = 2**-0.5
    wanted = torch.tensor([[[1, half, 0], [half, 1, half], [0, half, 1]]])
    assert torch.allclose(given, wanted, atol=1e-6), f"wanted {wanted.tolist()}"


@exercise("A-2")
def mean_of_similar_ones(attempt: Attempt) -> None:
    """attempt(tokens [B, N, C], similarity [B, N, N], beta) -> [B, N, C]."""
    tokens = torch.tensor([[[1.0], [5.0], [100.0]]])
    similarity = torch.tensor([[[1.0, 0.4, 0.3], [0.4, 1.0, 0.0], [0.3, 0.0, 1.0]]])
    given = attempt(tokens, similarity, 0.4)
    assert given.shape == tokens.shape, f"the shape of the tokens stays, got {list(given.shape)}"
    assert not torch.allclose(given[0, 0], torch.tensor(1.0)), (
        "0.4 is not below beta = 0.4, so the second token counts for the first"
    )
    wanted = torch.tensor([[[3 / 1.4], [5.4 / 1.4], [100.0]]])
    assert torch.allclose(given, wanted, rtol=1e-4), (
        f"wanted {wanted.flatten().tolist()}, got {given.flatten().tolist()}: similarities below"
        " beta count nothing, and the others are divided by their sum"
    )


@exercise("A-3")
def outlier_of_a_line(attempt: Attempt) -> None:
    """attempt(points [N, D], k) -> [N], for points at 0, 1, 2 and 10 on a line."""
    given = attempt(torch.tensor([[0.0], [1.0], [2.0], [10.0]]), 1)
    assert given.shape == (4,), f"one score for each point, [4], got {list(given.shape)}"
    assert int(given.argmax()) == 3, "the point at 10 is the outlier: its score is the largest"
    assert torch.allclose(given[:3], torch.ones(3), atol=1e-4), (
        "with k = 1 the three points at distance 1 have equal densities, and scores of 1"
    )
    assert math.isclose(float(given[3]), 8, rel_tol=1e-4), (
        f"the point at 10 is 8 from its neighbour, whose reach is 1: 8, got {float(given[3]):.3f}"
    )


@exercise("A-4")
def highest_of_five(attempt: Attempt) -> None:
    """attempt(scores [B, N], contamination) -> bool [B, N]."""
    given = attempt(torch.tensor([[5.0, 1.0, 2.0, 3.0, 4.0]]), 0.2)
    assert given.dtype == torch.bool, f"flags are bool, got {given.dtype}"
    assert given.tolist() == [[True, False, False, False, False]], (
        f"a fifth of five scores is the highest one, got {given.tolist()}"
    )
    equal = attempt(torch.ones(1, 5), 0.2)
    assert not equal.any(), "equal scores: none lies strictly above the quantile"


@exercise("A-5")
def middle_and_corner(attempt: Attempt) -> None:
    """attempt(tokens [B, N, C], flags [B, N], rows, cols) -> [B, N, C], on a 2 x 3 grid."""
    tokens = torch.arange(6.0).view(1, 6, 1)
    before, flags = tokens.clone(), torch.tensor([[True, False, False, False, True, False]])
    given = attempt(tokens, flags, 2, 3)
    assert torch.equal(tokens, before), "the tokens that are given must not change: clone them"
    assert given.shape == tokens.shape, f"the shape of the tokens stays, got {list(given.shape)}"
    left = given[0, [1, 2, 3, 5], 0].tolist()
    assert left == [1, 2, 3, 5], f"tokens that are not flagged stay, got {left}"
    corner, middle = float(given[0, 0, 0]), float(given[0, 4, 0])
    assert math.isclose(corner, 8 / 3, rel_tol=1e-5), (
        f"the corner has three neighbours, 1, 3 and 4, their mean is 2.667, got {corner:.3f}"
    )
    assert math.isclose(middle, 11 / 5, rel_tol=1e-5), (
        f"token 4 has five neighbours, 0, 1, 2, 3 and 5, of the tokens as they were given: their"
        f" mean is 2.2, got {middle:.3f}"
    )


@exercise("A-6")
def masked_before(attempt: Attempt) -> None:
    """attempt(similarity [B, N, N], gain) -> [B, N, N], rows that sum to 1."""
    given = attempt(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), 3.0)
    assert given.shape == (1, 2, 2), f"the shape stays, got {list(given.shape)}"
    assert torch.allclose(given.sum(-1), torch.ones(1, 2)), "every row must sum to 1"
    assert torch.allclose(given[0], torch.eye(2)), (
        "the mean is 0.5, so the zeros have the logit -1.5: negative logits become -inf before"
        " the softmax, and get no weight"
    )
    given = attempt(torch.tensor([[[1.0, 0.8], [0.2, 1.0]]]), 2.0)
    wanted = math.exp(0.5) / (math.exp(0.5) + math.exp(0.1))
    assert math.isclose(float(given[0, 0, 0]), wanted, rel_tol=1e-5), (
        f"mean 0.75, logits 0.5 and 0.1, weight {wanted:.4f}; got {float(given[0, 0, 0]):.4f}"
    )


@exercise("A-7")
def half_and_half(attempt: Attempt) -> None:
    """attempt(query, key, value [B, heads, N, d], content [B, N, N], mix) -> [B, heads, N, d]."""
    zero, value = torch.zeros(1, 1, 2, 4), torch.tensor([[[[0.0], [8.0]]]]).expand(1, 1, 2, 4)
    given = attempt(zero, zero, value, torch.eye(2)[None], 0.5)
    assert given.shape == (1, 1, 2, 4), f"wanted [1, 1, 2, 4], got {list(given.shape)}"
    wanted = torch.tensor([2.0, 6.0])
    assert torch.allclose(given[0, 0, :, 0], wanted), (
        "queries of zero attend evenly and read 4; content reads 0 and 8; half and half is 2 and"
        f" 6, got {given[0, 0, :, 0].tolist()}"
    )
    query = torch.tensor([[[[2.0] * 4, [0.0] * 4]]])
    given = float(attempt(query, query, value, torch.eye(2)[None], 0.0)[0, 0, 0, 0])
    wanted_first = 8 / (1 + math.exp(8))
    assert math.isclose(given, wanted_first, rel_tol=1e-3), (
        f"a product of 16, divided by sqrt(4), is a logit of 8: {wanted_first:.4f}, got {given:.4f}"
    )


@exercise("A-8")
def iou_of_two_rows(attempt: Attempt) -> None:
    """attempt(prediction [H, W], truth [H, W], classes) -> a number."""
    truth = torch.tensor([[0, 0, 1, 1], [0, 0, 255, 1]])
    prediction = torch.tensor([[0, 0, 0, 1], [0, 3, 1, 1]])
    given = float(attempt(prediction, truth, 5))
    scores = (3 / 5, 2 / 3)
    wanted = sum(scores) / 2
    assert not math.isclose(given, sum(scores) / 3, rel_tol=1e-5), (
        "class 3 is predicted and never true: it is left out of the mean, and does not count as 0"
    )
    assert math.isclose(given, wanted, rel_tol=1e-5), (
        "class 0 has 3 of 5, class 1 has 2 of 3, the others are true nowhere and left out, and the"
        f" pixel whose truth is 255 counts nowhere: {wanted:.4f}, got {given:.4f}"
    )
