"""What the chapters measure and draw, one module for each chapter.

A measurement returns a table. A figure is drawn from its table alone, so that the CSV file holds
all that is needed to draw it again. A chapter stores and shows a figure with `save_and_show`.
"""

import os
import tempfile
import textwrap
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pandas as pd
import PIL.Image
from IPython.display import Image
from matplotlib.figure import Figure

from scclip_core.files import DATA
from scclip_lab.plots import save_png, save_table, set_theme

# The repository.
ROOT = DATA.parent
# The stored figures, and the numbers that they show.
FIGURES = ROOT / "figures"
# The modules of the chapters, in order; they draw the figures.
CHAPTERS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("ch[0-9][0-9]_*.py")))
# How figures and sentences call each method; tables have the names that `make_method` takes.
METHOD_NAMES = {
    "vanilla": "vanilla CLIP",
    "values": "values (last block)",
    "maskclip": "MaskCLIP",
    "sclip": "SCLIP",
    "clearclip": "ClearCLIP",
    "naclip": "NACLIP",
    "gem": "GEM",
    "resclip": "ResCLIP",
    "registers": "test-time registers",
    "rfclip": "RF-CLIP",
    "scclip": "SC-CLIP",
    "scclip-published": "SC-CLIP (published)",
}
# Draws a figure from its table.
Draw = Callable[[pd.DataFrame], Figure]
# Filled by the chapters: the name of a figure -> what draws it.
DRAW_FUNCTIONS: dict[str, Draw] = {}


def figure(name: str) -> Callable[[Draw], Draw]:
    """Register a function as the one that draws the figure `name` from its table.

    The sentence that tells its finding is made in `captions`.
    """

    def register(draw: Draw) -> Draw:
        DRAW_FUNCTIONS[name] = draw
        return draw

    return register


def is_fast() -> bool:
    """Whether the chapters run in fast mode, SCCLIP_FAST=1: few scenes, and nothing is stored."""
    return os.environ.get("SCCLIP_FAST") == "1"


def scene_count(full: int) -> int:
    """The number of scenes to measure on: `full`, or 4 in fast mode."""
    return 4 if is_fast() else full


@cache
def output_folder() -> Path:
    """The folder that chapters write to: `figures/`, or a temporary one in fast mode."""
    return Path(tempfile.mkdtemp(prefix="scclip-")) if is_fast() else FIGURES


def save_and_show(name: str, table: pd.DataFrame) -> Image:
    """Write a table, `name.csv`, and the figure drawn from it, `name.png`; return the picture.

    It is drawn from the file, not from the table given, so that `redraw` makes the same figure. The
    picture is shown at half its size, sharp on screens of twice the usual resolution, and has what
    `describe` says as its alternative text.
    """
    folder = output_folder()
    save_table(table, name, folder)
    redraw(name, folder)
    path = folder / f"{name}.png"
    with PIL.Image.open(path) as stored:
        width = stored.width // 2
    return Image(data=path.read_bytes(), width=width, alt=" ".join(describe(name, folder)))


def describe(name: str, folder: Path) -> list[str]:
    """What the figure `name` shows: the docstring of what draws it, and its caption if any."""
    sentences = [(DRAW_FUNCTIONS[name].__doc__ or "").split("\n\n")[0]]
    sentences.append(find_caption(name, pd.read_csv(folder / f"{name}.csv")))
    return [" ".join(sentence.split()) for sentence in sentences if sentence]


def redraw(name: str, folder: Path) -> Figure:
    """Draw the figure `name` from `name.csv` in `folder`, and write `name.png`.

    Raises what `draw` raises.
    """
    drawn = draw(name, folder)
    save_png(drawn, name, folder)
    return drawn


def draw(name: str, folder: Path) -> Figure:
    """The figure `name`, drawn from `name.csv` in `folder`, with its caption.

    Raises ValueError for a figure that no chapter draws, FileNotFoundError for missing numbers.
    """
    if name not in DRAW_FUNCTIONS:
        known = ", ".join(sorted(DRAW_FUNCTIONS))
        raise ValueError(f"name must be one of {known}, got {name!r}")
    set_theme()
    table = pd.read_csv(folder / f"{name}.csv")
    drawn = DRAW_FUNCTIONS[name](table)
    caption = find_caption(name, table)
    if caption:
        add_caption(drawn, caption)
    return drawn


def find_caption(name: str, table: pd.DataFrame) -> str:
    """The finding of a figure, a sentence made of its own numbers; "" for one without."""
    # The captions import this module.
    from scclip_lab.studies.captions import CAPTIONS

    return CAPTIONS[name](table) if name in CAPTIONS else ""


def add_caption(drawn: Figure, text: str) -> None:
    """Write a caption below everything that a figure shows, wrapped to the figure's width."""
    drawn.draw_without_rendering()
    # Both in inches.
    box, (width, height) = drawn.get_tightbbox(), drawn.get_size_inches()
    wrapped = textwrap.fill(text, int(10.5 * box.width))
    place = (box.x0 / width, (box.y0 - 0.15) / height)
    drawn.text(*place, wrapped, va="top", style="italic", fontsize=13)


def redraw_all(folder: Path) -> None:
    """Draw again every figure of the chapters whose numbers are in `folder`."""
    for chapter in CHAPTERS:
        import_module(f"scclip_lab.studies.{chapter}")
    for name in sorted(DRAW_FUNCTIONS):
        if (folder / f"{name}.csv").is_file():
            redraw(name, folder)


def load_table(name: str) -> pd.DataFrame:
    """The stored numbers of `figures/name.csv`, which another chapter or `make bench` has written.

    Raises FileNotFoundError, with what to run first, where there are none.
    """
    path = FIGURES / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"figures/{name}.csv is missing: run `make notebooks` (or `make bench`) first"
        )
    return pd.read_csv(path)
