"""Wrong answers to the exercises of chapter 7 are told what is wrong."""

import pytest
import torch

from scclip_lab.exercises import check


def of_sorted(base, other):
    """The quartiles of each program alone, divided afterwards."""
    levels = torch.tensor([0.25, 0.5, 0.75])
    return torch.quantile(other, levels) / torch.quantile(base, levels)


def extremes(base, other):
    ratios = other / base
    return ratios.min(), ratios.median(), ratios.max()


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("07-4", lambda n, c, r: 3 * n * c**2 + 2 * n**2 * c, "output projection"),
        ("07-4", lambda n, c, r: 4 * n * c**2 + n**2 * c, "10 for the weights times v"),
        ("07-4", lambda n, c, r: (4 + r) * n * c**2 + 2 * n**2 * c, "from 10 to 40 and back"),
        ("07-4", lambda n, c, r: n * ((4 + 2 * r) * c**2 + 2 * c), "four times as large"),
        ("07-5", lambda base, other: (1.2, 1.2), "three numbers are asked for"),
        ("07-5", lambda base, other: [base.mean() / other.mean()] * 3, "ratios of 1.2"),
        ("07-5", of_sorted, "divide within each round first"),
        ("07-5", extremes, "not their extremes"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
