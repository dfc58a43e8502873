"""Tests of the exercises of chapter 0: attention of one head, and the contrastive loss."""

import math

import torch
import torch.nn.functional as F

from scclip_lab.exercises import Attempt, exercise


@exercise("00-4")
def attention_of_one_head(attempt: Attempt) -> None:
    """softmax(q k^T / sqrt(d)) v of one head: attempt(q, k, v), each [L, d] -> [L, d]."""
    q, k, v = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    given = attempt(q, k, v)
    wanted = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
    assert given.shape == wanted.shape, (
        f"the result must be [5, 8] for five tokens of eight dimensions, got {list(given.shape)}"
    )
    ones = attempt(q, k, torch.ones_like(v))
    assert torch.allclose(ones, torch.ones_like(ones), atol=1e-5), (
        "where all values are 1 the result is 1: the weights of every query must sum to 1"
        " (softmax over the keys, the last dimension)"
    )
    unscaled = (q @ k.T).softmax(-1) @ v
    assert not torch.allclose(given, unscaled, atol=1e-4), (
        "the products are not divided by sqrt(d), the root of the length of a query"
    )
    assert torch.allclose(given, wanted, atol=1e-5), (
        "shape and sums are right, the numbers are not: is it q with k, and then times v?"
    )


@exercise("00-5")
def contrastive_loss(attempt: Attempt) -> None:
    """CLIP's loss: attempt(pictures, captions, scale), unit vectors [B, D] each -> a number."""
    same = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    alike = torch.ones(6, 16) / 4
    chance = float(attempt(alike, alike, 10.0))
    assert math.isclose(chance, math.log(6), abs_tol=1e-4), (
        f"six pairs that cannot be told apart cost log 6 = {math.log(6):.3f}, got {chance:.3f}"
    )
    assert float(attempt(same, same, 100.0)) < 0.01, (
        "pictures that point exactly at their captions cost almost nothing at a scale of 100:"
        " the right caption of picture i is caption i, on the diagonal"
    )
    noise = torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    other = F.normalize(same + 0.2 * noise, dim=-1)
    rows, columns = (
        F.cross_entropy(5 * (a @ b.T), torch.arange(6)) for a, b in ((same, other), (other, same))
    )
    pair = float(attempt(same, other, 5.0)), float((rows + columns) / 2)
    assert math.isclose(*pair, abs_tol=1e-4), (
        f"the mean of both directions is {pair[1]:.4f} here, got {pair[0]:.4f}: cross entropy over"
        " captions for each picture, and over pictures for each caption"
    )
