"""Chapters and pages in other languages: paired text, shared code and outputs.

The text of `01_shapes.ipynb` in Chinese is `01_shapes.zh.md` beside it: one part for each Markdown
cell, in order, under a line that names the cell and the version of the original it was made from:

    <!-- cell c01-02 3f9a1c2b -->

A part is stale where its original has changed since (`stale_parts`); a test forbids that. A page,
such as `README.zh.md` beside `README.md`, is translated as a whole, and its first line has the
version of the original: <!-- of 3f9a1c2b -->.
"""

import copy
import hashlib
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from scclip_lab.studies.readme import MARKED

MARK = re.compile(r"^<!-- cell (\S+) ([0-9a-f]{8}) -->\n", re.MULTILINE)
PAGE_MARK = re.compile(r"\A<!-- of ([0-9a-f]{8}) -->\n")


def version_of(text: str) -> str:
    """Eight hexadecimal digits that change with the text."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def version_of_page(path: Path) -> str:
    """The version of a Markdown file, which does not change with the numbers of its made tables."""
    return version_of(MARKED.sub(r"\1\4", path.read_text(encoding="utf-8")))


def read_parts(path: Path) -> dict[str, tuple[str, str]]:
    """The parts of a translation: cell -> the version of its original, and the text.

    Raises ValueError for text before the first mark, and for a cell that is given twice.
    """
    before, *rest = MARK.split(path.read_text(encoding="utf-8"))
    if before.strip():
        raise ValueError(
            f"{path.name} must begin with a mark such as <!-- cell c01-00 0123abcd -->"
        )
    cells = rest[0::3]
    if len(set(cells)) < len(cells):
        raise ValueError(f"{path.name} must have one part for each cell, one is given twice")
    texts = [text.strip() for text in rest[2::3]]
    return dict(zip(cells, zip(rest[1::3], texts, strict=True), strict=True))


def stale_parts(chapter: Path, translation: Path) -> list[str]:
    """What is wrong with a translation: a line for each cell that is missing, stale or too many."""
    parts = read_parts(translation)
    original = {c.id: c.source for c in _text_cells(nbformat.read(chapter, as_version=4))}
    wrong = [f"{cell}: the chapter has no such cell" for cell in parts if cell not in original]
    for cell, source in original.items():
        version = version_of(source)
        if cell not in parts:
            wrong.append(f"{cell}: missing, its version is {version}")
        elif parts[cell][0] != version:
            wrong.append(f"{cell}: made from {parts[cell][0]}, the original is now {version}")
    return wrong


def translate(chapter: Path, translation: Path) -> NotebookNode:
    """A chapter with its text in another language; code and stored outputs are the chapter's."""
    parts = read_parts(translation)
    notebook = copy.deepcopy(nbformat.read(chapter, as_version=4))
    for cell in _text_cells(notebook):
        cell.source = parts[cell.id][1]
    return notebook


def _text_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]
