"""Chapter 11: cheaper detectors of anomalous tokens: what they find, what it changes, the cost."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_auc_score

from scclip_core.anomaly import flag_anomalies
from scclip_core.clip import FrozenCLIP
from scclip_core.pipeline import SCCLIP
from scclip_lab.evaluation.metrics import GAINED, mean_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.plots import error_bars
from scclip_lab.studies import figure
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.ch11_effects import KNOWN, NOTHING, ORIGINS, REGISTER, TRUTH
from scclip_lab.studies.ch11_flags import RULES, as_ranks
from scclip_lab.studies.ch11_planting import (
    CASES,
    TOKEN_CASES,
    layers_after,
    low_information,
    plant,
    scenes_in_batches,
)
from scclip_lab.studies.ch11_times import EXACT, GRID, detectors
from scclip_lab.studies.drawing import draw_maps, draw_numbers, map_rows
from scclip_lab.studies.tables import best_row, row_where

MEAN = "mean of all"
# How figures call the detectors.
NAMES = {
    "lof": "LOF, exact",
    "landmarks": "LOF, 64 landmarks",
    "projection": "LOF, 16 dimensions",
    "grid": "LOF, grid window",
    "cosine": "LOF, unit tokens",
    "knn": "k-NN distance",
    "neighbours": "unlike 8 neighbours",
    "norm": "norm",
    "unusual-norm": "unusual norm",
    "attention": "attention received",
}
# What the first figure shows: detectors by case.
SHOWN = {
    "long and alike": ("lof", "neighbours", "norm"),
    "alike": ("lof", "cosine", "neighbours", "norm"),
}
# A detector counts as not worse where no interval of its differences to exact LOF reaches below
# these limits: one point of what is right, and 0.05 of ROC AUC. Both were set on validation scenes.
MARGIN, AREA_MARGIN = -0.01, -0.05
# A detector counts as faster where it takes at most half the time at these numbers of patches; at
# 196 there is little to save.
LARGE, HALF = (784, 4096), 0.5


def score_maps(model: FrozenCLIP) -> pd.DataFrame:
    """The scores of some detectors in the example scene, in two of whose cases patches are planted.

    A score is shown by its rank: the share of the image's patches with a lower one. The column
    `planted` tells where.
    """
    images = stack_images(model, [example_scene()])
    where, scorers = low_information(images), detectors(model, GRID)
    maps = {}
    for case, names in SHOWN.items():
        tokens = layers_after(SCCLIP(model), images, where, case)[-1]
        for name in names:
            ranks = as_ranks(scorers[name](tokens))[0]
            maps[f"{case}:\n{NAMES[name]}"] = ranks.view(GRID, GRID)
    return map_rows(maps).assign(planted=np.tile(where[0].numpy(), len(maps)))


def find_planted(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """ROC AUC and precision at 5 % of every detector by what is planted, in `count` test scenes.

    As many patches are flagged as were planted, so that precision equals recall. Returns means
    over scenes, with paired differences to the exact local outlier factor (gain, gain_low,
    gain_high), and 95 % bootstrap intervals of both.
    """
    segmenter, scorers = SCCLIP(model), detectors(model, GRID)
    found: dict[tuple[str, str, str], list[float]] = {}
    for first, scenes in scenes_in_batches(count, seed):
        for case in CASES:
            images, where = plant(scenes, case, model, seed, first)
            tokens = layers_after(segmenter, images, where, case)[-1]
            for name, scorer in scorers.items():
                scores = scorer(tokens)
                right = flag_anomalies(scores, 0.05) & where
                precision = (right.sum(1) / where.sum(1)).tolist()
                area = [roc_auc_score(*pair) for pair in zip(where, scores, strict=True)]
                found.setdefault((case, name, "ROC AUC"), []).extend(area)
                found.setdefault((case, name, "precision"), []).extend(precision)
    for name in scorers:
        for measure in ("ROC AUC", "precision"):
            each = [found[case, name, measure] for case in CASES]
            found[MEAN, name, measure] = np.mean(each, 0).tolist()
    rows = []
    for (case, name, measure), values in found.items():
        own, exact = np.array(values), np.array(found[case, EXACT, measure])
        gain = mean_interval(own - exact, seed)
        rows.append((case, name, measure, *mean_interval(own, seed), *gain))
    columns = ["case", "detector", "measure", *GAINED]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def judge(found: pd.DataFrame, effects: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """What each detector is worth beside exact LOF, a row each, from the three tables.

    "finds as well": the paired interval of its mean ROC AUC lies above `AREA_MARGIN`. "not worse":
    for every origin of outliers the paired intervals of mIoU, objects right and background right
    lie above `MARGIN`. "faster": the upper quartile of its time ratio is at most `HALF` at the
    numbers of patches `LARGE`.
    """
    rows = []
    changes = effects[effects["measure"].isin(list(MEAN_AND_PARTS))]
    areas = found[(found["measure"] == "ROC AUC") & (found["case"] == MEAN)]
    for name, title in NAMES.items():
        area = row_where(areas, detector=name)
        change = changes[changes["repaired"] == name]
        lowest = best_row(change.assign(loss=-change["gain_low"]), "loss")
        time = times[times["what"] == name].set_index("patches")
        verdicts = {
            "finds as well": area["gain_low"] > AREA_MARGIN,
            "not worse": lowest["gain_low"] > MARGIN,
            "faster": (time.loc[list(LARGE), "ratio_high"] <= HALF).all(),
        }
        if name != EXACT:
            rows.append(
                {
                    "detector": title,
                    "ROC AUC": area["value"],
                    "lowest interval from (points)": 100 * lowest["gain_low"],
                    "in": f"{lowest['measure']}, {lowest['origin']}",
                    **{f"time, N = {n:,}": ratio for n, ratio in time["ratio"].items()},
                    **{what: "yes" if holds else "no" for what, holds in verdicts.items()},
                    "all three": "yes" if all(verdicts.values()) else "no",
                }
            )
    return pd.DataFrame(rows)


@figure("11_planted")
def draw_planted(table: pd.DataFrame) -> Figure:
    """The example scene, and the ranks of detectors, with a frame around every planted patch."""
    label = "share of patches with a lower score"
    drawn = draw_maps(table, example_scene().image, columns=4, label=label)
    first = table[table["panel"] == table["panel"].iloc[0]]
    size = len(example_scene().image) / GRID
    for axis in drawn.axes[: table["panel"].nunique() + 1]:
        # The picture has pixels, the maps have patches.
        side = size if axis is drawn.axes[0] else 1
        for _, patch in first[first["planted"]].iterrows():
            corner = (patch["col"] * side - 0.5, patch["row"] * side - 0.5)
            for colour, width in (("white", 4.5), ("#D55E00", 2)):
                look: dict[str, Any] = {"fill": False, "ec": colour, "lw": width}
                axis.add_patch(Rectangle(corner, side, side, **look))
    return drawn


@figure("11_detectors")
def draw_found(table: pd.DataFrame) -> Figure:
    """ROC AUC of every detector by case, as numbers on colours; chance is 0.5 and white."""
    part = table[table["measure"] == "ROC AUC"].assign(name=table["detector"].map(NAMES))
    cases = part["case"].unique()
    values = part.pivot(index="name", columns="case", values="value")
    values = values.loc[[name for name in NAMES.values() if name in values.index], cases]
    drawn, axis = draw_numbers(values, (0, 1), "ROC AUC")
    axis.axvline(len(TOKEN_CASES), color="0.2", linewidth=3)
    axis.axvline(len(CASES), color="0.2", linewidth=3)
    axis.set(xlabel="planted in tokens | in pixels | mean")
    return drawn


@figure("11_effects")
def draw_effects(table: pd.DataFrame) -> Figure:
    """Paired change of mIoU against exact LOF, by what is repaired: a panel for each origin."""
    part = table[table["measure"] == "mIoU"]
    order = [NOTHING, *NAMES, TRUTH, REGISTER, KNOWN]
    names = [name for name in order if name != EXACT and name in set(part["repaired"])]
    drawn, axes = plt.subplots(1, len(ORIGINS), figsize=(18, 6), sharey=True, sharex=True)
    for axis, (origin, rows) in zip(axes, part.groupby("origin", sort=False), strict=True):
        rows = rows[rows["repaired"] != EXACT].set_index("repaired").reindex(names).dropna()
        columns = {"gain": "value", "gain_low": "low", "gain_high": "high"}
        shown = rows[list(columns)].rename(columns=columns)
        place = [names.index(str(name)) for name in rows.index]
        look: dict[str, Any] = {"fmt": "o", "markersize": 7, "capsize": 3, "color": "#0072B2"}
        axis.errorbar(100 * shown["value"], place, xerr=100 * error_bars(shown), **look)
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set_title("nothing planted" if origin == "nothing" else str(origin), fontsize=14)
    axes[0].set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
    axes[0].invert_yaxis()
    drawn.supxlabel("mIoU minus that with exact LOF (points)", fontsize=14)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("11_times")
def draw_times(table: pd.DataFrame) -> Figure:
    """Time and peak memory of every detector over the number of patches, as ratios to exact LOF.

    Memory below a tenth of a MiB is too little to be measured, and not drawn.
    """
    exact = table[table["what"] == EXACT].set_index("patches")["MiB"]
    measurable = table["MiB"].where(table["MiB"] > 0.1)
    shown = table.assign(memory=measurable / table["patches"].map(exact))
    drawn, axes = plt.subplots(1, 2, figsize=(16, 5.4))
    colours = sns.color_palette("tab10", len(NAMES))
    for axis, column in zip(axes, ("ratio", "memory"), strict=True):
        for colour, (name, title) in zip(colours, NAMES.items(), strict=True):
            part = shown[shown["what"] == name]
            look = {"marker": "o", "markersize": 6, "color": colour, "label": title}
            axis.loglog(part["patches"], part[column], **look)
        sizes = sorted(shown["patches"].unique())
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axis.minorticks_off()
        axis.set(xlabel="patches N")
    axes[0].set_ylabel("time, as a ratio to exact LOF")
    axes[1].set_ylabel("peak memory, as a ratio to exact LOF")
    axes[1].legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("11_flags")
def draw_flags(table: pd.DataFrame) -> Figure:
    """How many patches every rule flags, with nothing planted and in every case; 10 are planted."""
    part = table[table["measure"] == "flagged"]
    cases = list(part["case"].unique())
    drawn, axis = plt.subplots(figsize=(13, 4.8))
    colours = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
    for i, (rule, colour) in enumerate(zip(RULES, colours, strict=True)):
        rows = part[part["rule"] == rule].set_index("case").loc[cases].reset_index()
        place = np.arange(len(cases)) + 0.17 * (i - 1.5)
        look: dict[str, Any] = {
            "fmt": "o",
            "markersize": 8,
            "capsize": 3,
            "label": rule,
            "color": colour,
        }
        axis.errorbar(place, rows["value"], error_bars(rows), **look)
    axis.axhline(10, color="0.4", linestyle=":", linewidth=1.5)
    axis.annotate("planted", (-0.45, 10.3), fontsize=11, color="0.3")
    axis.set_xticks(range(len(cases)), cases)
    axis.set(ylabel="flagged patches of 196", ylim=(0, None))
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn
