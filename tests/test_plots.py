"""Stored tables: a run that measures the same within the tolerance rewrites nothing."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scclip_lab.plots import error_bars, name_colours, reduce_colours, save_table

TABLE = pd.DataFrame(
    {
        "image": ["2007_000033", "2007_000042"],
        "value": [0.2695042, 0.8],
        "milliseconds": [140.0, np.nan],
        "pixels": [100_000, 7],
    }
)


@pytest.fixture
def stored(tmp_path):
    assert save_table(TABLE, "table", tmp_path / "new") is True
    return tmp_path / "new" / "table.csv"


def save_again(table: pd.DataFrame, path) -> bool:
    """Whether saving a table rewrites a file: its bytes and the returned value say the same."""
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    written = save_table(table, path.stem, path.parent)
    assert written == (path.stat().st_mtime_ns != time)
    assert written or path.read_bytes() == before
    return written


def test_a_table_has_six_digits_and_no_index(stored):
    assert stored.read_bytes() == (
        b"image,value,milliseconds,pixels\n2007_000033,0.269504,140,100000\n2007_000042,0.8,,7\n"
    )


def test_the_same_table_is_not_written_again(stored):
    assert not save_again(TABLE, stored)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("value", [0.2695042 + 4e-4, 0.8 - 4e-4]),
        ("value", [0.2695042, 0.8 + 1.2e-3]),
        ("milliseconds", [140.1, np.nan]),
    ],
)
def test_numbers_within_the_tolerance_leave_the_bytes_alone(stored, column, values):
    assert not save_again(TABLE.assign(**{column: values}), stored)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("value", [0.2695042 + 1e-3, 0.8]),
        ("milliseconds", [140.2, np.nan]),
        ("milliseconds", [140.0, 0.0]),
        ("milliseconds", [np.nan, np.nan]),
        # Whole numbers are counts, seeds and labels: each of them must be the same.
        ("pixels", [100_001, 7]),
        # As a number, this name would be within the tolerance.
        ("image", ["2007_000034", "2007_000042"]),
        ("value", ["a lot", "0.8"]),
    ],
)
def test_anything_else_is_written(stored, column, values):
    changed = TABLE.assign(**{column: values})
    assert save_again(changed, stored)
    pd.testing.assert_frame_equal(pd.read_csv(stored), changed, check_dtype=False, rtol=1e-5)


def test_other_columns_and_rows_are_written(stored):
    assert save_again(TABLE.rename(columns={"value": "mIoU"}), stored)
    assert save_again(TABLE[["value", "image", "milliseconds", "pixels"]], stored)
    assert save_again(TABLE.iloc[:1], stored)
    assert save_again(TABLE.iloc[::-1], stored)
    assert save_again(TABLE.iloc[:0], stored)
    assert not save_again(TABLE.iloc[:0], stored)


def test_small_steps_do_not_add_up(stored):
    # Each run is compared with the stored numbers, so that these cannot drift away.
    tables = [TABLE.assign(value=TABLE["value"] + step * 4e-4) for step in (1, 2, 3)]
    assert [save_again(table, stored) for table in tables] == [False, True, False]


def test_error_bars_are_distances_from_the_value():
    rows = pd.DataFrame({"value": [2.0, 3.0], "low": [1.5, 3.0], "high": [4.0, 3.5]})
    assert error_bars(rows).tolist() == [[0.5, 0.0], [2.0, 0.5]]


def test_true_classes_get_their_colours_first_and_seven_at_most():
    words = [f"word {i}" for i in range(12)]
    truth = np.array([[3, 3], [255, 11]])
    guess = np.arange(12).repeat(np.arange(1, 13))
    colours, handles = name_colours(truth, [truth, guess], words)
    labels = [handle.get_label() for handle in handles]
    assert labels[:3] == ["word 3", "word 11", "word 10 (wrong)"]
    assert len(labels) == 8 and labels[-1] == "other words (wrong)"
    assert colours[255].tolist() == [255, 255, 255]
    assert colours[0].tolist() == colours[1].tolist() == [150, 150, 150]
    assert len(np.unique(colours[[3, *range(6, 12)]], axis=0)) == 7


def test_colours_of_small_areas_and_white_stay_when_a_picture_is_reduced():
    pixels = np.full((300, 400, 3), 255, np.uint8)
    grey = np.linspace(0, 255, 300).astype(np.uint8)
    pixels[:, :300] = np.stack([grey, grey[::-1], np.roll(grey, 90)], -1)  # a wide gradient
    pixels[:, :300, 2] += np.arange(300, dtype=np.uint8)[:, None]
    pixels[140:155, 340:355] = (247, 99, 149)
    reduced = np.asarray(reduce_colours(Image.fromarray(pixels)).convert("RGB"))
    apart = np.abs(reduced.astype(int) - pixels).max(-1)
    assert apart[:, 300:].max() <= 24 and apart.max() <= 64
    assert (reduced[:100, 320:] == 255).all()
    few = Image.fromarray(pixels[::60, 320:])
    assert np.array_equal(np.asarray(reduce_colours(few).convert("RGB")), np.asarray(few))
