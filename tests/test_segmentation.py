"""Sliding windows: one window is a plain run, many are averaged, batches change nothing."""

import pytest
import torch

from scclip_core import SCCLIP
from scclip_core.pipeline import upsample
from scclip_core.segmentation import Protocol, label_map, sliding_logits, window_starts

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
    assert torch.allclose(torch.stack(sliding_logits(segmenter, images, text, 128, 64)), plain, atol=1e-6)
    assert torch.allclose(torch.stack(sliding_logits(segmenter, images, text, 224, 112)), plain, atol=1e-6)


def test_windows_of_pictures_of_all_sizes_together_equal_windows_one_by_one(segmenter, text):
    sizes = [(96, 160), (64, 64), (48, 112), (96, 160)]
    images = [torch.randn(3, *size, generator=GENERATOR) for size in sizes]
    together = sliding_logits(segmenter, images, text, 64, 32, batch=7)
    for image, logits in zip(images, together, strict=True):
        assert logits.shape == (3, *image.shape[1:])
        assert torch.allclose(logits, sliding_logits(segmenter, [image], text, 64, 32, batch=1)[0], atol=1e-5)


def test_pixels_are_the_mean_of_the_windows_that_cover_them(segmenter, text):
    image = torch.randn(1, 3, 64, 96, generator=GENERATOR)
    slid = sliding_logits(segmenter, image, text, 64, 32)[0]
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
    logits = torch.randn(40, 6, 8, generator=GENERATOR)
    classes = [(f"class {i}",) for i in range(40)]
    expected = upsample(logits.movedim(0, -1)[None], (30, 20))[0].argmax(0)
    assert torch.equal(label_map(logits, classes, (30, 20)), expected)


def test_a_label_map_takes_the_best_name_of_a_class():
    logits = torch.tensor([0.1, 0.9, 0.5]).view(3, 1, 1).expand(3, 4, 4)
    assert (label_map(logits, [("a", "b"), ("c",)], (4, 4)) == 0).all()


def published(logits, classes, size, scale, probability, area):
    """The published code's order of work on whole tensors: resize, softmax, best query, area, probability."""
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
    classes = [("wall", "sky", "sea"), *((f"class {i}", f"name {i}") for i in range(11))]
    logits = 0.3 * torch.randn(25, 7, 9, generator=GENERATOR)
    protocol = Protocol(logit_scale=20.0, probability_threshold=probability, area_threshold=area)
    found = label_map(logits, classes, (40, 33), protocol)
    assert torch.equal(found, published(logits, classes, (40, 33), 20.0, probability, area))
    assert len(found.unique()) > 1 or probability == 0.9
