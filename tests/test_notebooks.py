"""The chapters: stored whole, fresh, and running in fast mode."""

import json
import re

import nbformat
import pytest

from scclip_core import notebooks
from scclip_core.studies import DRAWN, FIGURES

CHAPTERS = notebooks.chapters()
STEMS = [path.stem for path in CHAPTERS]


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_there_are_nine_chapters_in_the_order_of_their_numbers():
    assert [int(stem[:2]) for stem in STEMS] == list(range(1, 10))


def test_every_chapter_runs_in_fast_mode(monkeypatch):
    monkeypatch.setenv("SCCLIP_FAST", "1")
    before = {path: path.read_bytes() for path in [*CHAPTERS, *FIGURES.glob("*")]}
    assert notebooks.run(CHAPTERS, write=False, jobs=2) == []
    assert {path: path.read_bytes() for path in [*CHAPTERS, *FIGURES.glob("*")]} == before


def test_a_cell_that_fails_is_reported_by_name_and_nothing_is_stored(tmp_path):
    path = tmp_path / "01_broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    (told,) = notebooks.run([path], write=True, jobs=1)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told)  # without a terminal's colours
    assert plain == "01_broken.ipynb: ZeroDivisionError: division by zero"
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_a_chapter_is_stored_executed_without_errors_and_small(path):
    assert path.stat().st_size < 3e6
    for cell in cells(path, "code"):
        assert cell.outputs or cell.execution_count or "widget" in cell.metadata.tags
        assert not [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    told = json.dumps([cell.get("outputs", []) for cell in cells(path, "code")])
    assert not re.search(r"/(home|root|tmp|work|Users)/", told)


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_a_cell_holds_no_algorithm(path):
    for cell in cells(path, "code"):
        if "answer" not in cell.metadata.get("tags", []):
            assert len([line for line in cell.source.splitlines() if line.strip()]) <= 12, cell.source
            assert not re.search(r"^(def|class|for|while) ", cell.source, re.MULTILINE), cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_a_chapter_says_what_it_answers_claims_apart_and_ends_with_checked_exercises(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert "**This chapter answers:**" in text
    assert "What this model is." in text
    assert len(re.findall(r"^\d\. ", text.split("## Exercises")[1], re.MULTILINE)) == 3
    last = cells(path, "code")[-1]
    assert last.metadata.tags == ["answer"] and last.metadata.jupyter.source_hidden
    assert last.source.count("assert") + last.source.count("pytest.raises") >= 2


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_every_figure_of_a_chapter_is_stored_with_its_numbers(path):
    kept = re.findall(r'keep\(\s*"(\w+)"', "\n".join(cell.source for cell in cells(path, "code")))
    assert kept or path.stem in ("07_timing", "08_claims")
    for name in kept:
        assert name in DRAWN or name[:2] == path.stem[:2]
        assert (FIGURES / f"{name}.csv").is_file() and (FIGURES / f"{name}.png").is_file()


def test_stored_outputs_are_those_of_the_present_sources():
    stored = json.loads(notebooks.MANIFEST.read_text(encoding="utf-8"))
    assert stored == notebooks.sources(), "run `make notebooks`"


def test_the_site_needs_no_network(tmp_path):
    notebooks.build_site(tmp_path)
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    for path in CHAPTERS:
        assert f'href="{path.stem}.html"' in index
        page = (tmp_path / f"{path.stem}.html").read_text(encoding="utf-8")
        folded = page.partition("<details>")[2].partition("</details>")[0]
        assert "Answers" in folded and "assert" in folded
        assert not re.search(r"""(src|href)=["']?https?://[^"']*\.(js|css)|import\(?["']https?:""", page)
    assert not list(tmp_path.glob(".partial-*"))
