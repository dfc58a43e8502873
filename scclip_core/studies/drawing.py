"""Pieces that the chapters' figures share: maps over a picture, curves with bands, bars with intervals."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.pipeline import upsample
from scclip_core.plots import spread

CLAIM = {"color": "#CC79A7", "linestyle": "--", "linewidth": 2}  # how every claim of the seed is drawn


EVERY = 4  # label maps are stored at every fourth pixel


def show_image(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """A picture without ticks."""
    axis.imshow(image)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=13)


def map_rows(maps: Mapping[str, Tensor]) -> pd.DataFrame:
    """Maps [rows, cols] by name as a table with a row a patch: panel, row, col, value."""
    parts = []
    for panel, values in maps.items():
        row, col = np.indices(tuple(values.shape)).reshape(2, -1)
        value = values.detach().float().flatten().numpy()
        parts.append(pd.DataFrame({"panel": panel, "row": row, "col": col, "value": value}))
    return pd.concat(parts, ignore_index=True)


def read_maps(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """What `map_rows` wrote, as maps [rows, cols] by name again."""
    return {
        str(panel): part.pivot(index="row", columns="col", values="value").to_numpy()
        for panel, part in table.groupby("panel", sort=False)
    }


def draw_maps(
    table: pd.DataFrame,
    image: np.ndarray,
    columns: int | None = None,
    smooth_row: bool = False,
    label: str = "",
) -> Figure:
    """The picture, then each map of the table; with `smooth_row` a second line has the maps at image size.

    Where the table has columns patch_row and patch_col, each map has a cross on that patch.
    """
    maps = read_maps(table)
    columns = columns or len(maps) + 1
    lines = 2 if smooth_row else -(-(len(maps) + 1) // columns)
    drawn, axes = plt.subplots(lines, columns, figsize=(3.1 * columns, 3.3 * lines), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    show_image(axes[0, 0], image, "the picture")
    for i, (panel, values) in enumerate(maps.items()):
        limits = {"vmin": values.min(), "vmax": values.max()}
        axis = axes.flat[i + 1]
        shown = axis.imshow(values, **limits)
        axis.set_title(panel, fontsize=13)
        bar = drawn.colorbar(shown, ax=axis, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=9)
        if "patch_row" in table:
            row, col = table["patch_row"].iloc[0], table["patch_col"].iloc[0]
            axis.plot(col, row, "x", color="#D55E00", markersize=11, markeredgewidth=3)
        if smooth_row:
            large = upsample(torch.tensor(values)[None, :, :, None], image.shape[:2])[0, 0]
            axes[1, i + 1].imshow(large, **limits)
            axes[1, i + 1].set_title("at image size", fontsize=12)
    if label:
        drawn.text(0.01, 0.01, f"colour: {label}", fontsize=11)
    drawn.tight_layout()
    return drawn


def draw_band(axis: Axes, part: pd.DataFrame, x: str, label: str | None = None, scale: float = 100) -> None:
    """A curve of `value` over the column `x` with its band `low` to `high`, times `scale`."""
    (line,) = axis.plot(part[x], scale * part["value"], marker="o", markersize=5, label=label)
    axis.fill_between(part[x], scale * part["low"], scale * part["high"], alpha=0.2, color=line.get_color())


def draw_bars(axis: Axes, part: pd.DataFrame, labels: str, scale: float = 100) -> None:
    """Horizontal bars of `value` with intervals `low` to `high`, times `scale`, named by the column
    `labels`.
    """
    axis.barh(part[labels], scale * part["value"], xerr=scale * spread(part), capsize=4, color="#56B4E9")
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_ylim(len(part) - 0.4, -0.6)  # the first row on top


def draw_interval_bars(table: pd.DataFrame, labels: str, xlabel: str) -> Figure:
    """A figure of `draw_bars` alone, in per cent."""
    drawn, axis = plt.subplots(figsize=(9, 0.93 * len(table)))
    draw_bars(axis, table, labels)
    axis.set_xlabel(xlabel)
    sns.despine(drawn)
    return drawn


def label_rows(labels: Tensor) -> list[tuple[int, str]]:
    """A label map [H, W] at every fourth pixel, as (line, its labels in one string), for a table."""
    return [(i, " ".join(map(str, line))) for i, line in enumerate(labels[::EVERY, ::EVERY].tolist())]


def read_labels(lines: pd.Series) -> np.ndarray:
    """What `label_rows` wrote, at the size that it was, [H, W]."""
    return np.array([line.split() for line in lines], dtype=int).repeat(EVERY, 0).repeat(EVERY, 1)
