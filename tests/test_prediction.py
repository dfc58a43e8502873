"""`predict`: any picture in, a label map at the picture's own size out, to look at and to save."""

import colorsys
import io
import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from PIL import Image

from scclip_core import SCCLIP, Prediction
from scclip_core.prediction import OKABE_ITO, overlay, palette
from scclip_core.segmentation import sliding_logits, upsample
from scclip_core.text import max_over_names

# The tiny model finds each of these in a picture of noise.
CLASSES = ["car", "cup|train", "road"]


@pytest.fixture(scope="module")
def segmenter(model):
    return SCCLIP(model)


@pytest.fixture
def values(picture):
    return np.asarray(picture)  # uint8 [60, 90, 3]


@pytest.fixture
def prediction(segmenter, picture):
    return segmenter.predict(picture, CLASSES)


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


def test_the_classes_are_called_by_their_first_names(prediction):
    assert prediction.classes == ("car", "cup", "road")


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


# How to look at it.


def made(labels, classes=("a", "b", "c")):
    """A prediction with these labels, over a picture in a middle grey."""
    labels = np.array(labels, np.int64)
    return Prediction(np.full((*labels.shape, 3), 100, np.uint8), labels, classes)


def test_shares_are_what_the_labels_cover():
    assert made([[0, 0, 2], [0, 2, 0]]).shares() == {"a": 4 / 6, "b": 0, "c": 2 / 6}


def test_shares_of_a_prediction_sum_to_one(prediction):
    assert sum(prediction.shares().values()) == pytest.approx(1)
    assert list(prediction.shares()) == ["car", "cup", "road"]


def test_an_overlay_mixes_the_picture_with_the_colour_of_each_class():
    prediction = made([[0, 1], [2, 2]])
    image = prediction.overlay(0.25)
    assert (image.mode, image.size) == ("RGB", (2, 2))
    expected = 0.75 * 100 + 0.25 * prediction.colours[[[0, 1], [2, 2]]]
    assert np.array_equal(np.asarray(image), np.round(expected))


def test_an_overlay_ranges_from_the_picture_to_the_colours(prediction):
    assert np.array_equal(np.asarray(prediction.overlay(0)), prediction.picture)
    colours = prediction.colours[prediction.labels]
    assert np.array_equal(np.asarray(prediction.overlay(1)), colours)
    default = np.asarray(prediction.overlay(0.55))
    assert np.array_equal(np.asarray(prediction.overlay()), default)
    by_hand = overlay(prediction.picture, prediction.labels, prediction.colours)
    assert np.array_equal(by_hand, default)


@pytest.mark.parametrize("opacity", [-0.01, 1.01, float("nan")])
def test_an_opacity_out_of_range_is_refused(prediction, opacity):
    with pytest.raises(ValueError, match=r"opacity must be in \[0, 1\], got"):
        prediction.overlay(opacity)


def test_a_notebook_shows_the_overlay(prediction):
    png = prediction._repr_png_()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(io.BytesIO(png)) as image:
        assert np.array_equal(np.asarray(image), np.asarray(prediction.overlay()))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 60, 171])
def test_a_palette_has_a_colour_for_every_class_and_none_twice(n):
    colours = palette(n)
    assert (colours.shape, colours.dtype) == ((n, 3), np.uint8)
    assert len(np.unique(colours, axis=0)) == n


def test_the_first_colours_can_be_told_apart_by_colour_blind_readers():
    named = ["#" + bytes(colour.tolist()).hex().upper() for colour in palette(20)[:7]]
    assert tuple(named) == OKABE_ITO
    assert np.array_equal(palette(3), palette(20)[:3])


def test_later_colours_are_even_hues_light_and_dark_in_turn():
    light, dark = 0.7, 0.4
    hues = [(i / 20, dark if i % 2 else light) for i in range(20)]
    expected = [colorsys.hls_to_rgb(hue, lightness, 0.65) for hue, lightness in hues]
    assert np.array_equal(palette(27)[7:], np.round(255 * np.array(expected)))


def test_a_prediction_cannot_be_changed_and_equals_itself_alone(prediction):
    with pytest.raises(FrozenInstanceError):
        prediction.labels = prediction.labels + 1
    again = made([[0, 1]])
    assert again == again
    assert again != made([[0, 1]])
    assert len({prediction, again}) == 2


# How to save it.


def test_a_label_map_is_saved_as_a_palette_image_with_its_summary(prediction, tmp_path):
    written = prediction.save(tmp_path, "scene")
    assert written == [tmp_path / "scene_labels.png", tmp_path / "scene.json"]
    assert sorted(tmp_path.iterdir()) == sorted(written)
    with Image.open(written[0]) as image:
        assert (image.mode, image.format, image.size) == ("P", "PNG", (90, 60))
        assert np.array_equal(np.asarray(image), prediction.labels)
        assert image.getpalette()[:9] == prediction.colours.flatten().tolist()
    summary = json.loads(written[1].read_text(encoding="utf-8"))
    assert (summary["height"], summary["width"]) == (60, 90)
    assert [row["name"] for row in summary["classes"]] == ["car", "cup", "road"]
    for label, row in enumerate(summary["classes"]):
        assert row["label"] == label
        assert row["colour"] == prediction.colours[label].tolist()
        assert row["share"] == round(float((prediction.labels == label).mean()), 6)


def test_the_overlay_is_saved_on_request(prediction, tmp_path):
    written = prediction.save(str(tmp_path), "scene", with_overlay=True)
    assert written[2] == tmp_path / "scene_overlay.png"
    assert sorted(tmp_path.iterdir()) == sorted(written)
    with Image.open(written[2]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(prediction.overlay()))


def test_names_in_any_script_are_saved(tmp_path):
    made([[0, 1]], ("狗", "chaton | été")).save(tmp_path, "scene")
    summary = json.loads((tmp_path / "scene.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in summary["classes"]] == ["狗", "chaton | été"]


def test_256_classes_fit_into_a_palette_and_257_are_refused_before_anything_is_written(tmp_path):
    names = tuple(f"class {i}" for i in range(257))
    with pytest.raises(ValueError, match="classes must be at most 256 for a palette PNG, got 257"):
        made([[0, 256]], names).save(tmp_path, "scene")
    assert not list(tmp_path.iterdir())
    made([[0, 255]], names[:256]).save(tmp_path, "scene")
    with Image.open(tmp_path / "scene_labels.png") as image:
        assert np.asarray(image).tolist() == [[0, 255]]


def test_a_disk_that_fails_leaves_nothing_half_written(prediction, tmp_path, monkeypatch):
    def fail(self, target, **options):
        target.write_bytes(b"half a picture")
        raise OSError("disk is full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk is full"):
        prediction.save(tmp_path, "scene", with_overlay=True)
    assert not list(tmp_path.iterdir())


def test_a_failure_on_the_way_leaves_whole_files_and_older_ones_alone(
    prediction, tmp_path, monkeypatch
):
    (tmp_path / "scene.json").write_text("older")
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prediction.save(tmp_path, "scene", with_overlay=True)
    assert {path.name for path in tmp_path.iterdir()} == {"scene.json", "scene_labels.png"}
    assert (tmp_path / "scene.json").read_text() == "older"
    with Image.open(tmp_path / "scene_labels.png") as image:
        assert np.array_equal(np.asarray(image), prediction.labels)


def test_a_folder_that_does_not_exist_is_made(prediction, tmp_path):
    written = prediction.save(tmp_path / "deep" / "out", "scene")
    assert all(path.is_file() for path in written)
    prediction.save(tmp_path / "deep" / "out", "another")


def test_a_folder_that_cannot_be_made_is_an_error(prediction, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        prediction.save(tmp_path / "file", "scene")
