"""Wrong answers to the exercises of chapter 6 are told what is wrong."""

import pytest
import torch

from scclip_core.segmentation import upsample
from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch06 import label_with_threshold, slide


def without_count(compute, image, window, stride):
    """The sum over windows, not divided by their number."""
    count = slide(lambda cut: torch.ones_like(cut), image, window, stride)
    return 2 * slide(compute, image, window, stride) / count


def without_the_last(compute, image, window, stride):
    """Windows at whole steps alone."""
    total, count = torch.zeros_like(image), torch.zeros_like(image)
    for top in range(0, image.shape[1] - window + 1, stride):
        for left in range(0, image.shape[2] - window + 1, stride):
            here = slice(None), slice(top, top + window), slice(left, left + window)
            total[here] += compute(image[here][None])[0]
            count[here] += 1
    return total / count


def labels_enlarged(logits, size, scale, threshold):
    labels = logits.argmax(-1)
    factors = [new // old for new, old in zip(size, labels.shape, strict=True)]
    return labels.repeat_interleave(factors[0], 0).repeat_interleave(factors[1], 1)


def without_scale(logits, size, scale, threshold):
    return label_with_threshold(logits, size, 1.0, threshold)


def without_threshold(logits, size, scale, threshold):
    return upsample(logits[None], size)[0].argmax(0)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("06-4", lambda compute, image, window, stride: image[0], "picture's own shape"),
        ("06-4", without_count, "number of windows that cover it"),
        ("06-4", without_the_last, "the last window is moved back so that it"),
        ("06-4", lambda compute, image, window, stride: compute(image[None])[0], "by itself"),
        ("06-5", lambda *given: torch.zeros(4, 5), "every pixel of the given size"),
        ("06-5", labels_enlarged, "enlarged before a word is chosen"),
        ("06-5", without_threshold, "every pixel is background"),
        ("06-5", without_scale, "scale times the enlarged logits"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
