"""What several figures share: maps over an image, curves with bands, bars, coloured label maps."""

import colorsys
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from scclip_core.prediction import palette
from scclip_lab.plots import GREY, error_bars
from scclip_lab.studies.tables import STYLE_NAMES

# How every claim of the article is drawn.
CLAIM_STYLE: dict[str, Any] = {"color": "#CC79A7", "linestyle": "--", "linewidth": 2}
# How `paint_labels` shows what is right and what is wrong.
HATCHING = (
    "Solid: the right word. Hatched: a wrong one; in a colour, a word of the scene at a wrong"
    " place; in grey, a word that is not in the scene."
)
# Tables hold label maps at every fourth pixel.
LABEL_STEP = 4


def show_image(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """An image without ticks."""
    axis.imshow(image)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=13)


def map_rows(maps: Mapping[str, Tensor]) -> pd.DataFrame:
    """Maps [rows, cols] by name as a table with a row for each patch: panel, row, col, value."""
    parts = []
    for panel, values in maps.items():
        row, col = np.indices(tuple(values.shape)).reshape(2, -1)
        value = values.detach().float().flatten().numpy()
        parts.append(pd.DataFrame({"panel": panel, "row": row, "col": col, "value": value}))
    return pd.concat(parts, ignore_index=True)


def read_maps(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The maps [rows, cols] by name, of a table that `map_rows` made."""
    return {
        str(panel): part.pivot(index="row", columns="col", values="value").to_numpy()
        for panel, part in table.groupby("panel", sort=False)
    }


def draw_maps(
    table: pd.DataFrame, image: np.ndarray, columns: int | None = None, label: str = ""
) -> Figure:
    """An image and the maps of its patches, all on one colour scale.

    Args:
        table: the maps, as `map_rows` makes them. Where it has columns patch_row and patch_col,
            each map and the image have a cross on that patch.
        image: uint8 [H, W, 3].
        columns: panels side by side (default: all).
        label: what the colours stand for.
    """
    maps = read_maps(table)
    columns = columns or len(maps) + 1
    lines = -(-(len(maps) + 1) // columns)
    size = (3.1 * columns + 0.9, 3.3 * lines)
    drawn, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    show_image(axes[0, 0], image, "the picture")
    limits = {"vmin": table["value"].min(), "vmax": table["value"].max()}
    for axis, (panel, values) in zip(axes.flat[1:], maps.items(), strict=False):
        shown = axis.imshow(values, **limits)
        axis.set_title(panel, fontsize=13)
        if "patch_row" in table:
            row, col = table["patch_row"].iloc[0], table["patch_col"].iloc[0]
            pixel = len(image) / len(values)
            on_image = ((col + 0.5) * pixel, (row + 0.5) * pixel)
            # White around orange, so that the cross is seen on any picture.
            for colour, width in (("white", 6), ("#D55E00", 3)):
                look = {"color": colour, "markersize": 11, "markeredgewidth": width}
                axis.plot(col, row, "x", **look)
                axes[0, 0].plot(*on_image, "x", **look)
    drawn.colorbar(shown, ax=axes, fraction=0.02, pad=0.01, label=label)
    return drawn


def draw_band(
    axis: Axes, part: pd.DataFrame, x: str, label: str | None = None, scale: float = 100
) -> None:
    """A curve of `value` over the column `x`, with a band from `low` to `high`, times `scale`."""
    value, low, high = (scale * part[name] for name in ("value", "low", "high"))
    (line,) = axis.plot(part[x], value, marker="o", markersize=5, label=label)
    axis.fill_between(part[x], low, high, alpha=0.2, color=line.get_color())


def draw_gains(axis: Axes, part: pd.DataFrame, x: str, label: str | None = None) -> None:
    """A curve of the paired gain over the column `x`, in points, with the band of its interval."""
    names = {"gain": "value", "gain_low": "low", "gain_high": "high"}
    draw_band(axis, part[[x, *names]].rename(columns=names), x, label)
    axis.axhline(0, color="0.3", linewidth=1)


def draw_bars(axis: Axes, part: pd.DataFrame, labels: str, scale: float = 100) -> None:
    """Horizontal bars of `value` with error bars, times `scale`, named by the column `labels`."""
    error = scale * error_bars(part)
    axis.barh(part[labels], scale * part["value"], xerr=error, capsize=4, color="#56B4E9")
    axis.axvline(0, color="0.3", linewidth=1)
    # The first row is on top.
    axis.set_ylim(len(part) - 0.4, -0.6)


def draw_interval_bars(table: pd.DataFrame, labels: str, xlabel: str) -> Figure:
    """A figure of `draw_bars` alone, in per cent."""
    drawn, axis = plt.subplots(figsize=(9, 0.93 * len(table)))
    draw_bars(axis, table, labels)
    axis.set_xlabel(xlabel)
    sns.despine(drawn)
    return drawn


def draw_method_scores(
    table: pd.DataFrame, measures: Sequence[str], names: Mapping[str, str]
) -> Figure:
    """Horizontal bars of methods with intervals: a panel for each measure, a colour for each style.

    `names` maps every method of the table that is shown to its name in the figure, in order.
    """
    size = (17, 0.5 * len(names) + 1.6)
    drawn, axes = plt.subplots(1, len(measures), figsize=size, sharey=True)
    for axis, measure in zip(axes, measures, strict=True):
        part = table[table["measure"] == measure]
        for i, (style, rows) in enumerate(part.groupby("styles", sort=False)):
            rows = rows.set_index("method").loc[list(names)]
            place = np.arange(len(rows)) + 0.38 * (i - 0.5)
            look = {"capsize": 3, "label": f"{STYLE_NAMES[style]}"}
            axis.barh(place, 100 * rows["value"], 0.36, xerr=100 * error_bars(rows), **look)
        axis.set_yticks(range(len(names)), list(names.values()))
        axis.set_xlabel(f"{measure} (%)")
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    handles, labels = axes[0].get_legend_handles_labels()
    look = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
    axes[-1].legend(handles, labels, frameon=False, fontsize=12, **look)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


def label_rows(labels: Tensor) -> list[tuple[int, str]]:
    """A label map [H, W] at every fourth pixel: the number of each line, and its labels as text."""
    lines = labels[::LABEL_STEP, ::LABEL_STEP].tolist()
    return [(i, " ".join(map(str, line))) for i, line in enumerate(lines)]


def read_labels(lines: pd.Series) -> np.ndarray:
    """The label map [H, W] of which `label_rows` made these texts, at its first size."""
    labels = np.array([line.split() for line in lines], dtype=int)
    return labels.repeat(LABEL_STEP, 0).repeat(LABEL_STEP, 1)


@dataclass(frozen=True)
class GalleryRow:
    """One scene of a gallery.

    Attributes:
        title: what the scene is, written beside it.
        image: uint8 [H, W, 3].
        truth: the true labels, [H, W].
        maps: the label map of each method, [H, W], by the name that is shown.
        captions: what is written below each map, by the same names.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    maps: dict[str, np.ndarray]
    captions: dict[str, str]


def draw_scene_gallery(
    rows: Sequence[GalleryRow], words: Sequence[str], first_background: int, note: str = ""
) -> Figure:
    """Scenes with their truth and label maps, a scene in each row, and a legend for each.

    A word has one colour in the whole figure, and wrong labels are hatched, see `paint_labels`.

    Args:
        rows: the scenes.
        words: of all labels.
        first_background: the words from this number on are backgrounds.
        note: written below, after what solid and hatched areas mean.
    """
    colours = word_colours([row.truth for row in rows], len(words), first_background)
    names = list(rows[0].maps)
    columns = len(names) + 3
    lines = max(text.count("\n") + 1 for row in rows for text in row.captions.values())
    size = (2.6 * columns, (2.4 + 0.2 * lines) * len(rows) + 0.9)
    drawn, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        show_image(line[0], row.image)
        line[0].set_ylabel(row.title, fontsize=13)
        show_image(line[1], paint_labels(row.truth, row.truth, colours))
        for axis, name in zip(line[2:], names, strict=False):
            show_image(axis, paint_labels(row.maps[name], row.truth, colours))
            axis.set_xlabel(row.captions[name], fontsize=12)
        handles = legend_handles(row.truth, list(row.maps.values()), colours, words)
        look = {"loc": "center left", "bbox_to_anchor": (-0.08, 0.5), "frameon": False}
        line[-1].legend(handles=handles, fontsize=12, labelspacing=0.35, **look)
        line[-1].axis("off")
    for axis, title in zip(axes[0], ("picture", "truth", *names), strict=False):
        axis.set_title(title, fontsize=15)
    drawn.tight_layout(h_pad=0.6, w_pad=0.4)
    text = f"{HATCHING}\n{note}".strip()
    drawn.text(0.005, 0, text, fontsize=14, va="top", linespacing=1.5)
    return drawn


def paint_labels(labels: np.ndarray, truth: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A label map as an image uint8 [H, W, 3] in which wrong labels are seen at a glance.

    A right label has its word's colour. A wrong one is hatched: in its word's colour where that
    word is somewhere in the scene, in grey where it is not.

    Args:
        labels, truth: [H, W], indices of words.
        colours: of every word, uint8 [words, 3].
    """
    colour = colours[labels].astype(float)
    colour[~np.isin(labels, np.unique(truth))] = GREY
    row, col = np.indices(labels.shape)
    wrong, stripe = labels != truth, (row + col) % 8 < 3
    colour[wrong & stripe] *= 0.85
    colour[wrong & ~stripe] = 255 - 0.25 * (255 - colour[wrong & ~stripe])
    return colour.round().astype(np.uint8)


def word_colours(truths: Sequence[np.ndarray], count: int, first_background: int) -> np.ndarray:
    """Colours uint8 [count, 3] for the words that are true somewhere in these label maps.

    No two words share a colour, and words of one map get colours that are far apart. Backgrounds,
    the words from number `first_background` on, get soft colours, so that objects stand out. Words
    that are true nowhere are grey. A map alone has the colours that it has as the first of several.
    """
    scenes = [np.unique(truth).tolist() for truth in truths]
    words = list(dict.fromkeys(itertools.chain(*scenes)))
    objects = [word for word in words if word < first_background]
    backgrounds = [word for word in words if word >= first_background]
    soft = [
        [round(255 * value) for value in colorsys.hls_to_rgb(i / len(backgrounds), 0.75, 0.4)]
        for i in range(len(backgrounds))
    ]
    chosen: dict[int, list[int]] = {}
    for group, free in ((backgrounds, soft), (objects, palette(max(8, len(objects))).tolist())):
        for word in group:
            beside = {other for scene in scenes if word in scene for other in scene}
            taken = [chosen[other] for other in beside if other in chosen]
            apart = [min((math.dist(colour, t) for t in taken), default=0) for colour in free]
            chosen[word] = free.pop(apart.index(max(apart)))
    colours = np.tile(np.asarray(GREY, np.uint8), (count, 1))
    colours[words] = [chosen[word] for word in words]
    return colours


def legend_handles(
    truth: np.ndarray,
    maps: Sequence[np.ndarray],
    colours: np.ndarray,
    words: Sequence[str],
) -> list[Patch]:
    """The legend of a scene: its true words, and the absent word that is predicted most often."""
    true = np.unique(truth)
    handles = [Patch(color=colours[i] / 255, label=words[i]) for i in true]
    absent = np.concatenate([labels[~np.isin(labels, true)] for labels in maps])
    if len(absent):
        word = words[int(np.bincount(absent).argmax())]
        label = f"not in the scene,\nmostly “{word}”"
        edge = "#" + bytes(GREY).hex()
        handles.append(Patch(facecolor="0.9", edgecolor=edge, hatch="////", label=label))
    return handles


def draw_numbers(
    values: pd.DataFrame, limits: tuple[float, float], label: str
) -> tuple[Figure, Axes]:
    """A table as numbers on colours, red to blue between `limits`, white in the middle."""
    drawn, axis = plt.subplots(figsize=(13, 0.52 * len(values) + 1.4))
    look: dict[str, Any] = {"vmin": limits[0], "vmax": limits[1], "cmap": "RdBu", "fmt": ".2f"}
    look |= {"linewidths": 1, "annot_kws": {"fontsize": 12}, "cbar_kws": {"label": label}}
    sns.heatmap(values, annot=True, ax=axis, **look)
    axis.set(xlabel="", ylabel="")
    axis.set_xticklabels(axis.get_xticklabels(), rotation=20, ha="right")
    return drawn, axis
