"""Tests of the exercises of chapter 14: the best of several names, and names given as text."""

import torch
import torch.nn.functional as F

from scclip_core.text import max_over_names, parse_classes
from scclip_lab.exercises import Attempt, exercise


@exercise("14-4")
def best_of_the_names(attempt: Attempt) -> None:
    """The largest logit within each class: attempt([..., names], sizes) -> [..., classes]."""
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3], [-0.1, -0.4, -0.2, -0.3]])
    given = attempt(logits, [1, 2, 1])
    assert given.shape == (2, 3), (
        f"four names of three classes give [2, 3], got {list(given.shape)}"
    )
    assert torch.allclose(given[0], torch.tensor([0.1, 0.4, 0.3])), (
        "the second class has the names of numbers 1 and 2, and takes the larger logit, 0.4"
    )
    assert torch.allclose(given[1], torch.tensor([-0.1, -0.2, -0.3])), (
        "of negative logits the larger one is the one nearer to zero: no zero may be mixed in"
    )
    maps = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert attempt(maps, [4]).shape == (2, 5, 1), "any number of dimensions may come before names"


@exercise("14-5")
def logits_of_named_classes(attempt: Attempt) -> None:
    """attempt(features [..., D], ["dog", "car|automobile"], {name: [D]}) -> logits [..., C]."""
    axes = torch.eye(4)
    vectors = dict(zip(("sky", "car", "automobile", "ice cream"), axes, strict=True))
    features = torch.tensor([[0.1, 0.2, 0.4, 0.3], [-0.1, -0.4, -0.2, -0.3]])
    given = attempt(features, ["sky", "car", "ice cream"], vectors)
    assert tuple(given.shape) == (2, 3), (
        f"two features and three classes give [2, 3], got {list(given.shape)}"
    )
    assert torch.allclose(given, features[:, [0, 1, 3]]), (
        "a class of one name has the product of the feature with the vector of that name, in the"
        ' order of the classes, whatever the order of the vectors; "ice cream" is one name'
    )
    given = attempt(features, ["car|automobile", "sky"], vectors)
    assert tuple(given.shape) == (2, 2), (
        '"|" stands between the names of one class: "car|automobile" and "sky" are two'
        f" classes, so [2, 2], got {list(given.shape)}"
    )
    assert torch.allclose(given[0], torch.tensor([0.4, 0.1])), (
        "the first class takes the larger of its two logits 0.2 and 0.4, not their mean or sum"
    )
    assert torch.allclose(given[1], torch.tensor([-0.2, -0.1])), (
        "of negative logits the larger one is the one nearer to zero: no zero may be mixed in"
    )
    assert torch.allclose(attempt(features, ["car | automobile", "sky"], vectors), given), (
        'spaces around a name do not belong to it: "car | automobile" has the same two names'
    )
    generator = torch.Generator().manual_seed(0)
    maps = F.normalize(torch.randn(2, 5, 4, generator=generator), dim=-1)
    classes = ["ice cream|sky|car", "automobile"]
    names = parse_classes(classes)
    text = torch.stack([vectors[name] for one in names for name in one])
    assert torch.allclose(attempt(maps, classes, vectors), max_over_names(maps @ text.T, names)), (
        "any number of dimensions may come before that of the features, and of names in a class"
    )
