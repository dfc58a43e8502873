"""Exercises of chapter 4: wrong answers are told what is wrong."""

import pytest
import torch

from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch04 import content_weights, entropy, read_mixed


def zeroed_after(similarity, gain):
    logits = gain * (similarity - similarity.mean())
    return logits.softmax(-1) * (logits >= 0)


def zero_for_infinity(similarity, gain):
    return (gain * (similarity - similarity.mean())).relu().softmax(-1)


def mean_of_rows(similarity, gain):
    logits = gain * (similarity - similarity.mean())
    masked = (similarity < similarity.mean(-1, keepdim=True)) | (logits < 0)
    return logits.masked_fill(masked, -torch.inf).softmax(-1)


def heads_not_side_by_side(q, k, v, content, mix):
    return read_mixed(q, k, v, content, mix).view(6, 2, 4).transpose(0, 1).reshape(6, 8)


def query_query(q, k, v, content, mix):
    return read_mixed(q, q, v, content, mix)


def swapped(q, k, v, content, mix):
    return read_mixed(q, k, v, content, mix if mix in (0, 1) else 1 - mix)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("04-4", lambda s, gain: content_weights(s, gain)[0], r"must be \[9, 9\]"),
        ("04-4", zeroed_after, "before the softmax"),
        ("04-4", zero_for_infinity, "minus infinity"),
        ("04-4", mean_of_rows, "one number for the whole matrix"),
        ("04-4", lambda s, gain: content_weights(s, 1), "with other weights"),
        ("04-5", lambda w: entropy(w).sum(), "each row becomes one number"),
        ("04-5", lambda w: -entropy(w), "mind the sign"),
        ("04-5", lambda w: entropy(w) / 0.6931, "in nats"),
        ("04-5", lambda w: -(w * w.log()).sum(-1), "0 log 0"),
        ("04-6", lambda q, k, v, c, mix: v, "side by side"),
        ("04-6", lambda q, k, v, c, mix: 2 * read_mixed(q, k, v, c, mix), "must sum to 1"),
        ("04-6", lambda q, k, v, c, mix: read_mixed(q, k, v, c, 0), "the content alone"),
        ("04-6", query_query, "alone is left, with weights of its own"),
        ("04-6", swapped, "mix is the content's share"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)


def test_heads_in_the_wrong_order_are_noticed():
    with pytest.raises(AssertionError):
        check("04-6", heads_not_side_by_side)
