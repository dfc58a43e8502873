"""The cheat sheet: SC-CLIP on one page of A4, as a PDF whose bytes depend on its content alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.files import atomic_write
from scclip_lab.teaching.cheat_sheet_text import CODE, MEASURES, STAGES, SYMBOLS, WORDS
from scclip_lab.teaching.fonts import known_font

# Millimetres of A4, and inches of a millimetre.
WIDTH, HEIGHT, INCH = 210.0, 297.0, 1 / 25.4
# Colours of the stages, as in the figure of the trace.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D6C600", "#0072B2", "#D55E00", "#CC79A7", "#333333")
INK, SOFT, LINE = "#1c2733", "#5b6875", "#d8dee4"
LATIN = "DejaVu Sans"  # comes with matplotlib


def defaults() -> dict[str, Any]:
    """The defaults of the config by name, without the switches of the modules."""
    return {one.name: one.default for one in fields(SCCLIPConfig) if one.name not in SWITCHES}


def fill(text: str) -> str:
    """A text with {fields} of the config in place; other braces, of formulas, stay."""
    values = defaults() | {"last_summed": defaults()["multi_end_idx"] - 1}
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", f"{value:g}" if type(value) is float else str(value))
    return text


@contextmanager
def style(font: Path | None = None) -> Iterator[None]:
    """Matplotlib's own defaults, whatever was set before.

    Characters that `LATIN` does not have come from the file `font`, which is known to
    matplotlib within the block only.
    """
    with matplotlib.rc_context(), known_font(font) if font else nullcontext() as name:
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.family"] = [LATIN, *([name] if name else [])]
        matplotlib.rcParams["mathtext.fontset"] = "cm"
        yield


def save_cheat_sheet(folder: Path, language: str = "en", font: Path | None = None) -> Path:
    """Write `cheat_sheet.pdf`, or `cheat_sheet.zh.pdf`, into a folder that exists.

    Chinese needs the file of a font with its characters. Returns the path.
    """
    path = folder / f"cheat_sheet{'' if language == 'en' else '.' + language}.pdf"
    with style(font):
        sheet = draw_cheat_sheet(language)
        with atomic_write(path) as partial:
            metadata = {"CreationDate": None, "Title": WORDS[language]["title"]}
            sheet.savefig(partial, format="pdf", metadata=metadata)
        plt.close(sheet)
    return path


def draw_cheat_sheet(language: str) -> Figure:
    """The page: eight stages from top to bottom, then defaults, symbols, measures and code."""
    words = WORDS[language]
    sheet = plt.figure(figsize=(WIDTH * INCH, HEIGHT * INCH))
    axis = sheet.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axis.axis("off")
    axis.add_patch(Rectangle((0, 0), WIDTH, 19, color="#0b3a5b", linewidth=0))
    write(axis, 12, 9.5, words["title"], size=18, color="white", weight="bold")
    write(axis, 12, 15.8, words["subtitle"], size=8.6, color="white")
    write(axis, 148, 22.8, words["tensors"], size=6.6, color=SOFT)
    top = 24.3
    for stage, colour in zip(STAGES, COLOURS, strict=True):
        top += draw_stage(axis, stage, colour, top, language) + 1.3
    draw_boxes(axis, top + 1, language)
    write(axis, 12, HEIGHT - 4.5, words["foot"], size=6.2, color=SOFT)
    return sheet


def write(axis: Axes, x: float, y: float, text: str, size: float = 7.6, **look: Any) -> None:
    """Text with its base line at y, in millimetres from the top; Chinese has one weight."""
    defaults_of_text: dict[str, Any] = {"fontsize": size, "color": INK, "va": "baseline"}
    if text.isascii():
        defaults_of_text["family"] = LATIN
    else:
        look.pop("weight", None)
    axis.text(x, y, text, **defaults_of_text | look)


def draw_stage(axis: Axes, stage: Any, colour: str, top: float, language: str) -> float:
    """One stage in a frame; returns its height in millimetres."""
    lines = fill(stage.texts[language]).split("\n")
    left = 7.5 + 3.7 * len(lines) + sum(map(formula_height, stage.formulas))
    height = max(left, 5.5 + 3.9 * len(stage.tensors)) + 1.2
    frame = FancyBboxPatch(
        (12, top), WIDTH - 24, height, "round,pad=0,rounding_size=1.2", fc="white", ec=LINE, lw=0.8
    )
    axis.add_patch(frame)
    axis.add_patch(Rectangle((12, top), 9, height, color=colour, linewidth=0))
    look = {"ha": "center", "va": "center_baseline", "weight": "bold"}
    write(axis, 16.5, top + height / 2, stage.number, size=15, color="white", **look)
    write(axis, 24, top + 5.2, fill(stage.titles[language]), size=9.4, weight="bold")
    write(axis, 143, top + 5.2, stage.module, size=6.6, color=SOFT, ha="right")
    y = top + 9.5
    for line in lines:
        write(axis, 24, y, line, size=7.2)
        y += 3.7
    for formula in stage.formulas:
        height_here = formula_height(formula)
        write(axis, 24, y + height_here / 2 - 0.9, fill(formula), size=9.2)
        y += height_here
    axis.plot([145, 145], [top + 1.5, top + height - 1.5], color=LINE, linewidth=0.8)
    for row, (name, shape) in enumerate(stage.tensors):
        y = top + 5.2 + 3.9 * row
        mono = {"family": "DejaVu Sans Mono"}
        write(axis, 148, y, name, size=5.9, **mono)
        write(axis, WIDTH - 14, y, shape, size=5.9, ha="right", color=colour_of(colour), **mono)
    return height


def formula_height(formula: str) -> float:
    """Millimetres of a line with a formula; sums have limits above and below."""
    return 8.8 if r"\sum" in formula else 6.2


def colour_of(colour: str) -> str:
    """The colour of a stage where it is dark enough for small text on white, else ink."""
    return INK if colour in ("#E69F00", "#56B4E9", "#D6C600", "#CC79A7") else colour


def draw_boxes(axis: Axes, top: float, language: str) -> None:
    """The four boxes at the foot of the page."""
    words, step = WORDS[language], 4.1
    mono = {"family": "DejaVu Sans Mono"}
    low = top + 8 + 8 * step
    places = {
        "defaults": (12, top),
        "symbols": (131, top),
        "measures": (12, low),
        "use": (107, low),
    }
    for name, (x, y) in places.items():
        write(axis, x, y + 3, words[name], size=9.4, weight="bold", color="#0072B2")
        right = {"defaults": 121, "symbols": WIDTH - 12, "measures": 97, "use": WIDTH - 12}[name]
        axis.plot([x, right], [y + 5, y + 5], color=LINE, linewidth=0.8)
    shown = [(k, v) for k, v in defaults().items() if k not in ("depth", "templates")]
    half = -(-len(shown) // 2)
    for number, (name, value) in enumerate(shown):
        x, y = 12 + 57 * (number // half), top + 9.5 + step * (number % half)
        told = f"{value:g}" if type(value) is float else str(value)
        write(axis, x, y, name, size=7, **mono)
        write(axis, x + 51, y, told, size=7, weight="bold", ha="right", **mono)
    for row, (symbol, meaning) in enumerate(SYMBOLS[language]):
        write(axis, 131, top + 9.5 + step * row, symbol, size=7.2, weight="bold")
        write(axis, 142, top + 9.5 + step * row, meaning, size=7.2)
    formula, *sentences = MEASURES[language]
    write(axis, 12, low + 10.2, formula, size=10)
    for row, line in enumerate(sentences):
        write(axis, 12, low + 15.2 + step * row, line, size=7.2)
    for row, line in enumerate(CODE):
        write(axis, 107, low + 9.5 + step * row, line, size=6.5, **mono)
