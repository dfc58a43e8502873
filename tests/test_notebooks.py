"""The chapters: stored whole, fresh, and running in fast mode."""

import ast
import json
import re
import textwrap

import nbformat
import pytest

from scclip_lab.studies import CHAPTERS as CHAPTERS_OF_STUDIES
from scclip_lab.studies import DRAW_FUNCTIONS, FIGURES, notebooks

CHAPTERS = notebooks.chapters()
STEMS = [path.stem for path in CHAPTERS]


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_chapters_have_numbers_of_their_own_and_a_module_each():
    assert [int(stem[:2]) for stem in STEMS] == [*range(16)]
    assert {module[2:4] for module in CHAPTERS_OF_STUDIES} == {stem[:2] for stem in STEMS}


def test_every_chapter_runs_in_fast_mode(monkeypatch):
    monkeypatch.setenv("SCCLIP_FAST", "1")
    before = {path: path.read_bytes() for path in [*CHAPTERS, *FIGURES.glob("*")]}
    assert notebooks.run(CHAPTERS, write=False, jobs=2) == []
    assert {path: path.read_bytes() for path in [*CHAPTERS, *FIGURES.glob("*")]} == before


def test_a_cell_that_fails_is_reported_by_name_and_nothing_is_stored(tmp_path):
    path = tmp_path / "01_broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    (line,) = notebooks.run([path], write=True, jobs=1)
    # A terminal's colours are left out.
    assert (
        re.sub(r"\x1b\[[0-9;]*m", "", line)
        == "01_broken.ipynb: ZeroDivisionError: division by zero"
    )
    assert path.read_bytes() == before


def test_a_widget_cell_is_left_to_the_reader_and_keeps_no_output(tmp_path):
    old = [nbformat.v4.new_output("stream", text="old")]
    widget = nbformat.v4.new_code_cell("1 / 0", metadata={"tags": ["widget"]}, outputs=old)
    other = nbformat.v4.new_code_cell("print('new')")
    path = tmp_path / "01_widget.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[widget, other]), path)
    assert notebooks.run([path], write=True, jobs=1) == []
    first, second = cells(path, "code")
    assert first.outputs == [] and first.execution_count is None
    assert second.outputs[0].text == "new\n"


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_a_chapter_is_stored_executed_without_errors_and_small(path):
    assert path.stat().st_size < 3e6
    for cell in cells(path, "code"):
        assert cell.outputs or cell.execution_count or "widget" in cell.metadata.tags
        assert not [
            o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"
        ]
    outputs = json.dumps([cell.get("outputs", []) for cell in cells(path, "code")])
    assert not re.search(r"/(home|root|tmp|work|Users)/", outputs)


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_what_a_cell_builds_is_compared_with_the_core(path):
    for cell in cells(path, "code"):
        if not {"answer", "exercise"} & set(cell.metadata.get("tags", [])):
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert len(lines) <= 16, cell.source
            if re.search(r"^(def|class) ", cell.source, re.MULTILINE):
                assert "\nassert " in cell.source, cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_a_chapter_says_what_it_answers_claims_apart_and_ends_with_checked_exercises(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert "**This chapter answers:**" in text
    assert "What this model is." in text
    assert len(re.findall(r"^\d\. ", text.split("## Exercises")[1], re.MULTILINE)) >= 3
    last = cells(path, "code")[-1]
    assert last.metadata.tags == ["answer"] and last.metadata.jupyter.source_hidden
    assert last.source.count("assert") + last.source.count("pytest.raises") >= 2


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_every_figure_of_a_chapter_is_stored_with_its_numbers(path):
    saved = re.findall(
        r'save_and_show\(\s*"(\w+)"', "\n".join(cell.source for cell in cells(path, "code"))
    )
    assert saved or path.stem in ("07_timing", "08_claims")
    for name in saved:
        assert name in DRAW_FUNCTIONS or name[:2] == path.stem[:2]
        assert (FIGURES / f"{name}.csv").is_file() and (FIGURES / f"{name}.png").is_file()


SOURCE_SHOWN = re.compile(r"From \[([\w/.]+)\]\(\.\./\1\):\n\n```python\n(.*?)\n```", re.DOTALL)


@pytest.mark.parametrize("path", CHAPTERS, ids=STEMS)
def test_the_source_that_a_chapter_shows_is_the_one_that_runs(path):
    for cell in cells(path, "code"):
        asked = re.search(r"show_source\((.*?)\)", cell.source, re.DOTALL)
        if asked:
            told = "".join(o.get("data", {}).get("text/markdown", "") for o in cell.outputs)
            shown = SOURCE_SHOWN.findall(told)
            assert len(shown) == len(asked.group(1).strip(" ,\n").split(","))
            for file, source in shown:
                text = (notebooks.ROOT / file).read_text(encoding="utf-8")
                assert source in text or textwrap.indent(source, "    ") in text


def test_stored_outputs_are_those_of_the_present_sources():
    stored = json.loads(notebooks.MANIFEST.read_text(encoding="utf-8"))
    assert stored == notebooks.source_hashes(), "run `make notebooks`"


@pytest.fixture
def packages(tmp_path):
    """Two small packages, as `{name: text}`, in a folder; returns the folder."""
    files = {
        "scclip_core/__init__.py": """
            from importlib import import_module
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from scclip_core.lazy import Lazy
        """,
        "scclip_core/lazy.py": "from scclip_core.deep import CONSTANT\nclass Lazy: pass",
        "scclip_core/deep.py": "CONSTANT = 1",
        "scclip_core/other.py": "UNUSED = 1",
        "scclip_lab/__init__.py": "",
        "scclip_lab/chapter.py": """
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                import scclip_core.other
            def late():
                from scclip_lab import helper
        """,
        "scclip_lab/helper.py": "import os",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("cell", "modules"),
    [
        ("import numpy", []),
        ("import scclip_core", ["scclip_core"]),
        ("from scclip_core.deep import CONSTANT", ["scclip_core", "scclip_core.deep"]),
        ("from scclip_core import Lazy", ["scclip_core", "scclip_core.deep", "scclip_core.lazy"]),
        (
            "from scclip_lab import chapter as chapter",
            ["scclip_lab", "scclip_lab.chapter", "scclip_lab.helper"],
        ),
    ],
)
def test_imports_are_followed_through_modules_functions_and_lazy_names(packages, cell, modules):
    assert sorted(notebooks.imported_modules(ast.parse(cell), packages)) == modules


SOURCE = '''"""A module."""

LIMIT = 3


class Thing:
    """A thing."""

    def size(self):
        """Its size."""
        return LIMIT
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A module.", "Another sentence.", True),
        ("A thing.", "Another sentence.", True),
        ('        """Its size."""\n', "", True),
        ("LIMIT = 3", "# Why three.\nLIMIT = 3", True),
        ("LIMIT = 3", "LIMIT = (\n    3\n)", True),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("LIMIT = 3", "LIMIT = 3.0", False),
        ("LIMIT = 3", "LIMIT = None", False),
        ("return LIMIT", "return -LIMIT", False),
        ("def size", "def length", False),
    ],
)
def test_only_a_change_of_code_counts_as_a_change(old, new, same):
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    assert (notebooks.code_of(changed) == notebooks.code_of(SOURCE)) == same


def test_a_hash_depends_on_code_cells_modules_and_weights_alone(packages, monkeypatch):
    folder = packages / "notebooks"
    model = packages / "data" / "mini" / "open_clip_model.safetensors"
    folder.mkdir()
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    for name, value in (("ROOT", packages), ("NOTEBOOKS", folder), ("DATA", packages / "data")):
        monkeypatch.setattr(notebooks, name, value)
    code = nbformat.v4.new_code_cell("from scclip_core import Lazy")
    text = nbformat.v4.new_markdown_cell("A word.")
    notebook = nbformat.v4.new_notebook(cells=[text, code])

    def hashed():
        nbformat.write(notebook, folder / "01_first.ipynb")
        return notebooks.source_hashes()["01_first"]

    before, deep = hashed(), packages / "scclip_core" / "deep.py"
    text.source = "Another word."
    deep.write_text('"""Says what it is."""\n# And why.\nCONSTANT = 1\n', encoding="utf-8")
    (packages / "scclip_core" / "other.py").write_text("UNUSED = 2", encoding="utf-8")
    assert hashed() == before
    deep.write_text("CONSTANT = 2", encoding="utf-8")
    assert hashed() != before
    deep.write_text("CONSTANT = 1", encoding="utf-8")
    assert hashed() == before
    code.source += "\nLazy"
    assert hashed() != before
    code.source = "from scclip_core import Lazy"
    model.write_bytes(b"other weights")
    assert hashed() != before


def test_every_chapter_depends_on_its_own_module_and_on_the_method():
    for path in CHAPTERS:
        code = "\n".join(cell.source for cell in cells(path, "code"))
        modules = notebooks.imported_modules(ast.parse(code), notebooks.ROOT)
        number = path.stem[:2]
        assert [m for m in modules if m.startswith(f"scclip_lab.studies.ch{number}_")]
        assert {"scclip_core.pipeline", "scclip_lab.studies.captions"} <= set(modules)
