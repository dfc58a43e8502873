"""Exercises of chapter 1: wrong answers are told what is wrong."""

import pytest
import torch
import torch.nn.functional as F

from scclip_core.segmentation import upsample
from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch01 import cut


def nearest(values, height, width):
    return F.interpolate(values[None, None], (height, width), mode="nearest")[0, 0]


def corners(values, height, width):
    options = {"mode": "bilinear", "align_corners": True}
    return F.interpolate(values[None, None], (height, width), **options)[0, 0]


def along_rows_only(values, height, width):
    wide = upsample(values[None, :, :, None], (values.shape[0], width))[0, 0]
    return nearest(wide, height, width)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("01-4", lambda image, size: image.flatten(), r"\[6, 12\], got \[72\]"),
        ("01-4", lambda image, size: image.reshape(6, 12), "permute before you flatten"),
        ("01-4", lambda image, size: cut(image.mT, size)[:, torch.randperm(12)], "second is right"),
        ("01-4", lambda image, size: cut(image, size).flip(1), "channel, then row, then column"),
        ("01-5", lambda t, p, w: t @ p @ w.T, r"the shape is \[40\]"),
        ("01-5", lambda t, p, w: (t @ p @ w.T).argmin(-1), "not the least"),
        ("01-5", lambda t, p, w: t[:, :5].matmul(w.T).argmax(-1), "project the tokens first"),
        ("01-5", lambda t, p, w: (t @ p @ w.T).argmax(-1), "longer word vector wins"),
        ("01-6", lambda values, height, width: values, r"must be \[12, 8\]"),
        ("01-6", lambda values, height, width: torch.zeros(height, width), "sum to 1"),
        ("01-6", nearest, "nearest cell"),
        ("01-6", corners, r"\(x \+ 1/2\)"),
        ("01-6", along_rows_only, "one after the other"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
