"""What the notebooks measure and draw, one module a chapter.

Each measurement returns a table; each figure is drawn from a table alone, so that its CSV is all that is
needed to draw it again. `keep` is the one way by which a chapter stores and shows a figure.
"""

import os
import tempfile
import textwrap
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from scclip_core.files import DATA
from scclip_core.plots import save_png, save_table, set_theme

FIGURES = DATA.parent / "figures"  # the stored figures, and the numbers they show
CHAPTERS = (
    *("shapes", "outliers", "similarity", "attention", "ablation", "segmentation", "timing"),
    *("claims", "peers"),
)
Draw = Callable[[pd.DataFrame], Figure]
DRAWN: dict[str, Draw] = {}  # how each figure of the chapters is drawn from its table


def figure(name: str) -> Callable[[Draw], Draw]:
    """Register a function as what draws the figure `name` from its table."""

    def register(draw: Draw) -> Draw:
        DRAWN[name] = draw
        return draw

    return register


def fast() -> bool:
    """Whether chapters take few scenes and leave the stored figures alone (SCCLIP_FAST=1), as tests do."""
    return os.environ.get("SCCLIP_FAST") == "1"


def scenes(full: int) -> int:
    """How many scenes to take: `full`, or 4 in fast mode."""
    return 4 if fast() else full


@cache
def output() -> Path:
    """The folder that this run writes to: `figures/`, or a temporary one in fast mode."""
    return Path(tempfile.mkdtemp(prefix="scclip-")) if fast() else FIGURES


def keep(name: str, table: pd.DataFrame) -> Figure:
    """Store a figure and its numbers, `name.png` and `name.csv`, and return the figure for the notebook.

    It is drawn from the CSV as written, not from the table given, so that `redraw` makes the same picture.
    """
    save_table(table, name, output())
    return redraw(name, output())


def redraw(name: str, folder: Path) -> Figure:
    """Draw the figure `name` from `name.csv` in `folder`, with its caption, and write `name.png` beside it.

    Raises ValueError for a figure that no chapter draws, FileNotFoundError where the numbers are missing.
    """
    if name not in DRAWN:
        raise ValueError(f"name must be one of {', '.join(sorted(DRAWN))}, got {name!r}")
    set_theme()
    table = pd.read_csv(folder / f"{name}.csv")
    drawn = DRAWN[name](table)
    caption = import_module("scclip_core.studies.captions").CAPTIONS.get(name)  # it imports the chapters
    if caption:
        write_below(drawn, caption(table))
    save_png(drawn, name, folder)
    return drawn


def write_below(drawn: Figure, text: str) -> None:
    """Write a caption under everything that a figure shows, as wide as the figure."""
    drawn.draw_without_rendering()
    box, (width, height) = drawn.get_tightbbox(), drawn.get_size_inches()  # both in inches
    told = textwrap.fill(text, int(10.5 * box.width))
    drawn.text(box.x0 / width, (box.y0 - 0.15) / height, told, va="top", style="italic", fontsize=13)


def redraw_all(folder: Path) -> None:
    """Draw again every figure of the chapters whose numbers lie in `folder`."""
    for chapter in CHAPTERS:
        import_module(f"scclip_core.studies.{chapter}")
    for name in sorted(DRAWN):
        if (folder / f"{name}.csv").is_file():
            redraw(name, folder)


def stored(name: str) -> pd.DataFrame:
    """The stored numbers `figures/name.csv`: how chapters read what others, or `bench`, have measured."""
    path = FIGURES / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"figures/{name}.csv is missing: run `make notebooks` (or `make bench`) first"
        )
    return pd.read_csv(path)
