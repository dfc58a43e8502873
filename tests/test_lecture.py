"""Slides and lesson plans: whole, true, and made from what is stored."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scclip_core.anomaly import local_outlier_factor
from scclip_lab.studies import FIGURES, METHOD_NAMES, ROOT

SITE = ROOT / "site"
LECTURES = sorted((SITE / "slides").glob("lecture*.md"))
PAGES = sorted((SITE / "pages").glob("teaching*.md")) + sorted(
    (SITE / "pages" / "teaching").glob("*.md")
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Numbers with a point that may be typed: claims of the article, and its hyper-parameters.
TYPED = {"52.1", "68.3", "64.7", "14.8", "12.6", "1.2", "0.4", "0.05", "0.5"}
# Results that are worked out with pencil and paper: the LOF of 0, 1, 2 and 10 on a line, k = 2.
TYPED |= {"0.875", "1.333", "4.958"}


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


def test_the_outlier_factors_that_the_plan_of_the_week_types_are_right():
    points = torch.tensor([[[0.0], [1.0], [2.0], [10.0]]])
    told = ", ".join(f"{score:.3f}" for score in local_outlier_factor(points, 2)[0])
    assert told == "0.875, 1.333, 0.875, 4.958"
    for language in ("", ".zh"):
        plan = (SITE / f"pages/teaching/week{language}.md").read_text(encoding="utf-8")
        assert told in plan.replace("、", ", ")


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


def test_claims_are_told_in_chinese_on_chinese_pages(facts):
    english, chinese = (facts.fill("{{ claims 5.1 }}", language) for language in ("en", "zh"))
    assert chinese.count("\n") == english.count("\n") and english.count("52.1") == 1
    assert "| 原始 CLIP 在 VOC 上的 mIoU 达到 52.1 | 没有真实权重不能检验 |" in chinese
    assert not re.search(r"[a-z]{3,} [a-z]{3,}", chinese), chinese
    with pytest.raises(ValueError, match=r"labels\.zh\.csv has no translation of 'anomaly repair"):
        facts.fill("{{ claims 5.2 }}", "zh")


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
    first = "chapters|章|minutes to read|阅读和运行|minutes for|练习所需|slides|幻灯片"
    chapters, reading, exercises, slides = (
        [cell.strip() for cell in found.split("|")[1:-1]]
        for found in re.findall(rf"^\| (?:{first})(.*)$", plan, re.MULTILINE)
    )
    time = r"\*\*Time:\*\* about (\d+) minutes to read and run[^.]*, and (\d+) for the exercises"
    for cell, *told in zip(chapters, reading, exercises, strict=True):
        times = []
        for stem in re.findall(r"/notebooks/(\w+)", cell):
            text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8")
            times.append([int(minutes) for minutes in re.search(time, text).groups()])
        sums = [sum(minutes) for minutes in zip(*times, strict=True)]
        assert sums == [int(minutes) for minutes in told], cell
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

        slides.facts.catalogue.cache_clear()
        for language in slides.PAGES:
            slides.build_slides(language, folder)
        assert slides.facts.catalogue("zh").missing == set()
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


def test_the_chinese_slides_show_figures_that_are_drawn_in_chinese(pages, slides):
    for language, name in slides.PAGES.items():
        page = (pages / name).read_text(encoding="utf-8")
        shown = re.findall(r'<img src="figures/([^"]+)"', page)
        assert shown and all(name.endswith(".zh.png") == (language == "zh") for name in shown)
    for path in (pages / "teaching" / "figures").glob("*.zh.png"):
        assert path.read_bytes() != (FIGURES / f"{path.stem[:-3]}.png").read_bytes(), path.name


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
