"""`predict`: any picture in, a label map at the picture's own size out."""

import numpy as np
import pytest
import torch
from PIL import Image

from scclip_core.segmentation import sliding_logits, upsample
from scclip_core.text import max_over_names
from tests.conftest import CLASSES


@pytest.fixture
def values(picture):
    return np.asarray(picture)  # uint8 [60, 90, 3]


def slow_scores(segmenter, picture, classes, side, window, stride):
    """Resized, cut into windows, averaged, brought to the picture's own size: [C, H, W]."""
    image = segmenter.model.preprocess(picture, side)
    names, text = segmenter.embed_classes(classes)
    (logits,) = sliding_logits(lambda cut: segmenter.logits(cut, text), [image], window, stride)
    large = upsample(logits.movedim(0, -1)[None], picture.size[::-1])[0]  # [Q, H, W]
    return max_over_names(large.movedim(0, -1), names).movedim(-1, 0)


# What goes in.


def test_every_kind_of_picture_gives_the_same_label_map(segmenter, picture, values, tmp_path):
    picture.save(tmp_path / "a.png")
    tensor = torch.from_numpy(values.copy()).permute(2, 0, 1)
    kinds = {
        "path": tmp_path / "a.png",
        "name": str(tmp_path / "a.png"),
        "array of uint8": values,
        "array of floats": values / 255,
        "array of single floats": (values / 255).astype(np.float32),
        "tensor of uint8": tensor,
        "tensor of floats": tensor / 255,
    }
    expected = segmenter.predict(picture, CLASSES).labels
    assert np.unique(expected).tolist() == [0, 1, 2]
    for kind, given in kinds.items():
        predicted = segmenter.predict(given, CLASSES)
        assert np.array_equal(predicted.labels, expected), kind
        assert np.array_equal(predicted.picture, values), kind


def test_a_turned_photograph_is_segmented_upright(segmenter, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    prediction = segmenter.predict(tmp_path / "turned.png", CLASSES)
    assert prediction.labels.shape == (90, 60)
    assert prediction.picture.shape == (90, 60, 3)


# What comes out.


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (1, 1), (33, 500), (300, 200)])
def test_the_label_map_has_the_pictures_own_size(segmenter, size):
    picture = Image.effect_noise(size, 80).convert("RGB")
    prediction = segmenter.predict(picture, CLASSES)
    assert prediction.labels.shape == size[::-1]
    assert prediction.labels.dtype == np.int64
    assert prediction.picture.shape == (*size[::-1], 3)
    assert set(np.unique(prediction.labels)) <= {0, 1, 2}


def test_large_pictures_are_cut_into_windows_of_the_training_size(segmenter, picture):
    # 60 x 90 pixels become 128 x 192, in two windows of 128
    prediction = segmenter.predict(picture, CLASSES, scores=True)
    expected = slow_scores(segmenter, picture, CLASSES, 128, 128, 64)
    assert np.allclose(prediction.scores, expected, atol=1e-6)
    assert np.array_equal(prediction.labels, expected.argmax(0))
    whole = slow_scores(segmenter, picture, CLASSES, 128, 192, 192)
    assert not np.allclose(prediction.scores, whole, atol=1e-3)


def test_side_window_and_stride_may_be_chosen(segmenter, picture):
    asked = {"short_side": 96, "window": 64, "stride": 16}
    prediction = segmenter.predict(picture, CLASSES, **asked, scores=True)
    expected = slow_scores(segmenter, picture, CLASSES, 96, 64, 16)
    assert np.allclose(prediction.scores, expected, atol=1e-6)
    assert np.array_equal(prediction.labels, expected.argmax(0))


def test_half_a_window_is_the_default_stride(segmenter, picture):
    for window in (32, np.int64(64)):
        given, left_out = (
            segmenter.predict(picture, CLASSES, window=window, stride=stride, scores=True)
            for stride in (window // 2, None)
        )
        assert np.array_equal(given.scores, left_out.scores)


def test_a_picture_of_one_window_is_a_plain_run(segmenter, picture):
    square = picture.resize((64, 64))
    prediction = segmenter.predict(square, CLASSES, scores=True)
    names, text = segmenter.embed_classes(CLASSES)
    logits = segmenter.logits(segmenter.model.preprocess(square)[None], text)
    at_image_size = upsample(logits, (128, 128))
    expected = max_over_names(
        upsample(at_image_size.movedim(1, -1), (64, 64)).movedim(1, -1), names
    )
    assert np.allclose(prediction.scores, expected[0].movedim(-1, 0), atol=1e-6)


def test_scores_are_kept_only_on_request(segmenter, picture):
    without = segmenter.predict(picture, CLASSES)
    kept = segmenter.predict(picture, CLASSES, scores=True)
    assert without.scores is None
    assert kept.scores.shape == (3, 60, 90)
    assert kept.scores.dtype == np.float32
    assert np.abs(kept.scores).max() <= 1 + 1e-5
    assert np.array_equal(kept.labels, without.labels)
    assert np.array_equal(kept.labels, kept.scores.argmax(0))


def test_predictions_repeat(segmenter, picture):
    first, second = (segmenter.predict(picture, CLASSES, scores=True) for _ in range(2))
    assert np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"short_side": 15}, "short_side must be at least one patch, 16 pixels, got 15"),
        ({"window": 100}, "window must be a multiple of the patch, 16, got 100"),
        ({"window": 0}, "window must be a multiple of the patch, 16, got 0"),
        ({"stride": 0}, r"stride must be in 1\.\.128, the window, got 0"),
        ({"stride": 129}, r"stride must be in 1\.\.128, the window, got 129"),
        ({"window": 64, "stride": 65}, r"stride must be in 1\.\.64, the window, got 65"),
    ],
)
def test_sizes_that_make_no_sense_are_refused_before_the_picture_is_opened(
    segmenter, options, told
):
    with pytest.raises(ValueError, match=told):
        segmenter.predict("no such file.png", CLASSES, **options)


def test_the_smallest_sizes_are_allowed(segmenter, picture):
    sizes = {"short_side": 16, "window": 16, "stride": 16}
    assert segmenter.check_sizes(16, 16, None) == (16, 8)
    assert segmenter.check_sizes(None, None, 128) == (128, 128)
    assert segmenter.predict(picture, CLASSES, **sizes).labels.shape == (60, 90)


def test_a_file_that_is_missing_and_classes_that_repeat_are_refused(segmenter, picture):
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        segmenter.predict("gone.png", CLASSES)
    with pytest.raises(ValueError, match="'dog' is given twice"):
        segmenter.predict(picture, ["dog", "dog"])
