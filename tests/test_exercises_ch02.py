"""Exercises of chapter 2: wrong answers are told what is wrong."""

import pytest
import torch

from scclip_core.anomaly import local_outlier_factor, repair_anomalies
from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch02 import density, repair


def with_itself(points, k):
    return 1 / torch.cdist(points, points).topk(k, largest=False)[0].mean(1)


def own_k_distance(points, k):
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf)
    return 1 / distance.topk(k, largest=False)[0][:, -1]


def summed(points, k):
    return k * local_outlier_factor(points[None], k)[0]


def in_place(tokens, flagged, rows, cols):
    tokens[:] = repair(tokens, flagged, rows, cols)
    return tokens


def from_all(tokens, flagged, rows, cols):
    return repair_anomalies(tokens[None], flagged[None], (rows, cols))[0]


def to_zero(tokens, flagged, rows, cols):
    return torch.where(flagged.all(), 0 * tokens, repair(tokens, flagged, rows, cols))


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("02-5", lambda points, k: points, r"4 points, got \[4, 1\]"),
        ("02-5", with_itself, "no neighbour of itself"),
        ("02-5", lambda points, k: 2 * density(points, k), "with k = 1"),
        ("02-5", own_k_distance, "the \\*neighbour\\*"),
        ("02-6", lambda points, k: points[0], "40 points"),
        ("02-6", lambda points, k: density(points, k), "not the other way round"),
        ("02-6", summed, r"\*mean\* density"),
        ("02-7", lambda tokens, *rest: tokens + 1, "nothing changes"),
        ("02-7", in_place, "work on a clone"),
        ("02-7", lambda tokens, *rest: repair(tokens, *rest) + rest[0].any(), "stay as they are"),
        ("02-7", lambda t, f, r, c: t.clone(), "five columns"),
        ("02-7", from_all, "neither may count"),
        ("02-7", to_zero, "all flagged stays"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
