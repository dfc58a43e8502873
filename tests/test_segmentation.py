"""Sliding windows: one window is a plain run, many are averaged, batches change nothing."""

import pytest
import torch

from scclip_core import SCCLIP
from scclip_core.segmentation import (
    best_class,
    check_windows,
    label_map,
    possible_winners,
    sliding_logits,
    upsample,
    window_starts,
)

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def segmenter(model):
    return SCCLIP(model)


@pytest.fixture(scope="module")
def compute(segmenter):
    """The logits of three classes, [B, 3, h, w] -> [B, rows, cols, 3]."""
    text = torch.nn.functional.normalize(torch.randn(3, 24, generator=GENERATOR), dim=-1)
    return lambda images: segmenter.logits(images, text)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(224, [0]), (100, [0]), (336, [0, 112]), (448, [0, 112, 224]), (400, [0, 112, 176])],
)
def test_windows_start_every_stride_and_end_with_the_picture(length, expected):
    assert window_starts(length, 224, 112) == expected


def test_a_picture_of_one_window_gives_what_a_plain_run_gives(compute, images):
    plain = upsample(compute(images), (128, 128))
    for window in (128, 224):
        slid = sliding_logits(compute, images, window, window // 2)
        assert torch.allclose(torch.stack(slid), plain, atol=1e-6)


def test_the_windows_of_the_published_protocol_are_the_default(compute):
    images = torch.randn(1, 3, 224, 448, generator=GENERATOR)
    (slid,), (asked,) = sliding_logits(compute, images), sliding_logits(compute, images, 224, 112)
    assert torch.equal(slid, asked)


def test_windows_of_pictures_of_all_sizes_together_equal_windows_one_by_one(compute):
    sizes = [(96, 160), (64, 64), (48, 112), (96, 160)]
    images = [torch.randn(3, *size, generator=GENERATOR) for size in sizes]
    together = sliding_logits(compute, images, 64, 32, batch=7)
    for image, logits in zip(images, together, strict=True):
        assert logits.shape == (3, *image.shape[1:])
        (alone,) = sliding_logits(compute, [image], 64, 32, batch=1)
        assert torch.allclose(logits, alone, atol=1e-5)


def test_at_most_a_batch_of_windows_is_computed_at_once_and_every_batch_is_full(compute):
    images, sizes = torch.randn(1, 3, 96, 160, generator=GENERATOR), []

    def counted(windows):
        sizes.append(len(windows))
        return compute(windows)

    sliding_logits(counted, images, 64, 32, batch=3)  # 2 x 4 windows
    assert sizes == [3, 3, 2]
    sizes.clear()
    sliding_logits(counted, torch.randn(1, 3, 64, 576, generator=GENERATOR), 64, 32)  # 17 windows
    assert sizes == [16, 1]


def test_what_is_averaged_may_be_anything_that_a_function_gives():
    image = torch.randn(3, 7, 9, generator=GENERATOR)
    (slid,) = sliding_logits(lambda cut: cut.movedim(1, -1), [image], window=5, stride=3)
    assert torch.allclose(slid, image, atol=1e-6)


def test_windows_carry_no_gradient(images):
    weight = torch.ones((), requires_grad=True)
    (slid,) = sliding_logits(lambda cut: weight * cut.movedim(1, -1), images[:1], 64, 32)
    assert not slid.requires_grad


def test_no_images_give_no_logits(compute):
    assert sliding_logits(compute, [], 64, 32) == []


def test_pixels_are_the_mean_of_the_windows_that_cover_them(compute):
    image = torch.randn(1, 3, 64, 96, generator=GENERATOR)
    slid = sliding_logits(compute, image, 64, 32)[0]
    left, right = (upsample(compute(image[..., c : c + 64]), (64, 64)) for c in (0, 32))
    assert torch.allclose(slid[..., :32], left[..., :32], atol=1e-6)
    assert torch.allclose(slid[..., 32:64], (left[..., 32:] + right[..., :32]) / 2, atol=1e-6)
    assert torch.allclose(slid[..., 64:], right[..., 32:], atol=1e-6)


@pytest.mark.parametrize(
    ("window", "stride", "told"),
    [
        (60, 30, "window must be a multiple of the patch, 16, got 60"),
        (0, 1, "window must be a multiple of the patch, 16, got 0"),
        (-16, 1, "window must be a multiple of the patch, 16, got -16"),
        (64, 65, r"stride must be in 1\.\.64, the window, got 65"),
        (64, 0, r"stride must be in 1\.\.64, the window, got 0"),
        (64, -32, r"stride must be in 1\.\.64"),
    ],
)
def test_windows_that_make_no_sense_are_refused(window, stride, told):
    with pytest.raises(ValueError, match=told):
        check_windows(16, window, stride)


def test_windows_may_be_one_patch_and_lie_side_by_side_or_a_pixel_apart():
    check_windows(16, 16, 16)
    check_windows(16, 16, 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 64, "stride": 65}, r"stride must be in 1\.\.64, the window, got 65"),
        ({"window": 64, "stride": 0}, r"stride must be in 1\.\.64"),
        ({"window": 0, "stride": 1}, "window must be"),
        ({"window": 64, "stride": 32, "batch": 0}, "batch must be at least 1 window, got 0"),
    ],
)
def test_windows_with_gaps_and_empty_batches_are_refused(compute, images, options, told):
    with pytest.raises(ValueError, match=told):
        sliding_logits(compute, images, **options)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_a_label_map_is_the_best_class_at_its_size(count):
    logits = torch.randn(count, 6, 8, generator=GENERATOR)
    classes = [(f"class {i}",) for i in range(count)]
    value, label = upsample(logits.movedim(0, -1)[None], (30, 20))[0].max(0)
    best, labels = best_class(logits, classes, (30, 20))
    assert torch.equal(labels, label)
    assert torch.equal(best, value)


def test_a_class_takes_its_best_name():
    logits = torch.tensor([0.1, 0.9, 0.5]).view(3, 1, 1).expand(3, 4, 4)
    best, labels = best_class(logits, [("a", "b"), ("c",)], (4, 4))
    assert (labels == 0).all()
    assert (best == 0.9).all()


def test_names_are_told_apart_in_every_block_of_classes():
    classes = [tuple(f"name {i} {j}" for j in range(1 + i % 3)) for i in range(50)]
    logits = torch.randn(sum(map(len, classes)), 5, 7, generator=GENERATOR)
    large = upsample(logits.movedim(0, -1)[None], (11, 9))[0]
    slow, first = [], 0
    for names in classes:
        slow.append(large[first : first + len(names)].amax(0))
        first += len(names)
    _, labels = best_class(logits, classes, (11, 9))
    assert torch.equal(labels, torch.stack(slow).argmax(0))


def test_equal_logits_go_to_the_first_class():
    logits = torch.ones(40, 2, 2)
    _, labels = best_class(logits, [(f"class {i}",) for i in range(40)], (4, 4))
    assert not labels.any()


def test_excluded_classes_take_no_pixel():
    logits = torch.randn(40, 6, 8, generator=GENERATOR)
    classes = [(f"class {i}",) for i in range(40)]
    excluded = torch.arange(40) % 3 == 0
    large = upsample(logits.movedim(0, -1)[None], (30, 20))[0]
    large[excluded] = -torch.inf
    best, labels = best_class(logits, classes, (30, 20), excluded)
    assert torch.equal(labels, large.argmax(0))
    assert torch.equal(best, large.amax(0))
    # The best of the others is taken even where no cosine is positive.
    _, labels = best_class(logits - 10, classes, (30, 20), excluded)
    assert torch.equal(labels, large.argmax(0))


def test_no_classes_at_all_are_refused():
    with pytest.raises(ValueError, match="classes must hold at least one class, got none"):
        best_class(torch.zeros(0, 4, 4), [], (4, 4))


def test_upsampling_leaves_logits_of_their_own_size_as_they_are():
    logits = torch.randn(2, 5, 7, 3, generator=GENERATOR)
    assert torch.equal(upsample(logits, (5, 7)), logits.permute(0, 3, 1, 2))


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 1), (7, 4)])
@pytest.mark.parametrize("classes", [1, 2, 30])
def test_label_maps_are_the_best_class_of_every_pixel(grid, classes):
    logits = torch.randn(3, *grid, classes, generator=GENERATOR)
    large = upsample(logits, (45, 37))
    found = label_map(logits, (45, 37))
    assert found.shape == (3, 45, 37) and found.dtype == torch.int64
    best, taken = large.amax(1), large.gather(1, found[:, None])[:, 0]
    # Classes that are equal but for rounding may change places.
    torch.testing.assert_close(taken, best, atol=1e-6, rtol=0)
    assert (found == large.argmax(1)).float().mean() > 0.999


def test_only_classes_that_win_somewhere_are_brought_to_image_size():
    # Class 2 is second at both patches and wins between them; class 3 is never near.
    logits = torch.tensor([[[1.0, 0.0, 0.9, 0.2], [0.0, 1.0, 0.9, 0.2]]])
    assert possible_winners(logits).tolist() == [0, 1, 2]
    assert set(label_map(logits[None], (16, 32)).unique().tolist()) == {0, 1, 2}
    assert possible_winners(logits[..., [3, 3]]).tolist() == [0, 1]  # ties stay
