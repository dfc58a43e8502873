"""Translations: paired cell by cell with the chapters, and never older than their originals."""

import nbformat
import pytest

from scclip_lab.studies import notebooks
from scclip_lab.studies.translation import read_parts, stale_parts, translate, version_of

PAIRS = [
    (path, path.with_suffix(".zh.md"))
    for path in notebooks.chapters()
    if path.with_suffix(".zh.md").is_file()
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
