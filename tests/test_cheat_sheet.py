"""The cheat sheet: whole, true, and made from what is stored, in both languages."""

import csv
import re
import warnings
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager

from scclip_core.config import SCCLIPConfig
from scclip_lab.studies import FIGURES, ROOT
from scclip_lab.teaching import cheat_sheet, cheat_sheet_text
from scclip_lab.teaching.cheat_sheet_text import MEASURES, STAGES, SYMBOLS, WORDS


@pytest.fixture
def font(monkeypatch) -> Path:
    """The font that the site brings for Chinese."""
    monkeypatch.syspath_prepend(str(ROOT / "site"))
    import figure_text

    return figure_text.FONT


def test_the_cheat_sheet_is_made_again_byte_by_byte(tmp_path):
    path = cheat_sheet.save_cheat_sheet(tmp_path)
    assert path.read_bytes() == (FIGURES / "cheat_sheet.pdf").read_bytes()
    assert b"CreationDate" not in path.read_bytes()


def test_every_tensor_of_the_cheat_sheet_has_that_name_and_shape_in_a_run():
    with (FIGURES / "trace.csv").open(encoding="utf-8") as file:
        traced = {row["tensor"]: row for row in csv.DictReader(file)}
    sizes = {"B": 1, "3": 3, "H": 224, "W": 224, "L": 197, "N": 196, "C": 192, "D": 128, "Q": 56}
    sizes |= {"rows": 14, "cols": 14}
    for stage in STAGES:
        assert (ROOT / "scclip_core" / stage.module).is_file()
        for name, shape in stage.tensors:
            named = [str(sizes[axis]) for axis in shape.strip("[]").split(", ")]
            assert traced[name]["shape"] == f"[{', '.join(named)}]", name
            assert traced[name]["stage"] == stage.number


def test_the_cheat_sheet_reads_its_numbers_from_the_config(monkeypatch):
    shown = cheat_sheet.defaults()
    assert shown["beta"] == SCCLIPConfig().beta and "repair" not in shown
    for stage in STAGES:
        for text in (*stage.titles.values(), *stage.texts.values()):
            assert not re.search(r"\{\w+\}", cheat_sheet.fill(text))
    monkeypatch.setattr(cheat_sheet, "defaults", lambda: shown | {"multi_end_idx": 8})
    assert cheat_sheet.fill("{multi_start_idx} to {last_summed}") == "3 to 7"


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("language", WORDS)
def test_all_text_of_the_cheat_sheet_is_on_the_page(language, font):
    with cheat_sheet.style(font):
        drawn = cheat_sheet.draw_cheat_sheet(language)
        drawn.draw_without_rendering()
        page = drawn.bbox
        for text in drawn.axes[0].texts:
            box = text.get_window_extent()
            assert page.x0 < box.x0 and box.x1 < page.x1 - 20 and page.y0 < box.y0, text.get_text()
    cheat_sheet.plt.close(drawn)
    assert len(SYMBOLS[language]) == 7 and len(MEASURES[language]) == 5


def test_the_sites_font_has_every_character_of_the_chinese_cheat_sheet(font, tmp_path, caplog):
    text = Path(cheat_sheet_text.__file__).read_text(encoding="utf-8")
    known = set(map(chr, TTFont(font).getBestCmap()))
    assert {c for c in text if ord(c) > 0x2E80} <= known
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a glyph that is missing
        path = cheat_sheet.save_cheat_sheet(tmp_path, "zh", font)
    assert path == tmp_path / "cheat_sheet.zh.pdf" and path.read_bytes()[:5] == b"%PDF-"
    # Nothing is asked of fonts of the system, and the font is forgotten afterwards.
    assert caplog.records == []
    assert str(font) not in {entry.fname for entry in font_manager.fontManager.ttflist}
