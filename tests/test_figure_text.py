"""Figures in other languages: every text is exchanged, numbers and names stay."""

import csv
import sys
from pathlib import Path

import pytest
from matplotlib import font_manager
from matplotlib import pyplot as plt

SITE = Path(__file__).parents[1] / "site"
sys.path.insert(0, str(SITE))
from figure_text import FONT, Catalogue, texts_in, wrap  # noqa: E402

from scclip_lab.plots import set_theme  # noqa: E402

ENTRIES = {
    "token norm": "词元范数",
    "share of {} patches": "{} 个图块的比例",
    "Best: {}, with {}.": "最佳：{}，为 {}。",
}


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("token norm", "词元范数"),
        ("share of 196 patches", "196 个图块的比例"),
        ("Best: token norm, with 0.75.", "最佳：词元范数，为 0.75。"),
        ("Best: token\nnorm, with 0.75.", "最佳：词元范数，\n为 0.75。"),
        ("token norm\nshare of 3 patches", "词元范数\n3 个图块的比例"),
        ("0.75", "0.75"),
        ("dog", "dog"),
        ("dog 0.46", "dog 0.46"),
        ("share of held-\nout patches", "held-out 个图\n块的比例"),
        ("SC-CLIP", "SC-CLIP"),
        ("$x_i = y$", "$x_i = y$"),
        ("blocks.0.attn  [1, 197, 3]", "blocks.0.attn  [1, 197, 3]"),
    ],
)
def test_texts_are_translated_and_numbers_words_and_names_stay(text, translated):
    catalogue = Catalogue(ENTRIES)
    assert catalogue.translate(text) == translated
    assert catalogue.missing == set()


def test_a_text_without_an_entry_is_noted():
    catalogue = Catalogue(ENTRIES)
    assert catalogue.translate("rare texture") == "rare texture"
    assert catalogue.missing == {"rare texture"}


def test_lines_are_broken_at_a_width_and_latin_words_stay_whole():
    assert wrap("平均 ROC AUC 为一", 8) == "平均 ROC\nAUC 为一"
    assert wrap("一二，三", 4) == "一二，\n三"
    assert wrap("一二“三四”", 6) == "一二\n“三四”"


def test_titles_ticks_and_legends_of_a_figure_are_translated_and_fonts_are_restored():
    with texts_in(Catalogue(ENTRIES)):
        set_theme()
        figure, axis = plt.subplots()
        axis.bar(["token norm"], [1], label="share of 3 patches")
        legend = axis.legend()
        figure.draw_without_rendering()
        assert [label.get_text() for label in axis.get_xticklabels()] == ["词元范数"]
        assert legend.texts[0].get_text() == "3 个图块的比例"
    assert axis.set_title("token norm").get_text() == "token norm"
    assert not [font for font in font_manager.fontManager.ttflist if font.fname == str(FONT)]
    plt.close(figure)


@pytest.mark.parametrize("path", sorted(SITE.glob("labels.*.csv")), ids=lambda path: path.name)
def test_the_font_has_every_character_of_the_translations(path):
    from fontTools.ttLib import TTFont

    known = set(map(chr, TTFont(FONT).getBestCmap()))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {c for row in rows for c in row["translation"] if ord(c) > 0x2E80} <= known
    assert len({row["text"] for row in rows}) == len(rows)
    for row in rows:
        assert row["text"].count("{}") == row["translation"].count("{}"), row["text"]
