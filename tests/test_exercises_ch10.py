"""Wrong answers to the exercises of chapter 10 are told what is wrong."""

import numpy as np
import pytest

from scclip_lab.exercises import check


def no_limit(a, b):
    height = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    width = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = height * width
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def over_the_smaller(a, b):
    height = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    width = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return height * width / min(a[2] * a[3], b[2] * b[3])


def softmax_over_all(current, past, masks, k, temperature):
    weights = ((current @ past.T) / temperature).softmax(1)
    kept = weights.topk(k, dim=1)
    return (kept.values[..., None] * masks[kept.indices]).sum(1)


def no_temperature(current, past, masks, k, temperature):
    best, places = (current @ past.T).topk(k, dim=1)
    return (best.softmax(1)[..., None] * masks[places]).sum(1)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("10-4", no_limit, "may not count below 0"),
        ("10-4", over_the_smaller, "cover 150 together"),
        (
            "10-5",
            lambda f, t, s: (np.linalg.norm(f - t, axis=1) < 0.1 * s).mean(),
            "the limit itself is right",
        ),
        ("10-5", lambda f, t, s: (abs(f - t) <= 0.1 * s).all(1).mean(), "the straight one"),
        ("10-5", lambda f, t, s: (np.linalg.norm(f - t, axis=1) <= 10).mean(), "0.1 times"),
        ("10-6", softmax_over_all, "not over all|takes the mask"),
        ("10-6", no_temperature, "divide by the temperature"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
