"""Gather the sources of the site in one folder, from where they lie in the repository.

Nothing is kept twice: the chapters are the stored notebooks, the pages about the project are the
repository's own Markdown files, and the pages of the API reference are lists of modules.
"""

import base64
import html
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from facts import catalogue, fill
from figure_text import Catalogue, describe_figures, draw_all
from nbformat import NotebookNode
from reference import (
    ROOT,
    core_modules,
    lab_packages,
    page_of_module,
    reference_lists,
    reference_pages,
)

from scclip_lab.studies.translation import PAGE_MARK, translate

# The address of the hosted repository, such as https://github.com/owner/name. While it is empty,
# pages have no buttons that need one (Binder, Colab, the repository itself), and links to files
# that are no pages are plain words.
REPOSITORY_URL = os.environ.get("SITE_REPOSITORY_URL", "")
PAGES = ROOT / "site" / "pages"
# Language -> what follows the name of a page in that language (index.zh.md, or 01_shapes.zh.md for
# the text of a chapter), and what the language is called. A language is built from the day on that
# it has an index page; a page without a pair in another language is not there in that one.
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
# A link or a picture of Markdown: its words, the file that it leads to, and a place in the file.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# In the code of a chapter: of a figure that it draws, or of a file that it shows.
FIGURE_NAME = re.compile(r"""["'](\d\d_\w+(?=["'])|\w+(?=\.png["']))""")


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
        if not ending or path.with_suffix(f"{ending}.md").is_file():
            found[f"notebooks/{path.stem}"] = path
    for page, stem in FROM_REPOSITORY.items():
        path = ROOT / f"{stem}{ending}.md"
        if path.is_file():
            found[page] = path
    return found


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
    # Figures in words, pictures drawn in the site's language, and its texts; filled by `write`.
    _figures: dict[str, str] = field(init=False, default_factory=dict)
    _drawn: dict[str, bytes] = field(init=False, default_factory=dict)
    _catalogue: Catalogue | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.pages = find_pages(self.language)
        # For each language to look in, its own first: the page of every file.
        self._pages_of = {
            language: {path: name for name, path in find_pages(language).items()}
            for language in dict.fromkeys((self.language, "en"))
        }

    def write(self) -> None:
        """Write every source."""
        shown = self.figures_shown()
        if self.language == "en":
            self._figures = describe_figures(shown)
        else:
            self._catalogue = catalogue(self.language)
            self._figures = describe_figures(shown, self._catalogue.translate)
            self._drawn = draw_all(self._catalogue, shown)
        reference = reference_pages() if self.language == "en" else {}
        lists = reference_lists() if reference else {}
        for name, path in self.pages.items():
            target = self.folder / f"{name}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".ipynb":
                nbformat.write(self.chapter(path, name), target)
                continue
            text = PAGE_MARK.sub("", path.read_text(encoding="utf-8"))
            text = fill(text, self.language)
            for mark, replacement in lists.items():
                text = text.replace(mark, replacement)
            text = self.relink(text, path, name)
            self.copy_pictures(text, target)
            target.write_text(text, encoding="utf-8")
        for name, text in reference.items():
            target = self.folder / f"{name}.rst"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        for text in sorted(self._catalogue.missing if self._catalogue else ()):
            print(f"warning: a figure's text has no translation: {text}", file=sys.stderr)

    def figures_shown(self) -> set[str]:
        """The names of the figures that the pages of this language show."""
        shown: set[str] = set()
        for path in self.pages.values():
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                shown |= set(FIGURE_NAME.findall(text.replace('\\"', '"')))
            else:
                shown |= {Path(found[2]).stem for found in LINK.findall(text) if found[0]}
        return shown

    def copy_pictures(self, text: str, target: Path) -> None:
        """Copy the pictures of a page from where they lie, figures in the site's language."""
        for mark, _, address, _ in LINK.findall(FENCED.sub("", text)):
            if mark and "://" not in address:
                copied = Path(os.path.normpath(target.parent / address))
                copied.parent.mkdir(parents=True, exist_ok=True)
                if copied.suffix == ".png" and copied.stem in self._drawn:
                    copied.write_bytes(self._drawn[copied.stem])
                else:
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
        if ":" in address:  # of the web
            return found.group(0)
        if address.startswith("/"):  # of a page of the site
            name = address.removeprefix("/")
            language = self.language if name in self.pages else "en"
            return self._link_to_page(words, name, place, language, page)
        target = Path(os.path.normpath(path.parent / address))
        if mark:  # pictures keep their place in the repository
            there = os.path.relpath(target.relative_to(ROOT), Path(page).parent)
            return f"![{words}]({Path(there).as_posix()})"
        name, language = self._page_for(target)
        if name:
            return self._link_to_page(words, name, place, language, page)
        if self.repository:
            return f"[{words}]({self.repository}/blob/main/{target.relative_to(ROOT).as_posix()})"
        return words

    def _link_to_page(self, words: str, name: str, place: str, language: str, page: str) -> str:
        """A link from `page` to the page `name`, which may be there in English alone."""
        if language == self.language:
            return f"[{words}](/{name}{place})"
        up = "../" * (page.count("/") + 1)
        return f'<a hreflang="{language}" href="{up}{language}/{name}.html{place}">{words}</a>'

    def _page_for(self, target: Path) -> tuple[str, str]:
        """The page that a file of the repository is on, if any, and the language of the page.

        What has no page in the site's language has one in English or none.
        """
        for language, page_of in self._pages_of.items():
            paired = target.with_name(f"{target.stem}{LANGUAGES[language][0]}{target.suffix}")
            for path in (paired, target):
                if path in page_of:
                    return page_of[path], language
        if target.name in ("README.md", "README.zh.md") and target.parent == ROOT:
            return "index", self.language
        if not target.is_relative_to(ROOT):
            return "", "en"
        place = target.relative_to(ROOT)
        module = ".".join(place.with_suffix("").parts)
        if module in core_modules():
            return page_of_module(module), "en"
        if place.parts[0] == "scclip_lab":
            package = ".".join(place.parts[:2])
            return page_of_module(package if package in lab_packages() else "scclip_lab"), "en"
        return "", "en"

    def chapter(self, path: Path, page: str) -> NotebookNode:
        """A notebook as the site shows it: links lead to pages, pictures are told in words."""
        ending = LANGUAGES[self.language][0]
        if ending:
            notebook = translate(path, path.with_suffix(f"{ending}.md"))
        else:
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
            for output in cell.get("outputs", []):
                shown_source = output.get("data", {}).get("text/markdown")
                if shown_source:
                    output.data["text/markdown"] = self.relink(shown_source, path, page)
                if "image/png" in output.get("data", {}):
                    self.exchange_picture(output, cell.source)
            shown = cell.metadata.setdefault("mystnb", {})
            if "answer" in cell.metadata.get("tags", []):
                cell.metadata.tags.append("hide-cell")
                show, hide = ANSWERS[self.language]
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

    def exchange_picture(self, output: NotebookNode, source: str) -> None:
        """Put the figure that a cell shows in the site's language in place of the stored one."""
        for name in FIGURE_NAME.findall(source):
            if name in self._drawn:
                output.data["image/png"] = base64.b64encode(self._drawn[name]).decode()
                return

    def alternative(self, cell: NotebookNode, section: str) -> str:
        """What stands for the picture of a cell: its own words, or else the section it is in."""
        for name in FIGURE_NAME.findall(cell.source):
            if name in self._figures:
                return plain(self._figures[name])
        for output in cell.get("outputs", []):
            given = output.get("metadata", {}).get("image/png", {})
            if isinstance(given, dict) and given.get("alt"):
                text = str(given["alt"])
                return self._catalogue.translate(text) if self._catalogue else text
        told = {"en": "Figure of the section", "zh": "本节的图："}[self.language]
        return f"{told} {section}"


def plain(text: str) -> str:
    """Markdown as plain text."""
    text = LINK.sub(lambda found: found.group(2), text)
    return " ".join(re.sub(r"[`*]", "", text).split())
