"""Figures: drawn again from their tables alone, captions that follow the numbers, label maps."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from scclip_lab import studies
from scclip_lab.plots import GREY, save_table
from scclip_lab.studies import captions, main_figures
from scclip_lab.studies.drawing import (
    label_rows,
    legend_handles,
    map_rows,
    paint_labels,
    read_labels,
    read_maps,
    word_colours,
)

# A column of chapter 7.
SAVED = "saved (% of vanilla)"


def test_maps_survive_the_table():
    maps = {"a": torch.rand(3, 5), "b": torch.rand(3, 5)}
    read = read_maps(map_rows(maps))
    assert list(read) == ["a", "b"]
    assert all(np.allclose(read[name], maps[name]) for name in maps)


def test_every_figure_is_drawn_again_from_its_numbers_alone(tmp_path):
    studies.redraw_all(tmp_path)  # imports all chapters, draws nothing from an empty folder
    for name in ("02_plane", "03_kept", "05_modules"):
        save_table(studies.load_table(name), name, tmp_path)
        studies.redraw(name, tmp_path)
        drawn, kept = (Image.open(f / f"{name}.png") for f in (tmp_path, studies.FIGURES))
        assert drawn.size == kept.size


@pytest.mark.parametrize("name", captions.CAPTIONS)
def test_a_caption_is_a_sentence_that_follows_the_numbers(name, tmp_path):
    studies.redraw_all(tmp_path)  # imports all chapters, draws nothing from an empty folder
    table = studies.load_table(name)
    text = captions.CAPTIONS[name](table)
    assert name in studies.DRAW_FUNCTIONS and text.endswith(".") and re.search(r"\d", text)
    if name == "08_ledger":
        table = table.iloc[1:]
    else:
        numbers = [
            c
            for c in (
                "value",
                "gain",
                "change",
                "ratio",
                "share",
                "milliseconds",
                "spearman",
                "MiB",
                SAVED,
            )
            if c in table
        ]
        table[numbers] = table[numbers] * np.linspace(1.5, 3, len(table))[:, None]
    assert captions.CAPTIONS[name](table) != text


def test_a_caption_stands_under_its_figure(tmp_path):
    save_table(studies.load_table("05_winner"), "05_winner", tmp_path)
    drawn = studies.redraw("05_winner", tmp_path)
    (caption,) = drawn.texts
    assert caption.get_text().replace("\n", " ") == captions.chosen_settings(
        studies.load_table("05_winner")
    )
    label = drawn.axes[0].xaxis.label.get_window_extent()
    assert caption.get_window_extent().y1 <= label.y0


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of .*02_plane.* got '99_none'"):
        studies.redraw("99_none", tmp_path)


def test_label_maps_survive_the_table():
    labels = torch.randint(0, 56, (5, 7)).repeat_interleave(4, 0).repeat_interleave(4, 1)
    lines = pd.DataFrame(label_rows(labels), columns=["line", "labels"])["labels"]
    assert np.array_equal(read_labels(lines), labels)


def test_a_word_has_one_colour_in_all_scenes_and_no_other_word_has_it():
    truths = [np.array([[0, 1, 50]]), np.array([[1, 2, 51]]), np.array([[3, 50, 50]])]
    colours = word_colours(truths, 56, first_background=48)
    shown = [0, 1, 2, 3, 50, 51]
    assert len({tuple(colour) for colour in colours[shown].tolist()}) == len(shown)
    others = np.delete(colours, shown, axis=0)
    assert (others == GREY).all() and not (colours[shown] == GREY).all(1).any()


def test_a_background_is_softer_than_an_object():
    truths = [np.array([[i, 48 + i]]) for i in range(8)]
    colours = word_colours(truths, 56, first_background=48).astype(int)
    saturation = colours.max(1) - colours.min(1)
    assert saturation[48:].max() < saturation[:8].min()


def test_wrong_labels_are_hatched_and_words_that_are_not_there_grey():
    truth = np.zeros((32, 32), int)
    truth[:, 16:] = 1
    colours = np.array([[200, 0, 0], [0, 0, 200], [0, 200, 0]], np.uint8)
    assert (paint_labels(truth, truth, colours) == colours[truth]).all()
    swapped = paint_labels(1 - truth, truth, colours)
    blue = {tuple(colour) for colour in swapped[:, :16].reshape(-1, 3).tolist()}
    assert len(blue) == 2 and all(b > max(r, g) for r, g, b in blue)
    assert tuple(colours[1].tolist()) not in blue
    absent = paint_labels(np.full_like(truth, 2), truth, colours).reshape(-1, 3)
    assert len(np.unique(absent, axis=0)) == 2 and (absent == absent[:, :1]).all()


def test_a_legend_names_the_true_words_and_the_most_frequent_absent_one():
    truth = np.array([[0, 0, 1, 1]])
    maps = [np.array([[0, 1, 2, 3]]), np.array([[3, 0, 1, 1]])]
    colours = word_colours([truth], 4, first_background=1)
    handles = legend_handles(truth, maps, colours, ["cat", "sky", "dog", "pig"])
    labels = [handle.get_label() for handle in handles]
    assert labels == ["cat", "sky", "not in the scene,\nmostly “pig”"]
    assert len(legend_handles(truth, [truth], colours, ["cat", "sky", "dog", "pig"])) == 2


def test_the_gallery_shows_scenes_by_their_number_and_all_methods(mini):
    drawn, table = main_figures.gallery(mini, per_style=1)
    assert list(table["method"]) == list(main_figures.METHODS) * 2
    assert set(table["scene"]) == {0}
    for _, row in table.iterrows():
        objects, background = row["objects right"], row["background right"]
        low, high = sorted((objects, background))
        assert low - 1e-9 <= row["pixel accuracy"] <= high + 1e-9
    titles = [axis.get_title() for axis in drawn.axes if axis.get_title()]
    names = [studies.METHOD_NAMES[name] for name in main_figures.METHODS]
    assert titles == ["picture", "truth", *names]
    captions_shown = [axis.get_xlabel() for axis in drawn.axes if axis.get_xlabel()]
    assert len(captions_shown) == 8
    assert all(re.search(r"mIoU .*\nobjects .*\nbackground", text) for text in captions_shown)
    plt.close(drawn)
