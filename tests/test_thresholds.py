"""Thresholds on probabilities and areas: label maps are those of the published code."""

import pytest
import torch

from scclip_core.segmentation import upsample
from scclip_lab.datasets.protocol import Protocol, label_map


def published(logits, classes, size, scale, probability, area):
    """The published code's order of work on whole tensors.

    Resize, softmax, best name, area threshold, probability threshold.
    """
    p = (scale * upsample(logits.movedim(0, -1)[None], size)[0]).softmax(0)
    first, best = 0, []
    for names in classes:
        best.append(p[first : first + len(names)].amax(0))
        first += len(names)
    p = torch.stack(best)
    if area:
        filled = [float((p.argmax(0) == c).sum()) for c in range(len(classes))]
        for c in range(1, len(classes)):
            if not filled[c] > area * sum(filled[1:]):
                p[c] = 0
    label = p.argmax(0)
    label[p.amax(0) < probability] = 0
    return label


@pytest.mark.parametrize(
    ("probability", "area"), [(0.0, 0.0), (0.15, 0.0), (0.0, 0.1), (0.15, 0.1), (0.9, 0.5)]
)
def test_thresholds_follow_the_published_protocol(probability, area):
    generator = torch.Generator().manual_seed(0)
    classes = [("wall", "sky", "sea"), *((f"class {i}", f"name {i}") for i in range(11))]
    logits = 0.3 * torch.randn(25, 7, 9, generator=generator)
    protocol = Protocol(logit_scale=20.0, probability_threshold=probability, area_threshold=area)
    found = label_map(logits, classes, (40, 33), protocol)
    assert torch.equal(found, published(logits, classes, (40, 33), 20.0, probability, area))
    assert len(found.unique()) > 1 or probability == 0.9


@pytest.mark.parametrize(("threshold", "kept"), [(0.25, False), (0.249, True)])
def test_a_class_that_fills_just_the_area_threshold_is_removed(threshold, kept):
    # One pixel of background, one of class 1, three of class 2.
    best = torch.tensor([[0, 1, 2, 2, 2]])
    logits = torch.nn.functional.one_hot(best, 3).movedim(-1, 0).float()
    logits[0] += 0.5
    protocol = Protocol(area_threshold=threshold)
    found = label_map(logits, [("wall",), ("dog",), ("cat",)], (1, 5), protocol)
    assert found.tolist() == [[0, 1 if kept else 0, 2, 2, 2]]


def test_a_probability_at_the_threshold_is_kept():
    # Two names of equal logits have a probability of one half each.
    logits = torch.zeros(2, 1, 1)
    logits[1] += 1e-6
    for threshold, label in ((0.5, 1), (0.51, 0)):
        protocol = Protocol(probability_threshold=threshold)
        assert label_map(logits, [("wall",), ("dog",)], (1, 1), protocol).item() == label


def test_without_thresholds_every_pixel_takes_its_best_class():
    logits = torch.randn(40, 6, 8, generator=torch.Generator().manual_seed(0))
    classes = [(f"class {i}",) for i in range(40)]
    expected = upsample(logits.movedim(0, -1)[None], (30, 20))[0].argmax(0)
    assert torch.equal(label_map(logits, classes, (30, 20)), expected)
