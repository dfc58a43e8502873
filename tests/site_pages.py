"""The built website as tests see it: its pages, each read once."""

import shutil
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CHAPTERS = [stem for stem in CHAPTERS if "." not in stem]
# The chapters that each language has.
CHAPTERS_IN = {
    "en": CHAPTERS,
    "zh": [stem for stem in CHAPTERS if (ROOT / "notebooks" / f"{stem}.zh.md").is_file()],
}
EVERY_CHAPTER = [(language, stem) for language, stems in CHAPTERS_IN.items() for stem in stems]
CORE = sorted(path.stem for path in (ROOT / "scclip_core").glob("*.py") if path.stem[0] != "_")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        ids: places that a link can lead to.
        links: addresses that a reader can go to.
        loaded: addresses that a browser loads with the page.
        pictures: the attributes of every <img>.
        folded: the text inside each <details>.
    """

    LOADING_RELATIONS = ("stylesheet", "icon", "preload", "modulepreload", "preconnect")

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.ids, self.links, self.loaded, self.pictures = set(), [], [], []
        self.folded: list[str] = []
        self.depth = 0
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given:
            loads = set(given.get("rel", "").split()) & set(self.LOADING_RELATIONS)
            (self.loaded if loads else self.links).append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])
        if tag == "img":
            self.pictures.append(given)
        if tag == "details":
            self.depth += 1
            self.folded.append("")

    def handle_endtag(self, tag):
        self.depth -= tag == "details"

    def handle_data(self, data):
        if self.depth:
            self.folded[-1] += data


class Site:
    """The pages of a folder, each read once."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def pages(self) -> dict[str, Page]:
        """Path from the folder -> page."""
        paths = sorted(self.folder.rglob("*.html"))
        paths = [path for path in paths if "_static" not in path.parts]
        return {path.relative_to(self.folder).as_posix(): Page(path) for path in paths}

    def target_of(self, page: Page, address: str) -> str:
        """The path that an address leads to, from the folder of the site."""
        path = unquote(urlsplit(address).path)
        target = (page.path.parent / path).resolve() if path else page.path.resolve()
        return target.relative_to(self.folder.resolve()).as_posix()


def is_elsewhere(address: str) -> bool:
    """Whether an address is not of this site; pictures inside a page (`data:`) are."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")
