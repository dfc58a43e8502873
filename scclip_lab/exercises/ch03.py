"""Tests of the exercises of chapter 3: the threshold, one aggregation, and over-smoothing."""

import torch
import torch.nn.functional as F

from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_lab.exercises import Attempt, exercise


@exercise("03-4")
def thresholded_cosines(attempt: Attempt) -> None:
    """Cosines of all pairs, small ones set to 0: attempt(tokens [N, C], beta) -> [N, N]."""
    tokens = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    given, wanted = attempt(tokens, 0.4), patch_similarity(tokens[None])[0]
    assert given.shape == (7, 7), f"seven tokens have 7 x 7 cosines, got {list(given.shape)}"
    assert torch.allclose(given.diagonal(), torch.ones(7), atol=1e-5), (
        "the cosine of a token with itself is 1: divide every token by its length first"
    )
    assert (given >= 0).all(), "with beta = 0.4 no negative number may be left"
    kept = torch.where(wanted >= 0.4, wanted, torch.zeros(()))
    assert torch.allclose(given, kept, atol=1e-5), (
        "what is at least beta stays as it is, and everything else becomes 0: nothing is shifted or"
        " rescaled"
    )
    assert torch.allclose(attempt(tokens, -1.0), wanted, atol=1e-5), (
        "beta = -1 keeps every cosine, negative ones too: compare with beta, not with 0"
    )


@exercise("03-5")
def one_aggregation(attempt: Attempt) -> None:
    """D^-1 S F: attempt(tokens [N, C], similarity [N, N]) -> [N, C]."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(6, 3, generator=generator)
    graph = threshold_similarity(torch.rand(1, 6, 6, generator=generator), 0.4)[0]
    graph.fill_diagonal_(1)
    before = tokens.clone(), graph.clone()
    given = attempt(tokens, graph)
    assert torch.equal(tokens, before[0]) and torch.equal(graph, before[1]), (
        "the tokens and the matrix that are given must not be changed"
    )
    assert given.shape == tokens.shape, f"six tokens stay six tokens, got {list(given.shape)}"
    ones = attempt(torch.ones(6, 3), graph)
    assert torch.allclose(ones, torch.ones(6, 3), atol=1e-3), (
        "the mean of equal tokens is that token: the weights of every row must sum to 1"
        " (divide by the sum over the last dimension, and keep that dimension)"
    )
    wanted = adaptive_aggregate(tokens[None], graph[None])[0]
    assert torch.allclose(given, wanted, atol=1e-3), (
        "sums are right, the numbers are not: row i of the matrix weighs the tokens of patch i"
    )


@exercise("03-6")
def steps_until_alike(attempt: Attempt) -> None:
    """attempt(tokens [N, C], similarity [N, N], limit) -> number of steps until all are alike."""
    generator = torch.Generator().manual_seed(2)
    tokens = F.normalize(torch.rand(8, 5, generator=generator), dim=-1)
    full = torch.ones(8, 8)
    assert attempt(torch.ones(8, 5), full, 0.99) == 0, (
        "tokens that are equal from the start need no step: look before you average"
    )
    assert attempt(tokens, full, 0.999) == 1, (
        "where every patch is connected with every other alike, one step makes all tokens equal"
    )
    chain = torch.eye(8) + torch.eye(8).roll(1, 0) + torch.eye(8).roll(1, 1)
    wanted, averaged = 0, tokens[None]
    while patch_similarity(averaged).min() < 0.99:
        averaged, wanted = adaptive_aggregate(averaged, chain[None]), wanted + 1
    given = attempt(tokens, chain, 0.99)
    assert given == wanted, (
        f"in a ring of eight patches it takes {wanted} steps until the smallest cosine of two"
        f" tokens is 0.99, got {given}: feed every result into the next step, and look at the"
        " smallest cosine, not at the mean"
    )
