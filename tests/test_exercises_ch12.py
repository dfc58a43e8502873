"""Wrong answers to the exercises of chapter 12 are told what is wrong."""

import numpy as np
import pytest
import torch

from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch12 import mutual_information, otsu


def nearest_means(values):
    """The middle of the two means alone, at the overall mean."""
    cut = values.mean()
    return (values[values < cut].mean() + values[values >= cut].mean()) / 2


def with_a_plain_logarithm(predicted):
    def entropy(p):
        return -(p * p.log()).sum(-1)

    return entropy(predicted.mean(0)) - entropy(predicted).mean()


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("12-4", lambda values: np.array([otsu(values)]), "one number is needed"),
        ("12-4", lambda values: otsu(values) + 0.6, "the cut must lie between them"),
        ("12-4", np.mean, "squared"),
        ("12-4", nearest_means, "is largest at"),
        ("12-5", lambda predicted: mutual_information(predicted)[None], "one number is needed"),
        ("12-5", with_a_plain_logarithm, "0 log 0"),
        ("12-5", lambda predicted: mutual_information(predicted) / np.log(2), "natural one"),
        (
            "12-5",
            lambda predicted: torch.special.entr(predicted.mean(0)).sum(),
            "all the same have none",
        ),
        (
            "12-5",
            lambda predicted: mutual_information(predicted[:10]),
            "natural one|over the rows",
        ),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
