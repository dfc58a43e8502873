"""Exercises of chapter 3: wrong answers are told what is wrong."""

import pytest
import torch
import torch.nn.functional as F

from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch03 import aggregate, steps_until_alike, thresholded


def cosines(tokens):
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.T


def in_place(tokens, graph):
    graph /= graph.sum(-1, keepdim=True)
    return graph @ tokens


def by_the_mean(tokens, graph, limit):
    steps = 0
    while thresholded(tokens, -1).mean() < limit:
        tokens, steps = aggregate(tokens, graph), steps + 1
    return steps


def one_too_many(tokens, graph, limit):
    return 1 + steps_until_alike(tokens, graph, limit)


def never_repeated(tokens, graph, limit):
    return 0 if thresholded(tokens, -1).min() >= limit else 1


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("03-4", lambda t, beta: cosines(t)[0], "7 x 7 cosines"),
        ("03-4", lambda t, beta: (t @ t.T) * (t @ t.T >= beta), "divide every token by its length"),
        ("03-4", lambda t, beta: cosines(t), "no negative number"),
        ("03-4", lambda t, beta: (cosines(t) - beta).relu() / (1 - beta), "shifted or rescaled"),
        ("03-4", lambda t, beta: cosines(t).relu() * (cosines(t) >= beta), "negative ones too"),
        ("03-5", in_place, "must not be changed"),
        ("03-5", lambda t, graph: (graph @ t)[:1], "six tokens stay six tokens"),
        ("03-5", lambda t, graph: graph @ t, "every row must sum to 1"),
        ("03-5", lambda t, graph: graph / graph.sum(0) @ t, "every row must sum to 1"),
        ("03-5", lambda t, graph: aggregate(t, graph.T), "row i of the matrix"),
        ("03-6", one_too_many, "need no step"),
        ("03-6", lambda t, graph, limit: 0, "one step makes all tokens equal"),
        ("03-6", never_repeated, "feed every result into the next step"),
        ("03-6", by_the_mean, "not at the mean"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)


def test_a_ring_takes_more_than_one_step():
    ring = torch.eye(8) + torch.eye(8).roll(1, 0) + torch.eye(8).roll(1, 1)
    tokens = torch.rand(8, 5, generator=torch.Generator().manual_seed(2))
    assert steps_until_alike(tokens, ring, 0.99) > 1
