"""Pictures: one look for all figures, label maps in colour, and saving a figure with its numbers beside
it.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from scclip_core.files import atomic_write

# Okabe and Ito's eight colours, told apart by colour-blind readers; black stands last
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")
OTHER = (150, 150, 150)  # colour of words that a legend does not name


def set_theme() -> None:
    """One look for all figures: seaborn's ticks, a colour-blind-safe cycle, text readable at half size."""
    sns.set_theme(style="ticks", context="talk", palette=list(OKABE_ITO), font_scale=0.8)
    matplotlib.rcParams.update(
        {"figure.dpi": 100, "savefig.dpi": 100, "savefig.bbox": "tight", "image.cmap": "viridis"}
    )


def palette(n: int) -> np.ndarray:
    """Colours of `n` classes, uint8 [n, 3]: Okabe and Ito's first, then hues spread evenly at two
    lightnesses.
    """
    safe = [matplotlib.colors.to_rgb(c) for c in OKABE_ITO[: min(n, 7)]]
    light, dark = (sns.husl_palette(n - len(safe), l=level) for level in (0.72, 0.45))
    rest = [light[i] if i % 2 == 0 else dark[i] for i in range(len(light))]
    return np.round(255 * np.asarray(safe + rest)).astype(np.uint8).reshape(n, 3)


def colour_labels(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A label map [H, W] of class indices as a picture uint8 [H, W, 3]; `colours` is [n, 3]."""
    return colours[labels]


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """The picture uint8 [H, W, 3] with its label map [H, W] laid over it."""
    mixed = (1 - opacity) * image + opacity * colour_labels(labels, colours)
    return np.round(mixed).astype(np.uint8)


def save_label_png(labels: np.ndarray, colours: np.ndarray, path: Path) -> None:
    """Write a label map as a palette PNG: a pixel's value is its class index (at most 256 classes)."""
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette(colours.astype(np.uint8).flatten().tolist())
    with atomic_write(path) as partial:
        picture.save(partial, format="PNG")


def spread(rows: pd.DataFrame) -> np.ndarray:
    """How far `low` and `high` lie from `value`, [2, rows]: the error bars of a drawn table."""
    return rows[["low", "high"]].sub(rows["value"], axis=0).abs().T.to_numpy()


def save_figure(figure: Figure, table: pd.DataFrame, name: str, folder: Path) -> None:
    """Write `name.png` and the numbers it shows, `name.csv`, into `folder`, and close the figure."""
    save_table(table, name, folder)
    save_png(figure, name, folder)


def save_png(figure: Figure, name: str, folder: Path) -> None:
    """Write `name.png` into `folder`, and close the figure."""
    with atomic_write(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", metadata={"Software": None})
    plt.close(figure)


def save_table(table: pd.DataFrame, name: str, folder: Path) -> None:
    """Write `name.csv` into `folder` (made if missing): no index, six significant digits, the same bytes each
    run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{name}.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def name_colours(
    truth: np.ndarray, maps: Sequence[np.ndarray], words: Sequence[str]
) -> tuple[np.ndarray, list[Patch]]:
    """Colours uint8 [256, 3] of the labels in some maps of one picture, and the handles of a legend.

    To the true words first, then to the words most often predicted, seven in all, which colour-blind readers
    can tell apart; the rest is grey, and 255, which counts nowhere, white.
    """
    labels = np.concatenate([m.ravel() for m in maps])
    counts = np.bincount(labels[labels < len(words)], minlength=len(words))
    true = [int(i) for i in np.unique(truth) if i < len(words)]
    guessed = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i] and i not in true]
    named = (true + guessed)[:7]
    colours = np.tile(np.asarray(OTHER, np.uint8), (256, 1))
    colours[255] = 255
    colours[named] = palette(len(named))
    handles = [
        Patch(color=colours[i] / 255, label=words[i] + ("" if i in true else " (wrong)")) for i in named
    ]
    if len(true + guessed) > len(named):
        handles.append(Patch(color=np.asarray(OTHER) / 255, label="other words (wrong)"))
    return colours, handles


def draw_gallery(rows: Sequence[dict], columns: Sequence[str], words: Sequence[str]) -> Figure:
    """A gallery: one row a picture, its image, then label maps under `columns`, then a legend of its words.

    A row is {"image": uint8 [H, W, 3], "captions": {column: text}, "maps": {column: labels [H, W]}}; the
    first column is the truth. Colours are given anew in each row, by `name_colours`.
    """
    figure, axes = plt.subplots(
        len(rows), len(columns) + 2, figsize=(2.6 * (len(columns) + 2), 2.75 * len(rows)), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        colours, handles = name_colours(row["maps"][columns[0]], list(row["maps"].values()), words)
        line[0].imshow(row["image"])
        for axis, column in zip(line[1:-1], columns, strict=True):
            axis.imshow(colour_labels(row["maps"][column], colours), interpolation="nearest")
            axis.set_xlabel(row["captions"].get(column, ""), fontsize=12)
        line[-1].legend(handles=handles, loc="center left", frameon=False, fontsize=11, borderaxespad=0)
        line[-1].axis("off")
        for axis in line[:-1]:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ("image", *columns), strict=False):
        axis.set_title(title, fontsize=14)
    figure.tight_layout()
    return figure
