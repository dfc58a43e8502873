"""Figures in other languages: drawn again from the same numbers, with every text exchanged.

`labels.zh.csv` beside this file pairs the texts of all figures with their translations. `{}` stands
for what changes with the numbers, so that a caption made of numbers has one entry. What a figure
calls by the words given to the model, by the names of methods, or by numbers alone stays as it is.
"""

import csv
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path

import matplotlib
from matplotlib.text import Text

from scclip_lab import plots, studies
from scclip_lab.datasets.scenes import WORDS
from scclip_lab.studies import METHOD_NAMES
from scclip_lab.teaching.fonts import known_font

HERE = Path(__file__).resolve().parent
# Noto Sans SC (SIL Open Font License 1.1), reduced to the characters of the translations.
FONT = HERE / "fonts" / "NotoSansSC-subset.otf"
# Texts without a letter, and single letters as formulas have them, mean the same everywhere.
NEUTRAL = re.compile(r"[^A-Za-z]*|[^A-Za-z]*[A-Za-z][^A-Za-z]*")
# The name of a tensor with its shape.
TENSOR = re.compile(r"[\w.]+ \[\d+(, \d+)*\]")


@dataclass
class Catalogue:
    """The translations of texts.

    Attributes:
        entries: text -> translation, both with `{}` for what changes.
        missing: the texts that were asked for and have no entry.
        drawn: figures that `draw_all` has drawn with it, name -> PNG.
    """

    entries: dict[str, str]
    missing: set[str] = field(default_factory=set)
    drawn: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Catalogue":
        """The catalogue in a CSV file with the columns `text` and `translation`."""
        with path.open(newline="", encoding="utf-8") as file:
            return cls({row["text"]: row["translation"] for row in csv.DictReader(file)})

    @cached_property
    def patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """The entries with `{}`, the longest first, as patterns."""
        with_gaps = sorted((text for text in self.entries if "{}" in text), key=len, reverse=True)
        return [
            (re.compile("(.+?)".join(map(re.escape, text.split("{}")))), self.entries[text])
            for text in with_gaps
        ]

    def translate(self, text: str) -> str:
        """A text in the other language, its lines broken at about the same width.

        Lines that have an entry each stay as they are broken. What fills a gap is translated where
        it has an entry of its own. A text without an entry stays as it is, and is noted in
        `missing` where it has words.
        """
        lines = text.strip().split("\n")
        alone = [self._find(line.strip()) for line in lines]
        if len(lines) > 1 and all(alone):
            return "\n".join(map(str, alone))
        # A line may end within a word that has a hyphen.
        joined = " ".join(re.sub(r"(?<=\w-)\n(?=\w)", "", text).split())
        found = self._find(joined)
        if found is None:
            if not is_neutral(joined):
                self.missing.add(joined)
            return text
        return found if len(lines) == 1 else wrap(found, max(len(line) for line in lines))

    def _find(self, text: str) -> str | None:
        if text in self.entries:
            return self.entries[text]
        for pattern, translation in self.patterns:
            match = pattern.fullmatch(text)
            if match:
                return translation.format(*(self._find(gap) or gap for gap in match.groups()))
        return None


def is_neutral(text: str) -> bool:
    """Whether no language changes a text.

    That is a number or formula, the name of a method, the name of a tensor with its shape, or one
    of the model's words, alone or with a number behind it.
    """
    if NEUTRAL.fullmatch(re.sub(r"\$.*?\$", "", text)) or text in METHOD_NAMES:
        return True
    if TENSOR.fullmatch(text):
        return True
    return text in METHOD_NAMES.values() or re.sub(r" [\d.]+$", "", text) in WORDS


def wrap(text: str, width: int) -> str:
    """A text in lines of at most `width` columns, of which a Chinese character takes two."""
    lines, used = [""], 0
    # A word in Latin letters stays whole, and what opens stays with what follows.
    for part in re.findall(r"[“（]?(?:[!-~]+|.)", text):
        columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in part)
        if used + columns > width and lines[-1] and part not in "，。；：、）！？":
            lines.append("")
            used = 0
        if lines[-1] or part != " ":
            lines[-1] += part
            used += columns
    return "\n".join(line.rstrip() for line in lines)


@contextmanager
def texts_in(catalogue: Catalogue) -> Iterator[None]:
    """Within the block, everything that matplotlib writes is translated by the catalogue."""
    set_text, fonts = Text.set_text, list(plots.FONTS)

    def set_translated(self: Text, text: object) -> None:
        set_text(self, catalogue.translate(text) if isinstance(text, str) else text)

    with known_font(FONT) as name:
        plots.FONTS.append(name)
        Text.set_text = set_translated  # type: ignore[method-assign]
        try:
            yield
        finally:
            Text.set_text = set_text  # type: ignore[method-assign]
            plots.FONTS[:] = fonts


def stored_figures(shown: set[str]) -> list[str]:
    """The names of the figures that are shown and whose numbers are stored."""
    for module in (*studies.CHAPTERS, "main_figures"):
        import_module(f"scclip_lab.studies.{module}")
    known = (name for name in studies.DRAW_FUNCTIONS if name in shown)
    return [name for name in known if (studies.FIGURES / f"{name}.csv").is_file()]


def describe_figures(shown: set[str], translate: Callable[[str], str] = str) -> dict[str, str]:
    """The figures that are shown in words, `translate`d into the language of the site."""
    return {
        name: " ".join(map(translate, studies.describe(name, studies.FIGURES)))
        for name in stored_figures(shown)
    }


def draw_all(catalogue: Catalogue, shown: set[str]) -> dict[str, bytes]:
    """The figures that are shown: name -> PNG in the other language, each drawn once."""
    names = stored_figures(shown)
    matplotlib.use("agg")
    with texts_in(catalogue):
        for name in names:
            if name not in catalogue.drawn:
                catalogue.drawn[name] = plots.png_of(studies.draw(name, studies.FIGURES))
    return {name: catalogue.drawn[name] for name in names}
