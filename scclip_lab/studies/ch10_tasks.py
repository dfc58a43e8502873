"""Chapter 10: other tasks on the same frozen features, and what SC-CLIP's changes do to each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_lab.plots import error_bars
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import draw_band, draw_bars, draw_method_scores
from scclip_lab.studies.tables import best_row, row_where

# Importing them registers the figures of the examples.
from scclip_lab.studies.tasks_common import METHODS, MODULES, NAMES
from scclip_lab.studies.tasks_correspondence import CHANCE
from scclip_lab.studies.tasks_detection import TRUTH
from scclip_lab.studies.tasks_pictures import (
    shown_boxes,
    shown_frames,
    shown_masks,
    shown_matches,
    shown_regions,
)
from scclip_lab.studies.tasks_retrieval import CROP, WHOLE
from scclip_lab.studies.tasks_video import CEILING, STILL

__all__ = ["shown_boxes", "shown_frames", "shown_masks", "shown_matches", "shown_regions"]

# The measure by which each task is judged.
MEASURES = {
    "detection": "AP50",
    "by example": "IoU by example",
    "correspondence": "PCK@0.1",
    "video": "J",
    "retrieval": "text to region, average precision",
}
# Rows that are no features: baselines that look at nothing, and bounds that know the truth.
NOT_FEATURES = (TRUTH, CHANCE, STILL, CEILING)
BETTER, WORSE, EQUAL = "SC-CLIP is better", "the values are better", "cannot be told apart"


def judge(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """SC-CLIP against the values in every task, and the best features of all.

    Takes the tables of the tasks by the names of `MEASURES`. The verdict is that of the paired 95 %
    interval: a difference counts where the interval does not contain zero. Returns the columns
    task, styles, measure, values, scclip, value (the difference), low, high, verdict, best, best
    value.
    """
    rows = []
    for task, measure in MEASURES.items():
        table = tables[task][tables[task]["measure"] == measure]
        for style, part in table.groupby("styles", sort=False):
            own, base = (row_where(part, method=name)["value"] for name in ("scclip", "values"))
            change = row_where(part, method="scclip")[["gain", "gain_low", "gain_high"]].tolist()
            features = part[~part["method"].isin([*NOT_FEATURES, *MODULES])]
            features = features[~features["method"].str.endswith("by words")]
            best = best_row(features)
            verdict = BETTER if change[1] > 0 else WORSE if change[2] < 0 else EQUAL
            found = (verdict, best["method"], best["value"])
            rows.append((task, style, measure, base, own, *change, *found))
    columns = ["task", "styles", "measure", "values", "scclip", "value", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "verdict", "best", "best value"])


def module_shares(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What each module of SC-CLIP adds to each task: SC-CLIP minus SC-CLIP without it, paired.

    In training styles; for correspondence, on objects that are redrawn. Returns the columns task,
    module, value, low, high.
    """
    rows = []
    for task, table in tables.items():
        style = "redrawn" if task == "correspondence" else "training"
        part = table[(table["measure"] == MEASURES[task]) & (table["styles"] == style)]
        for name in MODULES:
            if (part["method"] == name).any():
                off = row_where(part, method=name)
                share = (-off["gain"], -off["gain_high"], -off["gain_low"])
                rows.append((task, name.removeprefix("without "), *share))
    return pd.DataFrame(rows, columns=["task", "module", "value", "low", "high"])


def best_layer(table: pd.DataFrame) -> pd.DataFrame:
    """For every change of a pair of pictures, the layer whose tokens match best.

    Takes the table of correspondence; returns the columns styles, layer, value, low, high.
    """
    layers = table[table["method"].str.startswith("layer ")]
    best = [best_row(part) for _, part in layers.groupby("styles", sort=False)]
    return pd.DataFrame(best)[["styles", "method", "value", "low", "high"]].reset_index(drop=True)


def _draw(table: pd.DataFrame, measures: Sequence[str], others: Sequence[str] = ()) -> Figure:
    """Bars of the methods, after those of other rows that the table has."""
    names = {name: NAMES.get(name, name) for name in (*others, *METHODS)}
    return draw_method_scores(table, measures, names)


@figure("10_detection")
def draw_detection(table: pd.DataFrame) -> Figure:
    """Average precision of boxes around components of label maps."""
    return _draw(table, ("AP50", "AP75", "AP50, a word twice"), (TRUTH,))


@figure("10_example")
def draw_example(table: pd.DataFrame) -> Figure:
    """How well an object marked in one picture is found in others, without words and with them."""
    others = ("values, by words", "scclip, by words", "pixels", "layer 3", "layer 8")
    return _draw(table, ("IoU by example", "found, IoU at least 0.5"), others)


@figure("10_pck")
def draw_pck(table: pd.DataFrame) -> Figure:
    """Share of points found, by layer, for each change; lines for pixels and methods."""
    groups = list(table.groupby("styles", sort=False))
    drawn, axes = plt.subplots(1, len(groups), figsize=(4.1 * len(groups), 4.6), sharey=True)
    lines = {
        "values": ("#0072B2", "-"),
        "vanilla": ("#009E73", "--"),
        "scclip": ("#D55E00", "-"),
        "pixels": ("0.4", ":"),
        CHANCE: ("0.7", "-."),
    }
    for axis, (change, part) in zip(axes, groups, strict=True):
        layers = part[part["method"].str.startswith("layer ")]
        number = layers["method"].str.removeprefix("layer ").astype(int)
        draw_band(axis, layers.assign(layer=number), "layer", "tokens of the layer")
        for name, (colour, line) in lines.items():
            value = 100 * row_where(part, method=name)["value"]
            axis.axhline(value, color=colour, ls=line, lw=2, label=NAMES.get(name, name))
        axis.set(title=change, xlabel="layer", xticks=range(0, 11, 2))
    axes[0].set_ylabel("PCK@0.1 (%)")
    axes[0].set_ylim(0)
    handles, labels = axes[0].get_legend_handles_labels()
    look: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, 0.02),
        "ncols": len(labels),
    }
    drawn.legend(handles, labels, frameon=False, fontsize=13, **look)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("10_video")
def draw_video(table: pd.DataFrame) -> Figure:
    """Regions (J) and outlines (F) of propagated masks, with two bounds that use no features."""
    return _draw(table, ("J", "F"), (STILL, CEILING, "pixels", "layer 3", "layer 8"))


@figure("10_retrieval")
def draw_retrieval(table: pd.DataFrame) -> Figure:
    """Words that find regions, and regions that find their word."""
    measures = ("text to region, recall@1", MEASURES["retrieval"], "object to text, recall@1")
    return _draw(table, measures, (WHOLE, CROP))


@figure("10_modules")
def draw_modules(table: pd.DataFrame) -> Figure:
    """What each module of SC-CLIP adds to each task, in points."""
    groups = list(table.groupby("task", sort=False))
    drawn, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 4), sharey=True)
    for axis, (task, part) in zip(axes, groups, strict=True):
        draw_bars(axis, part, "module")
        axis.set(title=task, xlabel=f"{MEASURES[str(task)]} (points)")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("10_verdicts")
def draw_verdicts(table: pd.DataFrame) -> Figure:
    """SC-CLIP minus the values in every task, in points, with paired intervals."""
    drawn, axis = plt.subplots(figsize=(11, 0.5 * len(table) + 1.2))
    colours = {BETTER: "#009E73", WORSE: "#D55E00", EQUAL: "0.5"}
    place = np.arange(len(table))
    for verdict, colour in colours.items():
        chosen = (table["verdict"] == verdict).to_numpy()
        rows = table[chosen]
        error = 100 * error_bars(rows)
        value = 100 * rows["value"]
        look: dict[str, Any] = {"fmt": "o", "color": colour, "capsize": 4, "label": verdict}
        axis.errorbar(value, place[chosen], xerr=error, **look)
    names = table["task"] + ": " + table["styles"] + " (" + table["measure"] + ")"
    axis.set_yticks(place, names, fontsize=12)
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set(xlabel="SC-CLIP minus the values (points)", ylim=(len(table) - 0.4, -0.6))
    axis.legend(frameon=False, fontsize=12, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(drawn)
    return drawn
