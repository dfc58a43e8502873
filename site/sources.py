"""Gather the sources of the site in one folder, from where they lie in the repository.

Nothing is kept twice: the chapters are the stored notebooks, the pages about the project are the
repository's own Markdown files, and the pages of the API reference are lists of modules.
"""

import ast
import html
import importlib
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from docstrings import inline
from nbformat import NotebookNode

# The address of the hosted repository, such as https://github.com/owner/name. While it is empty,
# pages have no buttons that need one (Binder, Colab, the repository itself), and links to files
# that are no pages are plain words.
REPOSITORY_URL = os.environ.get("SITE_REPOSITORY_URL", "")
ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "site" / "pages"
# Language -> what follows the name of a page or notebook in that language (index.zh.md,
# 01_shapes.zh.ipynb), and what the language is called. A language is built from the day on that it
# has an index page; a page without a pair in another language is simply not there in that one.
LANGUAGES = {"en": ("", "English"), "zh": (".zh", "中文")}
# What the line says that folds and unfolds the answers of a chapter.
ANSWERS = {"en": ("Show the answers", "Hide the answers"), "zh": ("看答案", "收起答案")}
# Pages that are files of the repository: name of the page -> file without its suffixes.
FROM_REPOSITORY = {
    "project/model_card": "data/mini/README",
    "project/data": "data/README",
    "project/contributing": "CONTRIBUTING",
    "project/changelog": "CHANGELOG",
}
# The modules of the core in the order in which to read them; any others follow.
READING_ORDER = (
    "config",
    "clip",
    "loading",
    "anomaly",
    "similarity",
    "attention",
    "pipeline",
    "text",
    "segmentation",
    "dense",
    "prediction",
    "baselines",
)
# A link or a picture of Markdown: its words, the file that it leads to, and a place in the file.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FIGURE_NAME = re.compile(r"""["'](\d\d_\w+)["']""")
# Lines of site/pages/api.md that are replaced by lists of pages.
MARKS = ("<!-- public names -->", "<!-- core -->", "<!-- lab -->")


def is_of(path: Path, language: str) -> bool:
    """Whether the name of a file says that it is in this language: `name.zh.md` or `name.md`."""
    suffixes = [suffix for suffix, _ in LANGUAGES.values() if suffix]
    given = Path(path.stem).suffix
    return (given if given in suffixes else "") == LANGUAGES[language][0]


def find_pages(language: str) -> dict[str, Path]:
    """The pages of a language: name -> file, without those that are made of docstrings."""
    ending = LANGUAGES[language][0]
    found: dict[str, Path] = {}
    for path in sorted(PAGES.rglob("*.md")):
        if is_of(path, language):
            found[path.relative_to(PAGES).as_posix().removesuffix(f"{ending}.md")] = path
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if is_of(path, language):
            found[f"notebooks/{path.name.removesuffix(f'{ending}.ipynb')}"] = path
    for page, stem in FROM_REPOSITORY.items():
        path = ROOT / f"{stem}{ending}.md"
        if path.is_file():
            found[page] = path
    return found


def core_modules() -> list[str]:
    """The modules of `scclip_core`, in the order in which to read them."""
    present = {path.stem for path in (ROOT / "scclip_core").glob("*.py") if path.stem[0] != "_"}
    first = [name for name in READING_ORDER if name in present]
    return [f"scclip_core.{name}" for name in [*first, *sorted(present - set(first))]]


def lab_packages() -> dict[str, list[str]]:
    """The packages of `scclip_lab` and their modules; what lies beside them comes last."""
    lab = ROOT / "scclip_lab"
    found = {}
    for folder in [*sorted(path.parent for path in lab.glob("*/__init__.py")), lab]:
        package = ".".join(folder.relative_to(ROOT).parts)
        files = sorted(path for path in folder.glob("*.py") if path.stem[0] != "_")
        found[package] = [f"{package}.{path.stem}" for path in files]
    return found


def page_of_module(module: str) -> str:
    """The name of the page that a module of the core, or a package of the lab, is on."""
    package, _, rest = module.partition(".")
    return f"api/{package.removeprefix('scclip_')}/{rest or package}"


def source_of(module: str) -> Path:
    """The file of a module, or of a package."""
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def summary_of(module: str) -> str:
    """The first sentence of a module's docstring, without importing it."""
    text = ast.get_docstring(ast.parse(source_of(module).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def constants_of(module: str) -> list[str]:
    """reStructuredText of the public constants of a module, with the comment above each.

    Autodoc leaves them out: it reads comments that begin with `#:` alone.
    """
    text = source_of(module).read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if not isinstance(target, ast.Name) or not re.match(r"[A-Z]", target.id):
            continue
        comment: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.startswith("# "):
                break
            comment.insert(0, line[2:])
        value = ast.unparse(node.value) if node.value else ""
        found += ["", f".. py:data:: {target.id}"]
        if value and len(value) <= 80:
            found.append(f"   :value: {value}")
        if comment:
            found += ["", f"   {inline(' '.join(comment))}"]
    return ["", ".. rubric:: Constants and types", *found] if found else []


def describe_module(module: str) -> list[str]:
    """reStructuredText that describes a module.

    Of a module of the lab that cannot be imported, only the summary is told.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # one of the lab's many libraries is missing
        if module.startswith("scclip_core"):
            raise
        kind = type(error).__name__
        return ["", inline(summary_of(module)), "", f"(It cannot be imported here: {kind}.)"]
    text = ["", f".. automodule:: {module}", "   :members:"]
    return [*text, "", f".. py:currentmodule:: {module}", *constants_of(module)]


def heading(text: str, underline: str) -> list[str]:
    """A heading of reStructuredText."""
    return ["", text, underline * len(text)]


def reference_pages() -> dict[str, str]:
    """The pages of the API reference: name -> reStructuredText."""
    pages = {}
    for module in core_modules():
        pages[page_of_module(module)] = [*heading(module, "="), *describe_module(module)]
    for package, modules in lab_packages().items():
        text = [*heading(package, "="), *describe_module(package)]
        for module in modules:
            text += [*heading(module, "-"), *describe_module(module)]
        pages[page_of_module(package)] = text
    return {name: "\n".join(text).strip() + "\n" for name, text in pages.items()}


def reference_lists() -> dict[str, str]:
    """What replaces the marks of the page that introduces the reference: mark -> MyST."""

    def table(head: str, rows: list[tuple[str, str]]) -> str:
        return "\n".join([f"| {head} | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])

    def with_tree(head: str, modules: list[str]) -> str:
        rows = [
            (
                f"[{name.partition('.')[2] or name}](/{page_of_module(name)})",
                summary_of(name).replace("|", "\\|"),
            )
            for name in modules
        ]
        entries = "\n".join(f"/{page_of_module(name)}" for name in modules)
        return f"{table(head, rows)}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```"

    core = importlib.import_module("scclip_core")
    places = {
        name: f"scclip_core.{module}" for name, module in core._MODULES.items() if name[0] != "_"
    }
    names = [
        (f"{{py:obj}}`{name} <{places[name]}.{name}>`", f"[{places[name]}](/{page})")
        for name in core.__all__
        for page in [page_of_module(places[name])]
    ]
    return dict(
        zip(
            MARKS,
            (
                table("`from scclip_core import ...`", names),
                with_tree("module", core_modules()),
                with_tree("package", list(lab_packages())),
            ),
            strict=True,
        )
    )


@dataclass
class Sources:
    """The sources of the site in one language, written into `folder`.

    Attributes:
        folder: where they are written.
        language: a key of `LANGUAGES`.
        repository: the address of the hosted repository.
        pages: name -> file, for the pages that are files.
    """

    folder: Path
    language: str
    repository: str = REPOSITORY_URL
    pages: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        self.pages = find_pages(self.language)
        self._page_of = {path: name for name, path in self.pages.items()}

    def write(self) -> None:
        """Write every source."""
        self._figures = describe_figures() if self.language == "en" else {}
        reference = reference_pages() if self.language == "en" else {}
        lists = reference_lists() if reference else {}
        for name, path in self.pages.items():
            target = self.folder / f"{name}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".ipynb":
                nbformat.write(self.chapter(path, name), target)
                continue
            text = path.read_text(encoding="utf-8")
            for mark, replacement in lists.items():
                text = text.replace(mark, replacement)
            text = self.relink(text, path, name)
            self.copy_pictures(text, target)
            target.write_text(text, encoding="utf-8")
        for name, text in reference.items():
            target = self.folder / f"{name}.rst"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def copy_pictures(self, text: str, target: Path) -> None:
        """Copy the pictures of a page from where they lie in the repository."""
        for mark, _, address, _ in LINK.findall(FENCED.sub("", text)):
            if mark and "://" not in address:
                copied = Path(os.path.normpath(target.parent / address))
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / copied.relative_to(self.folder), copied)

    def relink(self, text: str, path: Path, page: str) -> str:
        """Markdown of the file `path`, with links that lead where they should from `page`."""
        parts = FENCED.split(text)
        for i in range(0, len(parts), 2):  # between fenced code
            parts[i] = LINK.sub(lambda found: self._link(found, path, page), parts[i])
        return "".join(parts)

    def _link(self, found: re.Match[str], path: Path, page: str) -> str:
        mark, words, address, place = found.group(1), found.group(2), found.group(3), found.group(4)
        place = place or ""
        if ":" in address or address.startswith("/"):  # of the web, or of a page of the site
            return found.group(0)
        target = Path(os.path.normpath(path.parent / address))
        if mark:  # pictures keep their place in the repository
            there = os.path.relpath(target.relative_to(ROOT), Path(page).parent)
            return f"![{words}]({Path(there).as_posix()})"
        name = self._page_for(target)
        if name:
            return f"[{words}](/{name}{place})"
        if self.repository:
            return f"[{words}]({self.repository}/blob/main/{target.relative_to(ROOT).as_posix()})"
        return words

    def _page_for(self, target: Path) -> str | None:
        """The page that a file of the repository is on, if any."""
        ending = LANGUAGES[self.language][0]
        paired = target.with_name(f"{target.stem}{ending}{target.suffix}")
        for path in (paired, target):
            if path in self._page_of:
                return self._page_of[path]
        if target == ROOT / "README.md":
            return "index"
        if self.language != "en" or not target.is_relative_to(ROOT):
            return None
        place = target.relative_to(ROOT)
        module = ".".join(place.with_suffix("").parts)
        if module in core_modules():
            return page_of_module(module)
        if place.parts[0] == "scclip_lab":
            package = ".".join(place.parts[:2])
            return page_of_module(package if package in lab_packages() else "scclip_lab")
        return None

    def chapter(self, path: Path, page: str) -> NotebookNode:
        """A notebook as the site shows it: links lead to pages, pictures are told in words."""
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.setdefault("language_info", {})["pygments_lexer"] = "ipython3"
        section = ""
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                section = (HEADING.findall(FENCED.sub("", cell.source)) or [section])[-1]
                cell.source = self.relink(cell.source, path, page)
                self.copy_pictures(cell.source, self.folder / f"{page}.ipynb")
                continue
            if cell.cell_type != "code":
                continue
            shown = cell.metadata.setdefault("mystnb", {})
            if "answer" in cell.metadata.get("tags", []):
                cell.metadata.tags.append("hide-cell")
                told = {
                    "en": ("Show the answers", "Hide the answers"),
                    "zh": ("看答案", "收起答案"),
                }
                show, hide = told[self.language]
                shown |= {"code_prompt_show": show, "code_prompt_hide": hide}
            alt = self.alternative(cell, plain(section))
            shown.setdefault("image", {}).setdefault("alt", alt)
            for output in cell.get("outputs", []):
                markup = output.get("data", {}).get("text/html")
                if markup:  # a picture inside a table or a widget
                    missing = r"<img(?![^>]*\balt=)"
                    output.data["text/html"] = re.sub(
                        missing, f'<img alt="{html.escape(alt)}"', markup
                    )
        return notebook

    def alternative(self, cell: NotebookNode, section: str) -> str:
        """What stands for the picture of a cell: its own words, or else the section it is in."""
        for output in cell.get("outputs", []):
            given = output.get("metadata", {}).get("image/png", {})
            if isinstance(given, dict) and given.get("alt"):
                return str(given["alt"])
        for name in FIGURE_NAME.findall(cell.source):
            if name in self._figures:
                return plain(self._figures[name])
        told = {"en": "Figure of the section", "zh": "本节的图："}[self.language]
        return f"{told} {section}"


def plain(text: str) -> str:
    """Markdown as plain text."""
    text = LINK.sub(lambda found: found.group(2), text)
    return " ".join(re.sub(r"[`*]", "", text).split())


def describe_figures() -> dict[str, str]:
    """Every figure of the chapters in words: what it shows, and the caption made of its numbers.

    What it shows is told by the docstring of the function that draws it.
    """
    try:
        import pandas as pd  # takes a second, so not at the top: settings and tests need no figure

        studies = importlib.import_module("scclip_lab.studies")
        for chapter in studies.CHAPTERS:
            importlib.import_module(f"scclip_lab.studies.{chapter}")
        captions = importlib.import_module("scclip_lab.studies.captions").CAPTIONS
        drawn = studies.DRAW_FUNCTIONS
    except (ImportError, AttributeError):  # one of the lab's many libraries is missing
        return {}
    found = {}
    for name, draw in drawn.items():
        parts = [(draw.__doc__ or "").split("\n\n")[0]]
        numbers = ROOT / "figures" / f"{name}.csv"
        if name in captions and numbers.is_file():
            try:
                parts.append(captions[name](pd.read_csv(numbers)))
            except Exception as error:  # numbers that are older than the code
                print(f"warning: the caption of {name} cannot be made ({error})", file=sys.stderr)
        found[name] = " ".join(part for part in parts if part)
    return {name: text for name, text in found.items() if text}
