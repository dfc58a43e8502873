"""Wrong answers to the exercises of chapter 13 are told what is wrong."""

import pytest
import torch

from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch13 import aggregate_by_rows, layer_at


def as_a_whole(tokens, guide, beta, rows):
    similarity = threshold_similarity(patch_similarity(guide[None]), beta)
    return adaptive_aggregate(tokens[None], similarity)[0]


def own_rows_alone(tokens, guide, beta, rows):
    pairs = zip(tokens.split(rows), guide.split(rows), strict=True)
    return torch.cat([as_a_whole(t, g, beta, rows) for t, g in pairs])


def without_division(tokens, guide, beta, rows):
    unit = torch.nn.functional.normalize(guide, dim=-1)
    similarity = unit @ unit.T
    return torch.where(similarity >= beta, similarity, 0) @ tokens


def with_one_group_missing(tokens, guide, beta, rows):
    if rows > len(tokens):
        return torch.zeros_like(tokens)
    return aggregate_by_rows(tokens, guide, beta, rows)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("13-4", lambda i, d: i * d / 12, "a whole number, got float"),
        ("13-4", lambda i, d: i, "two thirds: layer 16"),
        ("13-4", lambda i, d: -(-i * d // 12), "21.33 is rounded to 21"),
        ("13-4", lambda i, d: round(i * d / 12), "halves are rounded up"),
        ("13-4", lambda i, d: (i * d + 6) // 12, "at most depth - 2"),
        ("13-4", lambda i, d: min(layer_at(i, d), 20), "21.33 is rounded to 21"),
        ("13-5", lambda t, g, b, r: aggregate_by_rows(t, g, b, r)[:20], "a token for every patch"),
        ("13-5", without_division, "weights of a row must sum to about 1"),
        ("13-5", own_rows_alone, "needs all N columns"),
        ("13-5", as_a_whole, "no tensor may hold more than rows . N = 1800"),
        ("13-5", with_one_group_missing, "more rows than there are patches"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
