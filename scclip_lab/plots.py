"""Figures: one look for all, label maps in colour, and saving a figure beside its numbers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from scclip_core import prediction
from scclip_core.files import atomic_write

# All eight colours of Okabe and Ito, which colour-blind readers can tell apart; black is last.
OKABE_ITO = (*prediction.OKABE_ITO, "#000000")
# The colour of classes that a legend does not name.
GREY = (150, 150, 150)
# How far a number may lie from the stored one for a stored table to stay as it is: the results of
# two machines differ by less.
ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE = 5e-4, 1e-3
# Fonts in the order in which they are tried, letter by letter; the first comes with matplotlib.
FONTS = ["DejaVu Sans"]


def set_theme() -> None:
    """One look for all figures: ticks, safe colours, and text that is readable at half size."""
    sns.set_theme(style="ticks", context="talk", palette=list(OKABE_ITO), font_scale=0.8)
    matplotlib.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "image.cmap": "viridis",
            "font.family": FONTS,
        }
    )


def colour_labels(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A label map [H, W] as an image uint8 [H, W, 3], in `colours` [C, 3]."""
    return colours[labels]


def error_bars(rows: pd.DataFrame) -> np.ndarray:
    """Distances of the columns `low` and `high` from `value`, [2, rows], as matplotlib wants."""
    return rows[["low", "high"]].sub(rows["value"], axis=0).abs().T.to_numpy()


def save_figure(figure: Figure, table: pd.DataFrame, name: str, folder: Path) -> bool:
    """Write a figure, `name.png`, and the numbers it shows, `name.csv`; the figure is closed.

    Returns what `save_table` returns.
    """
    changed = save_table(table, name, folder)
    save_png(figure, name, folder)
    return changed


def save_png(figure: Figure, name: str, folder: Path) -> None:
    """Write `name.png` into a folder that exists, as `png_of` makes it, and close the figure."""
    drawn = png_of(figure)
    with atomic_write(folder / f"{name}.png") as path:
        path.write_bytes(drawn)


def png_of(figure: Figure) -> bytes:
    """A figure as a PNG file in 256 colours, a third of the size; the figure is closed."""
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    reduce_colours(Image.open(drawn).convert("RGB")).save(reduced, format="png", optimize=True)
    return reduced.getvalue()


def reduce_colours(image: Image.Image) -> Image.Image:
    """An RGB image in 256 colours, of which white is one; it is exact where it has no more.

    The colours cover the range of those that are there, so that those of small areas stay, too.
    """
    if image.getcolors(256):
        return image.quantize(256)
    third = image.resize((image.width // 3, image.height // 3), Image.Resampling.NEAREST)
    chosen = third.quantize(255, Image.Quantize.MAXCOVERAGE, kmeans=1).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(chosen + 765 * [255])[:765], 255, 255, 255])
    reduced = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))  # [H, W]
    # The nearest colour is found roughly; the paper has to be white.
    reduced[(np.asarray(image) == 255).all(-1)] = 255
    found = Image.frombytes("P", image.size, reduced.tobytes())
    found.putpalette(palette.getpalette() or [])
    return found


def save_table(table: pd.DataFrame, name: str, folder: Path) -> bool:
    """Write `name.csv` into `folder`, which is made if it is missing, without the index.

    Numbers have six significant digits. A file that holds the same table already is left alone:
    the same columns and rows, the same texts and whole numbers, and fractional numbers that differ
    by at most 5e-4 + 1e-3 times the stored one.

    Returns whether the file was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    if path.is_file() and _holds(path, table, text):
        return False
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
    return True


def _holds(path: Path, table: pd.DataFrame, text: str) -> bool:
    """Whether a CSV file holds a table, whose own CSV is `text`, within the tolerances."""
    with path.open(newline="", encoding="utf-8") as file:
        stored = list(csv.reader(file))
    fresh = list(csv.reader(io.StringIO(text)))
    if stored[:1] != fresh[:1] or [len(row) for row in stored] != [len(row) for row in fresh]:
        return False
    values = table.itertuples(index=False, name=None)
    return all(
        old == new or (isinstance(value, float | np.floating) and _is_close(old, new))
        for old_row, new_row, row in zip(stored[1:], fresh[1:], values, strict=True)
        for old, new, value in zip(old_row, new_row, row, strict=True)
    )


def _is_close(old: str, new: str) -> bool:
    """Whether two cells are numbers within the tolerances; an empty cell is no number."""
    try:
        return bool(np.isclose(float(new), float(old), RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE))
    except ValueError:
        return False


def name_colours(
    truth: np.ndarray, maps: Sequence[np.ndarray], words: Sequence[str]
) -> tuple[np.ndarray, list[Patch]]:
    """Colours for the label maps of one image, and the handles of their legend.

    Seven classes at most get a colour, so that colour-blind readers can tell them apart: the true
    ones first, then those most often predicted. The rest is grey; 255, which counts nowhere, is
    white.

    Args:
        truth: true labels [H, W], or any array of labels.
        maps: all label maps that are shown, the truth among them.
        words: the names of the classes.

    Returns (colours uint8 [256, 3], one handle for each class that is named).
    """
    labels = np.concatenate([m.ravel() for m in maps])
    counts = np.bincount(labels[labels < len(words)], minlength=len(words))
    true = [int(i) for i in np.unique(truth) if i < len(words)]
    by_count = np.argsort(-counts, kind="stable")
    predicted = [int(i) for i in by_count if counts[i] and i not in true]
    named = (true + predicted)[:7]
    colours = np.tile(np.asarray(GREY, np.uint8), (256, 1))
    colours[255] = 255
    colours[named] = prediction.palette(len(named))
    handles = [
        Patch(color=_rgb(colours[i]), label=words[i] + ("" if i in true else " (wrong)"))
        for i in named
    ]
    if len(true + predicted) > len(named):
        handles.append(Patch(color=_rgb(GREY), label="other words (wrong)"))
    return colours, handles


def _rgb(colour: Sequence[int] | np.ndarray) -> tuple[float, float, float]:
    """A colour of three values 0..255 as matplotlib takes it."""
    red, green, blue = (int(channel) / 255 for channel in colour)
    return red, green, blue


def draw_gallery(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], words: Sequence[str]
) -> Figure:
    """A gallery: in each row an image, its label maps, and a legend of the classes in them.

    Args:
        rows: {"image": uint8 [H, W, 3], "captions": {column: text},
            "maps": {column: labels [H, W]}} for each image.
        columns: the names of the label maps, the truth first.
        words: the names of the classes.

    Colours are chosen anew in each row, by `name_colours`.
    """
    shape = (len(rows), len(columns) + 2)
    size = (2.6 * shape[1], 2.75 * shape[0])
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        maps = list(row["maps"].values())
        colours, handles = name_colours(row["maps"][columns[0]], maps, words)
        line[0].imshow(row["image"])
        for axis, column in zip(line[1:-1], columns, strict=True):
            axis.imshow(colour_labels(row["maps"][column], colours), interpolation="nearest")
            axis.set_xlabel(row["captions"].get(column, ""), fontsize=12)
        line[-1].legend(
            handles=handles, loc="center left", frameon=False, fontsize=11, borderaxespad=0
        )
        line[-1].axis("off")
        for axis in line[:-1]:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ("image", *columns), strict=False):
        axis.set_title(title, fontsize=14)
    figure.tight_layout()
    return figure
