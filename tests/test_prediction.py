"""A prediction: classes by their first names, colours to look at, and files that hold it."""

import colorsys
import io
import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from PIL import Image

from scclip_core import Prediction
from scclip_core.prediction import OKABE_ITO, overlay, palette
from tests.conftest import CLASSES


@pytest.fixture
def prediction(segmenter, picture):
    return segmenter.predict(picture, CLASSES)


def test_the_classes_are_called_by_their_first_names(prediction):
    assert prediction.classes == ("car", "cup", "road")


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
