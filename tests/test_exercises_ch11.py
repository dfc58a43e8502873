"""Wrong answers to the exercises of chapter 11 are told what is wrong."""

import pytest
import torch
import torch.nn.functional as F

from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch11 import flag_by_deviation, unlike_neighbours


def without_border(tokens, grid):
    unit = F.normalize(tokens, dim=-1).unflatten(0, grid)
    padded = F.pad(unit, (0, 0, 1, 1, 1, 1))
    rows, cols = grid
    total = sum(padded[r : r + rows, c : c + cols] for r in range(3) for c in range(3)) - unit
    return -((unit * total).sum(-1) / 8).flatten()


def by_products(tokens, grid):
    return unlike_neighbours(tokens, grid) * tokens.norm(dim=-1) / 3**0.5


def by_standard_deviation(scores, factor):
    middle = scores.median(1, keepdim=True).values
    return scores - middle > factor * scores.std(1, keepdim=True)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("11-4", lambda tokens, grid: unlike_neighbours(tokens, grid)[None], "one score for every"),
        ("11-4", without_border, "neighbours that a patch really has"),
        ("11-4", by_products, "unit length first"),
        (
            "11-4",
            lambda tokens, grid: -2 - unlike_neighbours(tokens, grid),
            "patch i is at row i // cols",
        ),
        (
            "11-4",
            lambda tokens, grid: unlike_neighbours(tokens, (grid[1], grid[0])),
            "patch i is at row i // cols",
        ),
        ("11-5", lambda scores, factor: flag_by_deviation(scores, factor).float(), "a bool for"),
        (
            "11-5",
            lambda scores, factor: flag_by_deviation(scores, factor) | (scores < -1),
            "not those below it",
        ),
        (
            "11-5",
            lambda scores, factor: flag_by_deviation(scores.view(1, -1), factor).view(scores.shape),
            "a median and a deviation of its own",
        ),
        (
            "11-5",
            lambda scores, factor: flag_by_deviation(scores, factor / 1.4826),
            "factor . 1.4826",
        ),
        ("11-5", by_standard_deviation, "is far above the median|not a standard deviation"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)


def test_a_sign_that_is_the_other_way_round_is_told():
    def turned(tokens, grid):
        scores = unlike_neighbours(tokens, grid)
        return scores if torch.allclose(scores, -torch.ones(len(tokens))) else -scores

    with pytest.raises(AssertionError, match="sign is the other way round"):
        check("11-4", turned)
