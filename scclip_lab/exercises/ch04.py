"""Tests of the exercises of chapter 4: content attention, the entropy of rows, and the mix."""

import math

import torch

from scclip_core.attention import content_attention, mixed_attention
from scclip_core.similarity import patch_similarity
from scclip_lab.exercises import Attempt, exercise


@exercise("04-4")
def masked_content(attempt: Attempt) -> None:
    """softmax of gain (S - mean S), masked: attempt(similarity [N, N], gain) -> [N, N]."""
    tokens = torch.randn(1, 9, 5, generator=torch.Generator().manual_seed(0))
    similarity = patch_similarity(tokens)
    given, wanted = attempt(similarity[0], 3.0), content_attention(similarity, 3.0)[0]
    assert given.shape == (9, 9), f"the result must be [9, 9], got {list(given.shape)}"
    assert torch.allclose(given.sum(-1), torch.ones(9), atol=1e-5), (
        "every row must sum to 1: set entries to minus infinity before the softmax, not to 0 after"
    )
    below = similarity[0] < similarity.mean()
    assert not given[below].any(), (
        "a patch that is less similar than the mean must get no attention at all: its logit has to"
        " be minus infinity; a logit of 0 still gets a share"
    )
    assert torch.equal(given > 0, wanted > 0), (
        "too much is masked or too little: the mean is one number for the whole matrix, not one"
        " for each row"
    )
    assert torch.allclose(given, wanted, atol=1e-5), (
        "the right patches are kept, with other weights: are the logits gain times the difference?"
    )


@exercise("04-5")
def entropy_of_rows(attempt: Attempt) -> None:
    """- sum of p log p of every row in nats: attempt(weights [..., N]) -> [...]."""
    given = attempt(torch.full((2, 3, 4), 0.25))
    assert given.shape == (2, 3), f"each row becomes one number, [2, 3], got {list(given.shape)}"
    assert not (given < 0).any(), "an entropy is never negative: mind the sign"
    assert torch.allclose(given, torch.full((2, 3), math.log(4)), atol=1e-5), (
        f"an even row of four has the entropy log 4 = {math.log(4):.3f} in nats,"
        f" got {float(given[0, 0]):.3f}"
    )
    single = attempt(torch.eye(4))
    assert not single.isnan().any(), (
        "a row that is all on one patch gives NaN: 0 log 0 counts as 0, so zeros must be handled"
    )
    assert torch.allclose(single, torch.zeros(4), atol=1e-4), (
        "a row that is all on one patch has the entropy 0"
    )


@exercise("04-6")
def mixed_values(attempt: Attempt) -> None:
    """attempt(q, k, v [heads, N, d], content [N, N], mix) -> values read, [N, heads * d]."""
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(3, 1, 2, 6, 4, generator=generator)
    content = torch.rand(1, 6, 6, generator=generator).softmax(-1)
    q, k, v = qkv[:, 0]
    given = attempt(q, k, v, content[0], 0.3)
    assert given.shape == (6, 8), (
        f"two heads of four dimensions, side by side, give [6, 8] for six patches, got"
        f" {list(given.shape)}"
    )
    ones = attempt(q, k, torch.ones_like(v), content[0], 0.3)
    assert torch.allclose(ones, torch.ones(6, 8), atol=1e-5), (
        "where all values are 1 the result is 1: the weights of the two parts must sum to 1"
    )
    ends = {
        1.0: "at mix = 1 the content alone is left, the same weights for every head",
        0.0: "at mix = 0 softmax(q k^T / sqrt(d)) alone is left, with weights of its own for each"
        " head; and the heads must come side by side, patch by patch",
        0.3: "both ends are right, and between them the result is not: mix is the content's share",
    }
    for mix, told in ends.items():
        wanted = mixed_attention(qkv, content, "qk", mix)[0]
        assert torch.allclose(attempt(q, k, v, content[0], mix), wanted, atol=1e-5), told
