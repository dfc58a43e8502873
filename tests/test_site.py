"""The website: whole, readable by everybody, and complete without a network."""

import ast
import json
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import scclip_core
from tests.site_pages import (
    CHAPTERS,
    CHAPTERS_IN,
    CHROMIUM,
    CORE,
    EVERY_CHAPTER,
    ROOT,
    SITE,
    Site,
    is_elsewhere,
)


@pytest.fixture(scope="session")
def site(request, tmp_path_factory):
    """The site, built once, also where several processes share the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base
    folder, report = base / "site", base / "site.txt"
    try:
        folder.mkdir()
    except FileExistsError:
        for _ in range(1800):
            if report.is_file():
                break
            time.sleep(0.5)
    else:
        command = [sys.executable, str(SITE / "build.py"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=base)
        partial = base / "site.partial"
        partial.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
        partial.rename(report)
    told = report.read_text(encoding="utf-8")
    # Sphinx runs with -W: a warning is an error.
    assert told.splitlines()[0] == "0", told
    assert "warning" not in told.lower(), told
    return Site(folder)


def test_the_entrance_leads_to_the_english_pages(site):
    entrance = site.pages["index.html"]
    assert entrance.links == ["en/index.html"]
    assert 'content="0; url=en/index.html"' in entrance.text


def test_only_finished_languages_are_left_behind(site):
    folders = {path.name for path in site.folder.iterdir()}
    assert folders == {"index.html", "en", "zh"}


def test_every_link_leads_to_a_page_and_a_place_that_exist(site):
    broken = []
    for name, page in site.pages.items():
        for address in page.links:
            if is_elsewhere(address) or address in ("", "#"):
                continue
            target = site.target_of(page, address)
            place = unquote(urlsplit(address).fragment)
            missing = not (site.folder / target).is_file()
            if missing or (place and target in site.pages and place not in site.pages[target].ids):
                broken.append(f"{name}: {address}")
    assert broken == []


def test_everything_that_a_page_loads_is_part_of_the_site(site):
    broken = []
    for name, page in site.pages.items():
        for address in page.loaded:
            if address.startswith("data:"):
                continue
            elsewhere = is_elsewhere(address)
            if elsewhere or not (site.folder / site.target_of(page, address)).is_file():
                broken.append(f"{name}: {address}")
    assert broken == []


def test_style_sheets_load_nothing_from_elsewhere(site):
    sheets = [path for path in site.folder.rglob("*.css")]
    assert sheets
    for path in sheets:
        found = re.findall(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")]+)", path.read_text())
        assert found == [], path


def test_every_picture_is_told_in_words(site):
    pictures = [(name, given) for name, page in site.pages.items() for given in page.pictures]
    assert len(pictures) > len(CHAPTERS)
    assert [(name, given) for name, given in pictures if not given.get("alt", "").strip()] == []


def test_a_figure_of_a_chapter_is_told_by_what_it_shows_not_by_its_file(site):
    for language, stem in EVERY_CHAPTER:
        words = [given["alt"] for given in site.pages[f"{language}/notebooks/{stem}.html"].pictures]
        assert len(set(words)) == len(words), stem
        assert not [text for text in words if re.search(r"\.png|_images", text)], stem


def test_pictures_of_chinese_pages_are_told_in_chinese(site):
    pages = {name: page for name, page in site.pages.items() if name.startswith("zh/")}
    told = [(name, given["alt"]) for name, page in pages.items() for given in page.pictures]
    assert len(told) > len(CHAPTERS_IN["zh"])
    assert [(name, text) for name, text in told if not re.search("[\u4e00-\u9fff]", text)] == []


@pytest.mark.parametrize("module", CORE)
def test_every_public_name_of_a_module_is_on_its_page(site, module):
    source = ast.parse((ROOT / "scclip_core" / f"{module}.py").read_text(encoding="utf-8"))
    defined = [node for node in source.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    ids = site.pages[f"en/api/core/{module}.html"].ids
    for node in defined:
        if node.name[0] != "_":
            assert f"scclip_core.{module}.{node.name}" in ids


def test_every_public_name_of_the_core_is_on_a_page_and_linked_from_the_reference(site):
    reference = site.pages["en/api.html"]
    for name in scclip_core.__all__:
        place = f"scclip_core.{scclip_core._MODULES[name]}.{name}"
        page = f"en/api/core/{scclip_core._MODULES[name]}.html"
        assert place in site.pages[page].ids
        assert f"{page.removeprefix('en/')}#{place}" in reference.links


def test_every_package_of_the_lab_has_a_page_with_its_modules(site):
    lab = ROOT / "scclip_lab"
    for path in lab.rglob("*.py"):
        # Solutions of exercises are not part of the reference.
        if path.stem[0] == "_" or path.parent.name == "solutions":
            continue
        package = path.parent.name if path.parent != lab else "scclip_lab"
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert f"module-{module}" in site.pages[f"en/api/lab/{package}.html"].ids


def test_docstrings_reach_the_pages_whole(site):
    page = site.pages["en/api/core/anomaly.html"].text
    assert "problematic" not in page and "system-message" not in page
    assert "lrd(i) = 1 / mean over j in N_k(i) of reach(i, j)\n" in page
    assert "|x_i - x_j|^2 = |x_i|^2 + |x_j|^2" in page


@pytest.mark.parametrize(("language", "stem"), EVERY_CHAPTER)
def test_a_chapter_is_the_stored_one_with_its_answers_folded(site, language, stem):
    page = site.pages[f"{language}/notebooks/{stem}.html"]
    stored = (ROOT / "notebooks" / f"{stem}.ipynb").read_bytes()
    assert (site.folder / language / "_sources/notebooks" / f"{stem}.ipynb").read_bytes() == stored
    cells = json.loads(stored)["cells"]
    answers = [cell for cell in cells if "answer" in cell["metadata"].get("tags", [])]
    folded = "\n".join(page.folded)
    for cell in answers:
        assert "".join(cell["source"]).splitlines()[-1].strip() in folded
    for cell in cells:
        if cell["cell_type"] == "code" and cell not in answers and cell["source"]:
            assert "".join(cell["source"]).splitlines()[0].strip() not in folded


def test_chapters_lead_from_one_to_the_next(site):
    for language, stems in CHAPTERS_IN.items():
        for here, there in pairwise(stems):
            assert f"{there}.html" in site.pages[f"{language}/notebooks/{here}.html"].links
            assert f"{here}.html" in site.pages[f"{language}/notebooks/{there}.html"].links


def test_the_glossary_and_the_bibliography_hold_what_the_chapters_rest_on(site):
    terms = site.pages["en/glossary.html"].ids
    for term in ("patch-token", "class-token", "local-outlier-factor", "content-attention", "mIoU"):
        assert f"term-{term}" in terms
    # Every term is in both languages, so each English one has its place in the Chinese glossary.
    chinese = site.pages["zh/glossary.html"].ids
    assert {place for place in terms if place.startswith("term-")} <= chinese
    links = " ".join(site.pages["en/bibliography.html"].links)
    assert {a for a in site.pages["en/bibliography.html"].links if "arxiv" in a} <= {
        *site.pages["zh/bibliography.html"].links
    }
    for number in ("2411.15869", "2103.00020", "2112.01071", "2312.01597", "2407.12442"):
        assert number in links
    for number in ("2404.08181", "2312.00878", "2010.11929", "2309.16588", "10.1145/342009.335388"):
        assert number in links


def test_mathematics_comes_from_the_site_itself(site):
    assert "_static/mathjax/tex-chtml.js" in " ".join(site.pages["en/glossary.html"].loaded)
    assert list((site.folder / "en/_static/mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))


def test_a_page_leads_to_its_pair_in_another_language_and_only_where_there_is_one(site):
    for name, page in site.pages.items():
        language, _, rest = name.partition("/")
        if rest:
            pair = f"{'zh' if language == 'en' else 'en'}/{rest}"
            here = [address for address in page.links if not is_elsewhere(address)]
            linked = pair in {site.target_of(page, address) for address in here}
            # Pages that Sphinx makes in every language, such as the index, have no such link.
            made = Path(rest).stem in ("genindex", "search", "py-modindex") or "_modules" in rest
            assert linked == (pair in site.pages and not made), name


def test_a_chinese_page_links_to_english_pages_where_there_is_no_chinese_one(site):
    for name, page in site.pages.items():
        if name.startswith("zh/"):
            targets = [site.target_of(page, a) for a in page.links if not is_elsewhere(a)]
            english = {target for target in targets if target.startswith("en/")}
            own = {f"zh/{target.removeprefix('en/')}" for target in english} - {name}
            assert not own & set(site.pages), name
    assert "../en/api/core/config.html" in site.pages["zh/index.html"].links


PAGES = ("index.html", f"notebooks/{CHAPTERS[0]}.html", "glossary.html")
SHOWN = [f"{language}/{page}" for language in CHAPTERS_IN for page in PAGES]
# What is looked for -> a page that is found.
SEARCHES = {
    "en/search.html?q=attention": "api/core/attention.html",
    "zh/search.html?q=局部异常因子": "glossary.html",
}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("address", [*SHOWN, "en/api/core/pipeline.html", *SEARCHES])
def test_a_browser_shows_a_page_without_errors_and_asks_nobody(site, tmp_path, address):
    log = tmp_path / "network.json"
    flags = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
        --disable-background-networking --disable-component-update --enable-logging=stderr
        --virtual-time-budget=5000 --dump-dom"""
    done = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--log-net-log={log}",
            f"{site.folder.as_uri()}/{address}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "</html>" in done.stdout
    # The theme writes notes of its own to the console.
    console = re.findall(r':CONSOLE:\d+\] "(.*)', done.stderr)
    assert [line for line in console if not line.startswith("[PST]: ")] == []
    # Requests of the browser itself have no origin.
    events = (event.get("params") for event in json.loads(log.read_text())["events"])
    asked = [event for event in events if isinstance(event, dict) and "initiator" in event]
    assert [e["url"] for e in asked if e["initiator"] != "not an origin"] == []
    if address.endswith("glossary.html"):
        assert "<mjx-container" in done.stdout and "<mjx-merror" not in done.stdout
    if address in SEARCHES:
        results = done.stdout.partition('id="search-results"')[2]
        assert f'<a href="{SEARCHES[address]}' in results
