"""Tests of the exercises of chapter 7: multiply-adds of a block, ratios within rounds."""

import math

import torch

from scclip_lab.exercises import Attempt, exercise


@exercise("07-4")
def operations_of_a_block(attempt: Attempt) -> None:
    """attempt(n, width, mlp_ratio) -> multiply-adds of a transformer block."""
    without = attempt(1, 10, 0)
    assert without == 4 * 100 + 2 * 10, (
        "one token of width 10 without an MLP: 300 for query, key and value, 100 for the output"
        f" projection, 10 for q k and 10 for the weights times v, together 420; got {without}"
    )
    with_mlp = attempt(1, 10, 4) - without
    assert with_mlp == 800, (
        "an MLP of ratio 4 goes from 10 to 40 and back, 800 for one token of width 10; got"
        f" {with_mlp} more than without it"
    )
    doubled = attempt(20, 10, 0) - 2 * attempt(10, 10, 0)
    assert doubled == 2 * 10 * (20**2 - 2 * 10**2), (
        "from 10 to 20 tokens the matrices double, and the two products of tokens with tokens"
        " become four times as large"
    )
    own, wanted = attempt(197, 768, 4), 12 * 197 * 768**2 + 2 * 197**2 * 768
    assert own == wanted, f"a block of ViT-B/16 has {wanted:,} multiply-adds, got {own:,}"


@exercise("07-5")
def quartiles_of_ratios(attempt: Attempt) -> None:
    """attempt(base [R], other [R]) -> (low, median, high) of the ratios of a round."""
    generator = torch.Generator().manual_seed(0)
    drift = torch.linspace(1, 3, 21)
    given = tuple(float(value) for value in attempt(drift, 1.2 * drift))
    assert len(given) == 3, f"three numbers are asked for, got {len(given)}"
    assert all(math.isclose(value, 1.2, rel_tol=1e-4) for value in given), (
        "a method that takes 1.2 times as long in every round has ratios of 1.2 and no spread,"
        f" however much the machine drifts; got {given}"
    )
    base, other = 1 + torch.rand(2, 21, generator=generator)
    wanted = torch.quantile(other / base, torch.tensor([0.25, 0.5, 0.75]))
    given = tuple(float(value) for value in attempt(base, other))
    assert given[0] <= given[1] <= given[2], "the lower quartile comes first, the upper one last"
    separate = float(other.median() / base.median())
    assert math.isclose(given[1], float(wanted[1]), rel_tol=1e-4), (
        f"the median of the ratios is {float(wanted[1]):.4f} here, got {given[1]:.4f}; the ratio of"
        f" the medians would be {separate:.4f}: divide within each round first"
    )
    pairs = zip(given, wanted.tolist(), strict=True)
    assert all(math.isclose(own, right, rel_tol=1e-4) for own, right in pairs), (
        "the quartiles are the 0.25 and the 0.75 quantile of the ratios, not their extremes"
    )
