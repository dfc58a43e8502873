"""Sliding windows: one window is a plain run, many are averaged, batches change nothing."""

import pytest
import torch

from scclip_core import SCCLIP
from scclip_core.pipeline import upsample
from scclip_core.segmentation import label_map, sliding_logits, window_starts

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def segmenter(model):
    return SCCLIP(model)


@pytest.fixture(scope="module")
def text():
    return torch.nn.functional.normalize(torch.randn(3, 24, generator=GENERATOR), dim=-1)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(224, [0]), (100, [0]), (336, [0, 112]), (448, [0, 112, 224]), (400, [0, 112, 176])],
)
def test_windows_start_every_stride_and_end_with_the_picture(length, expected):
    assert window_starts(length, 224, 112) == expected


def test_a_picture_of_one_window_gives_what_a_plain_run_gives(segmenter, images, text):
    plain = upsample(segmenter.logits(images, text), (128, 128))
    assert torch.allclose(sliding_logits(segmenter, images, text, 128, 64), plain, atol=1e-6)
    assert torch.allclose(sliding_logits(segmenter, images, text, 224, 112), plain, atol=1e-6)


def test_windows_together_equal_windows_one_by_one(segmenter, text):
    images = torch.randn(2, 3, 96, 160, generator=GENERATOR)
    together = sliding_logits(segmenter, images, text, 64, 32, batch=7)
    apart = sliding_logits(segmenter, images, text, 64, 32, batch=1)
    assert together.shape == (2, 3, 96, 160)
    assert torch.allclose(together, apart, atol=1e-5)


def test_pixels_are_the_mean_of_the_windows_that_cover_them(segmenter, text):
    image = torch.randn(1, 3, 64, 96, generator=GENERATOR)
    slid = sliding_logits(segmenter, image, text, 64, 32)
    left, right = (upsample(segmenter.logits(image[..., c : c + 64], text), (64, 64)) for c in (0, 32))
    assert torch.allclose(slid[..., :32], left[..., :32], atol=1e-6)
    assert torch.allclose(slid[..., 32:64], (left[..., 32:] + right[..., :32]) / 2, atol=1e-6)
    assert torch.allclose(slid[..., 64:], right[..., 32:], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 60}, "window must be a multiple of the patch, 16, got 60"),
        ({"window": 0}, "window must be a multiple of the patch"),
        ({"window": 64, "stride": 65}, r"stride must be in 1\.\.64, the window, got 65"),
        ({"window": 64, "stride": 0}, r"stride must be in 1\.\.64"),
        ({"window": 64, "stride": 32, "batch": 0}, "batch must be at least 1 window, got 0"),
    ],
)
def test_windows_that_make_no_sense_are_refused(segmenter, images, text, options, told):
    with pytest.raises(ValueError, match=told):
        sliding_logits(segmenter, images, text, **options)


def test_a_label_map_is_the_best_class_at_its_size():
    logits = torch.randn(1, 40, 6, 8, generator=GENERATOR)
    classes = [(f"class {i}",) for i in range(40)]
    expected = upsample(logits.movedim(1, -1), (30, 20))[0].argmax(0)
    assert torch.equal(label_map(logits, classes, (30, 20)), expected)


def test_a_label_map_takes_the_best_name_of_a_class():
    logits = torch.tensor([0.1, 0.9, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert (label_map(logits, [("a", "b"), ("c",)], (4, 4)) == 0).all()
