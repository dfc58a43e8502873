"""Wrong answers to the exercises of chapter 9 are told what is wrong."""

import pytest
import torch

from scclip_core.last_block import gaussian_window
from scclip_lab.exercises import check


def among_patches(q, k, v, scale=2.0, share=0.5, joined=True):
    """The right answer, but for what is asked for otherwise."""
    q, k, v = q[:, 1:], k[:, 1:], v[:, 1:]
    read = share * sum((t @ t.mT / scale).softmax(-1) for t in (q, k)) @ v
    return read.transpose(0, 1).flatten(1) if joined else read.flatten(1).view(5, 8)


def cut_after_the_softmax(q, k, v):
    patterns = [(t @ t.mT / 2).softmax(-1)[:, 1:, 1:] for t in (q, k)]
    return (sum(patterns) / 2 @ v[:, 1:]).transpose(0, 1).flatten(1)


def with_the_class_token(q, k, v):
    read = sum((t @ t.mT / 2).softmax(-1) for t in (q, k)) / 2 @ v
    return read[:, 1:].transpose(0, 1).flatten(1)


def query_key(q, k, v):
    weights = (q[:, 1:] @ k[:, 1:].mT / 2).softmax(-1)
    return (weights @ v[:, 1:]).transpose(0, 1).flatten(1)


def of_the_transposed_grid(rows, cols, sigma):
    return gaussian_window((cols, rows), sigma)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("09-4", lambda rows, cols, sigma: torch.ones(rows, cols), "6 x 6 pairs"),
        ("09-4", lambda r, c, s: gaussian_window((r, c), s) / 2, "diagonal is exp"),
        ("09-4", lambda r, c, s: gaussian_window((r, c), s) ** 2, "neighbours in a row"),
        ("09-4", of_the_transposed_grid, "counted row by row"),
        ("09-4", lambda r, c, s: gaussian_window((r, c), 1.0), "divided by 2 sigma squared"),
        ("09-5", lambda q, k, v: v, "five patches behind a class token"),
        ("09-5", lambda q, k, v: among_patches(q, k, v, share=1.0), "take the mean of both"),
        ("09-5", cut_after_the_softmax, "before the softmax"),
        ("09-5", with_the_class_token, "another class token must change nothing"),
        ("09-5", query_key, "q meets q and k meets k"),
        ("09-5", lambda q, k, v: among_patches(q, k, v, joined=False), "joined the wrong way"),
        ("09-5", lambda q, k, v: among_patches(q, k, v, scale=1.0), "divided by sqrt"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
