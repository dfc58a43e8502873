"""Translations: paired with chapters (by cell) and pages, and never older than their originals."""

import nbformat
import pytest

from scclip_lab.studies import ROOT, notebooks
from scclip_lab.studies.translation import (
    PAGE_MARK,
    read_parts,
    stale_parts,
    translate,
    version_of,
    version_of_page,
)

PAIRS = [
    (path, path.with_suffix(".zh.md"))
    for path in notebooks.chapters()
    if path.with_suffix(".zh.md").is_file()
]
PAGES = [
    path
    for where in ("*.zh.md", "data/**/*.zh.md", "site/**/*.zh.md")
    for path in sorted(ROOT.glob(where))
]


@pytest.fixture
def chapter(tmp_path):
    text = nbformat.v4.new_markdown_cell("One *patch*.", id="c01-00")
    code = nbformat.v4.new_code_cell("print(1)", id="c01-01")
    code.outputs = [nbformat.v4.new_output("stream", text="1\n")]
    path = tmp_path / "01_first.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[text, code]), path)
    return path


def write(chapter, text):
    path = chapter.with_suffix(".zh.md")
    path.write_text(text, encoding="utf-8")
    return path


def test_a_translation_takes_the_place_of_the_text_and_keeps_code_and_outputs(chapter):
    version = version_of("One *patch*.")
    path = write(chapter, f"<!-- cell c01-00 {version} -->\n一个*图块*。\n")
    assert stale_parts(chapter, path) == []
    translated = translate(chapter, path)
    original = nbformat.read(chapter, as_version=4)
    assert translated.cells[0].source == "一个*图块*。"
    assert translated.cells[1] == original.cells[1]


def test_a_part_older_than_its_original_is_named_with_both_versions(chapter):
    path = write(chapter, "<!-- cell c01-00 00000000 -->\n旧\n<!-- cell c01-77 00000000 -->\n多\n")
    now = version_of("One *patch*.")
    assert stale_parts(chapter, path) == [
        "c01-77: the chapter has no such cell",
        f"c01-00: made from 00000000, the original is now {now}",
    ]
    assert stale_parts(chapter, write(chapter, "")) == [f"c01-00: missing, its version is {now}"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("text\n<!-- cell c01-00 00000000 -->\n", "must begin with a mark"),
        ("<!-- cell a 00000000 -->\n<!-- cell a 00000000 -->\n", "one is given twice"),
    ],
)
def test_a_file_that_cannot_be_paired_is_refused(chapter, text, told):
    with pytest.raises(ValueError, match=told):
        read_parts(write(chapter, text))


@pytest.mark.parametrize(("chapter_", "path"), PAIRS, ids=[path.name for _, path in PAIRS])
def test_no_translation_is_older_than_its_chapter(chapter_, path):
    assert stale_parts(chapter_, path) == []


def test_the_version_of_a_page_does_not_change_with_the_numbers_of_its_tables(tmp_path):
    path = tmp_path / "README.md"

    def version(number, text="text"):
        table = f"<!-- table mini -->\n| {number} |\n<!-- end -->"
        path.write_text(f"# A\n{table}\n{text}\n", encoding="utf-8")
        return version_of_page(path)

    assert version(1) == version(2) != version(1, "other text")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_is_older_than_its_original(path):
    original = path.with_name(path.name.replace(".zh.md", ".md"))
    found = PAGE_MARK.match(path.read_text(encoding="utf-8"))
    now = version_of_page(original)
    assert found and found[1] == now, f"its first line must be <!-- of {now} --> once it is revised"
