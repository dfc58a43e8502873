"""Slides, lesson plans and cheat sheet: whole, true, and made from what is stored."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from scclip_core.config import SCCLIPConfig
from scclip_lab.studies import FIGURES, METHOD_NAMES, ROOT
from scclip_lab.teaching import cheat_sheet
from scclip_lab.teaching.cheat_sheet_text import MEASURES, STAGES, SYMBOLS, WORDS

SITE = ROOT / "site"
LECTURES = sorted((SITE / "slides").glob("lecture*.md"))
PAGES = sorted((SITE / "pages").glob("teaching*.md")) + sorted(
    (SITE / "pages" / "teaching").glob("*.md")
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Numbers with a point that may be typed: claims of the article, and its hyper-parameters.
TYPED = {"52.1", "68.3", "64.7", "14.8", "12.6", "1.2", "0.4", "0.05", "0.5"}


@pytest.fixture
def slides(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SITE))
    import slides

    return slides


@pytest.fixture
def facts(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SITE))
    import facts

    return facts


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


@pytest.mark.parametrize("language", WORDS)
def test_all_text_of_the_cheat_sheet_is_on_the_page(language):
    if language == "zh" and cheat_sheet.chinese_font() is None:
        pytest.skip("no font with Chinese characters")
    with cheat_sheet.style(language):
        drawn = cheat_sheet.draw_cheat_sheet(language)
        drawn.draw_without_rendering()
    page = drawn.bbox
    for text in drawn.axes[0].texts:
        box = text.get_window_extent()
        assert page.x0 < box.x0 and box.x1 < page.x1 - 20 and page.y0 < box.y0, text.get_text()
    cheat_sheet.plt.close(drawn)
    assert len(SYMBOLS[language]) == 7 and len(MEASURES[language]) == 5


def test_there_is_no_chinese_sheet_without_a_font(monkeypatch, tmp_path):
    monkeypatch.setattr(cheat_sheet, "chinese_font", lambda: None)
    assert cheat_sheet.save_cheat_sheet(tmp_path, "zh") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [*LECTURES, *PAGES], ids=lambda path: path.name)
def test_no_measured_number_is_typed(path, facts):
    text = facts.MARK.sub("", path.read_text(encoding="utf-8"))
    text = re.sub(r"arXiv \d+\.\d+", "", text)
    assert set(re.findall(r"\d+\.\d+", text)) <= TYPED


def test_facts_are_read_from_the_stored_tables(facts):
    assert facts.fill("a {{ config beta }} b") == "a 0.4 b"
    with (FIGURES / "evaluate_mini.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "objects right"]
    (row,) = [
        row
        for row in rows
        if (row["method"], row["styles"], row["objects"]) == ("scclip", "held-out", "all")
    ]
    told = facts.fill("{{ score scclip objects_right held-out }}")
    assert told.startswith(f"{100 * float(row['value']):.1f} [")
    assert "| +12.6 |" in facts.fill("{{ modules }}")
    assert facts.fill("{{ signs }}").count("\n") == 2
    with pytest.raises(ValueError, match=r"a fact must be of caption, .* got 'guess'"):
        facts.fill("{{ guess 1 }}")


def test_captions_are_told_in_chinese_on_chinese_pages(facts):
    assert facts.fill("{{ caption 03_kept }}", "zh").startswith("beta = 0.4 在第 3 层保留")
    for name in facts.captions.CAPTIONS:
        if (FIGURES / f"{name}.csv").is_file():
            told = facts.caption("zh", name)
            for method in (*METHOD_NAMES.values(), "class token"):
                told = told.replace(method, "")
            # What stays in Latin letters are names, never parts of a sentence.
            assert not re.search(r"[a-z]{3,} [a-z]{3,}", told), told
    with pytest.raises(ValueError, match=r"labels\.zh\.csv has no translation of 'Not there'"):
        facts.told_in("zh", "Not there")


def test_a_slide_has_settings_text_and_notes(slides):
    first, second = slides.parse("layout: side\nstage: 3\n\n## A\ntext\n\n???\nsaid\n---\n## B")
    assert (first.layout, first.stage, first.text, first.notes) == ("side", 3, "## A\ntext", "said")
    assert second == slides.Slide("## B")
    with pytest.raises(ValueError, match=r"layout must be of plain, .* got 'odd'"):
        slides.parse("layout: odd\n\n## A")
    with pytest.raises(ValueError, match=r"stage must be in 1..8, got '9'"):
        slides.parse("stage: 9\n\n## A")


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.name)
def test_the_lecture_takes_ninety_minutes_and_has_every_stage_in_order(path, slides):
    found = slides.parse(path.read_text(encoding="utf-8"))
    minutes = [int(re.search(r"\*\*(\d+) (?:minute|分钟)", slide.notes)[1]) for slide in found]
    assert 80 <= sum(minutes) <= 90
    stages = [slide.stage for slide in found if slide.stage]
    assert stages == sorted(stages) and set(stages) == set(range(2, 9))
    assert all(slide.text.startswith("#") for slide in found)


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.name)
def test_the_plan_of_the_lecture_is_that_of_the_slides(path, slides):
    found = slides.parse(path.read_text(encoding="utf-8"))
    minutes = [int(re.search(r"\*\*(\d+) (?:minute|分钟)", slide.notes)[1]) for slide in found]
    plan = (SITE / "pages/teaching" / path.name).read_text(encoding="utf-8")
    to, comma = "(?:to|至)", "(?:, |、)"
    row = rf"^\| (\d+) {to} (\d+) \| (\d+)(?:(?: {to} |{comma})(\d+))? \|"
    rows = re.findall(row, plan, re.MULTILINE)
    assert len(rows) == 12
    for _, end, first, last in rows[:-1]:
        assert sum(minutes[: int(last or first)]) == int(end)
    assert (rows[-1][1], int(rows[-1][2])) == ("90", len(found))
    # Both the time that all slides take, and what is left of it in the shorter lecture.
    assert re.search(rf"\b{sum(minutes)} (?:minutes|分钟)", plan)
    short = re.search(r"(?:leave out slides|略去幻灯片) (3[\d、, and和]*)", plan)[1]
    left = sum(minutes) - sum(minutes[int(slide) - 1] for slide in re.findall(r"\d+", short))
    assert left <= 60 and re.search(rf"\s{left} (?:minutes|分钟)", plan)


@pytest.mark.parametrize("language", ["", ".zh"])
def test_the_plan_of_the_week_shows_every_slide_and_tells_the_time_of_its_chapters(language):
    plan = (SITE / f"pages/teaching/week{language}.md").read_text(encoding="utf-8")
    chapters, minutes, slides = (
        [cell.strip() for cell in found.split("|")[1:-1]]
        for found in re.findall(
            r"^\| (?:chapters|章|minutes of|整章|slides|幻灯片)(.*)$", plan, re.MULTILINE
        )
    )
    for cell, told in zip(chapters, minutes, strict=True):
        times = []
        for stem in re.findall(r"/notebooks/(\w+)", cell):
            text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8")
            times.append(int(re.search(r"\*\*Time:\*\* about (\d+) minutes", text)[1]))
        assert sum(times) == int(told), cell
    # Slides that a session names, against those that the table gives to it.
    sessions = re.split(r"^## ", plan, flags=re.MULTILINE)[1:]
    for session, given in zip(sessions, slides, strict=True):
        first, last = map(int, re.findall(r"\d+", given))
        named = set()
        span = r"(?:[Ss]lides?|幻灯片) (\d+)(?: (to|and|至|和) (\d+))?"
        for start, _, end in re.findall(span, session):
            named |= set(range(int(start), int(end or start) + 1))
        assert named == set(range(first, last + 1)), session


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """The slides as the site has them, with the files of MathJax."""
    folder = tmp_path_factory.mktemp("lecture")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SITE))
        import slides

        for language in slides.PAGES:
            slides.build_slides(language, folder)
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    mathjax = Path(spec.origin).parent / "static" / "mathjax"
    shutil.copytree(mathjax, folder / "_static" / "mathjax")
    shutil.copy(SITE / "static" / "icon.svg", folder / "_static")
    return folder


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.name)
def test_the_page_of_the_slides_is_whole_and_loads_nothing_from_elsewhere(path, pages, slides):
    language = "zh" if ".zh" in path.name else "en"
    page = pages / slides.PAGES[language]
    text = page.read_text(encoding="utf-8")
    assert "{{" not in re.sub(r"<script>.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    for address in re.findall(r'src="([^"]+)"', text):
        assert "://" not in address and (page.parent / address).is_file(), address
    assert not re.search(r"url\(|@import", text)
    assert '<img alt=""' not in text and text.count("<img") == text.count(' alt="')
    assert text.count("<section") == text.count('<aside class="notes"><p>')


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.name)
def test_every_slide_fits_and_the_browser_asks_nobody(path, pages, slides, tmp_path):
    language = "zh" if ".zh" in path.name else "en"
    log = tmp_path / "network.json"
    flags = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
        --disable-background-networking --disable-component-update --enable-logging=stderr
        --virtual-time-budget=8000 --window-size=1280,754 --dump-dom"""
    done = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--log-net-log={log}",
            (pages / slides.PAGES[language]).as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'data-ready="true"' in done.stdout
    assert re.findall(r'<section id="(\d+)"[^>]*data-overflow', done.stdout) == []
    assert "<mjx-container" in done.stdout and "<mjx-merror" not in done.stdout
    assert re.findall(r':CONSOLE:\d+\] "(.*)', done.stderr) == []
    events = (event.get("params") for event in json.loads(log.read_text())["events"])
    asked = [event for event in events if isinstance(event, dict) and "initiator" in event]
    assert [e["url"] for e in asked if e["initiator"] != "not an origin"] == []
