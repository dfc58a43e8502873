"""The cases that the assignment is graded by: inputs drawn from a seed, answers from the core.

Cases are hidden from the notebook, not from a reader of this repository; with another seed the
numbers are others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scclip_core import anomaly, attention, similarity
from scclip_lab.evaluation.metrics import count_classes, mean_iou

# The arguments of one call: tensors and plain numbers.
Arguments = tuple[Any, ...]
Cases = dict[str, Arguments]
Draw = torch.Generator


@dataclass(frozen=True)
class Question:
    """A question of the assignment.

    Attributes:
        number: as in the notebook, "A-1".
        function: the name of the function that is asked for.
        points: what it is worth; the cases share them evenly.
        cases: draws the cases, by name, from a generator.
        answer: what is right, for the arguments of a case.
    """

    number: str
    function: str
    points: int
    cases: Callable[[Draw], Cases]
    answer: Callable[..., Any]


def normal(draw: Draw, *shape: int) -> Tensor:
    """Standard normal numbers of a shape."""
    return torch.randn(shape, generator=draw)


def symmetric(draw: Draw, batch: int, n: int) -> Tensor:
    """Cosine similarities of random tokens, [batch, n, n]."""
    return similarity.patch_similarity(normal(draw, batch, n, 6))


def rows_of_one(draw: Draw, batch: int, n: int) -> Tensor:
    """Attention weights, [batch, n, n], every row sums to 1."""
    return normal(draw, batch, n, n).softmax(-1)


def cosine_cases(draw: Draw) -> Cases:
    """Question 1."""
    return {
        "one image": (normal(draw, 1, 9, 5),),
        "a batch of three": (normal(draw, 3, 7, 4),),
        "tokens of very different length": (normal(draw, 2, 6, 8) * 10 ** normal(draw, 2, 6, 1),),
        "one token": (normal(draw, 2, 1, 3),),
    }


def aggregation_cases(draw: Draw) -> Cases:
    """Question 2."""
    return {
        "one image": (normal(draw, 1, 10, 4), symmetric(draw, 1, 10), 0.4),
        "a batch of three": (normal(draw, 3, 8, 5), symmetric(draw, 3, 8), 0.2),
        "another threshold": (normal(draw, 2, 8, 5), symmetric(draw, 2, 8), 0.7),
        "a similarity of exactly beta": (
            normal(draw, 1, 4, 3),
            torch.eye(4)[None].clamp(min=0.5),
            0.5,
        ),
        "a matrix that is not symmetric": (
            normal(draw, 2, 6, 3),
            rows_of_one(draw, 2, 6),
            0.15,
        ),
    }


def outlier_cases(draw: Draw) -> Cases:
    """Question 3."""
    dense, loose = 0.1 * normal(draw, 12, 3), 5 + 2 * normal(draw, 12, 3)
    return {
        "one cluster": (normal(draw, 20, 4), 5),
        "two clusters of different density": (torch.cat([dense, loose]), 4),
        "one neighbour": (normal(draw, 10, 2), 1),
        "all others are neighbours": (normal(draw, 8, 3), 7),
        "two equal points": (torch.cat([normal(draw, 9, 3), torch.zeros(2, 3)]), 3),
    }


def flag_cases(draw: Draw) -> Cases:
    """Question 4."""
    return {
        "one image": (normal(draw, 1, 40), 0.05),
        "each image has a threshold of its own": (
            normal(draw, 2, 30) + torch.tensor([[0.0], [50.0]]),
            0.1,
        ),
        "equal scores": (torch.full((1, 12), 2.0), 0.25),
        "half of all": (normal(draw, 2, 16), 0.5),
    }


def repair_cases(draw: Draw) -> Cases:
    """Question 5."""

    def some(share: float, batch: int, n: int) -> Tensor:
        return torch.rand(batch, n, generator=draw) < share

    corners = torch.zeros(1, 4, 5, dtype=torch.bool)
    corners[:, ::3, ::4] = True
    return {
        "a square grid": (normal(draw, 1, 25, 3), some(0.2, 1, 25), 5, 5),
        "more columns than rows": (normal(draw, 1, 18, 3), some(0.2, 1, 18), 3, 6),
        "more rows than columns": (normal(draw, 1, 18, 3), some(0.2, 1, 18), 6, 3),
        "all four corners": (normal(draw, 1, 20, 2), corners.flatten(1), 4, 5),
        "neighbours that are flagged too": (normal(draw, 1, 16, 2), some(0.8, 1, 16), 4, 4),
        "a batch of three": (normal(draw, 3, 12, 4), some(0.3, 3, 12), 3, 4),
        "nothing is flagged": (normal(draw, 1, 9, 2), torch.zeros(1, 9, dtype=torch.bool), 3, 3),
    }


def content_cases(draw: Draw) -> Cases:
    """Question 6."""
    shifted = torch.cat([symmetric(draw, 1, 9), 0.5 + 0.5 * symmetric(draw, 1, 9)])
    return {
        "one image": (symmetric(draw, 1, 10), 3.0),
        "each image has a mean of its own": (shifted, 3.0),
        "another gain": (symmetric(draw, 2, 8), 11.0),
    }


def mixed_cases(draw: Draw) -> Cases:
    """Question 7."""

    def heads(batch: int, count: int, n: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (2 * normal(draw, batch, count, n, d) for _ in range(3))
        return query, key, value

    return {
        "one head": (*heads(1, 1, 6, 4), rows_of_one(draw, 1, 6), 0.5),
        "several heads and images": (*heads(2, 3, 5, 8), rows_of_one(draw, 2, 5), 0.5),
        "content alone": (*heads(1, 2, 5, 4), rows_of_one(draw, 1, 5), 1.0),
        "mostly self-attention": (*heads(2, 2, 7, 4), rows_of_one(draw, 2, 7), 0.2),
    }


def iou_cases(draw: Draw) -> Cases:
    """Question 8."""

    def labels(classes: int, *shape: int) -> Tensor:
        return torch.randint(classes, shape, generator=draw)

    ignored = labels(4, 8, 9)
    ignored[:3] = 255
    wrong_where_ignored = labels(4, 8, 9)
    wrong_where_ignored[:3] = 4
    return {
        "all classes occur": (labels(3, 12, 12), labels(3, 12, 12), 3),
        "classes that occur nowhere": (labels(3, 6, 7), labels(3, 6, 7), 20),
        "a class that is predicted and never true": (labels(5, 9, 9), labels(2, 9, 9), 5),
        "pixels without a label": (wrong_where_ignored, ignored, 6),
        "all right": (torch.ones(3, 4, dtype=torch.long), torch.ones(3, 4, dtype=torch.long), 2),
    }


def right_aggregate(tokens: Tensor, matrix: Tensor, beta: float) -> Tensor:
    """The answer to question 2, by the core."""
    kept = similarity.threshold_similarity(matrix, beta)
    return similarity.adaptive_aggregate(tokens, kept)


def right_mixed(query: Tensor, key: Tensor, value: Tensor, content: Tensor, mix: float) -> Tensor:
    """The answer to question 7, by the core."""
    weights = attention.mixed_weights(torch.stack([query, key, value]), content, "qk", mix)
    return weights @ value


QUESTIONS = (
    Question("A-1", "cosine_similarity", 8, cosine_cases, similarity.patch_similarity),
    Question("A-2", "aggregate", 10, aggregation_cases, right_aggregate),
    Question(
        "A-3",
        "outlier_factor",
        18,
        outlier_cases,
        lambda points, k: anomaly.local_outlier_factor(points[None], k)[0],
    ),
    Question("A-4", "flag", 6, flag_cases, anomaly.flag_anomalies),
    Question(
        "A-5",
        "repair",
        14,
        repair_cases,
        lambda tokens, flags, rows, cols: anomaly.repair_anomalies(tokens, flags, (rows, cols)),
    ),
    Question("A-6", "content_attention", 8, content_cases, attention.content_attention),
    Question("A-7", "mixed_attention", 8, mixed_cases, right_mixed),
    Question(
        "A-8",
        "mean_iou",
        8,
        iou_cases,
        lambda prediction, truth, classes: float(
            mean_iou(count_classes(prediction, truth, classes))
        ),
    ),
)
