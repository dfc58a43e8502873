"""Tests of the exercises of chapter 9: NACLIP's Gaussian window, SCLIP's attention."""

import math

import torch

from scclip_core.attention import scaled_products
from scclip_core.last_block import gaussian_window
from scclip_lab.exercises import Attempt, exercise


@exercise("09-4")
def window_of_a_grid(attempt: Attempt) -> None:
    """attempt(rows, cols, sigma) -> exp(-distance^2 / (2 sigma^2)), [rows cols, rows cols]."""
    given = attempt(2, 3, 1.0)
    assert tuple(given.shape) == (6, 6), (
        f"a grid of 2 x 3 has six patches and 6 x 6 pairs, got {list(given.shape)}"
    )
    assert torch.allclose(given.diagonal(), torch.ones(6)), (
        "a patch has distance 0 to itself, so the diagonal is exp(0) = 1"
    )
    beside, below = float(given[0, 1]), float(given[0, 3])
    wanted = math.exp(-0.5)
    assert math.isclose(beside, wanted, rel_tol=1e-4), (
        f"two neighbours in a row have distance 1: exp(-1 / 2) = {wanted:.4f} at sigma = 1, got"
        f" {beside:.4f}"
    )
    assert math.isclose(below, wanted, rel_tol=1e-4), (
        "patches are counted row by row: with three columns, patch 3 lies below patch 0, at"
        f" distance 1, and has {wanted:.4f}, got {below:.4f}"
    )
    assert math.isclose(float(given[0, 4]), math.exp(-1), rel_tol=1e-4), (
        "patch 4 lies diagonally below patch 0, at a squared distance of 1 + 1"
    )
    assert torch.allclose(attempt(4, 5, 2.5), gaussian_window((4, 5), 2.5), atol=1e-5), (
        "right at sigma = 1 and wrong at 2.5: the squared distance is divided by 2 sigma squared"
    )


@exercise("09-5")
def attention_among_patches(attempt: Attempt) -> None:
    """attempt(q, k, v), each [heads, 1 + N, d], the class token first -> [N, heads d]."""
    q, k, v = torch.randn(3, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    given = attempt(q, k, v)
    assert tuple(given.shape) == (5, 8), (
        "two heads of four dimensions and five patches behind a class token give [5, 8], got"
        f" {list(given.shape)}"
    )
    ones = attempt(q, k, torch.ones_like(v))
    assert torch.allclose(ones, torch.ones_like(ones), atol=1e-5), (
        "where all values are 1 the result is 1: take the mean of both patterns, and leave the"
        " class token out before the softmax, so that the rows sum to 1"
    )
    changed = [t.index_fill(1, torch.tensor([0]), 9.0) for t in (q, k, v)]
    assert torch.allclose(attempt(*changed), given, atol=1e-5), (
        "another class token must change nothing: the patches read from patches alone"
    )
    assert torch.allclose(attempt(k, q, v), given, atol=1e-5), (
        "exchanging q and k must change nothing, since q meets q and k meets k"
    )
    queries, keys, values = q[:, 1:], k[:, 1:], v[:, 1:]
    patterns = [scaled_products(t, t).softmax(-1) for t in (queries, keys)]
    read = sum(patterns) / 2 @ values  # [heads, N, d]
    mixed = read.flatten(1).view(given.shape)
    assert not torch.allclose(given, mixed, atol=1e-5), (
        "the heads are joined the wrong way: a patch's row holds its d numbers of head 0, then"
        " those of head 1; transpose before you flatten"
    )
    assert torch.allclose(given, read.transpose(0, 1).flatten(1), atol=1e-5), (
        "shape and sums are right, the numbers are not: is each product divided by sqrt(d)?"
    )
