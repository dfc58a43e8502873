"""Chapter 9: training-free methods side by side: what they change, label maps, scores, times."""

import textwrap
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scclip_core.baselines import METHODS, make_method
from scclip_core.clip import FrozenCLIP
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.metrics import interval, mean_iou, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods
from scclip_lab.evaluation.reproduction import read_published
from scclip_lab.evaluation.timing import compare, machine
from scclip_lab.plots import OKABE_ITO, error_bars
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.drawing import (
    HATCHING,
    draw_method_scores,
    label_rows,
    legend_handles,
    paint_labels,
    read_labels,
    show_image,
    word_colours,
)
from scclip_lab.studies.reading import segment_by_methods
from scclip_lab.studies.tables import STYLE_NAMES

SCCLIP_BESIDES = "LOF repair; aggregation by layers 8 and 3; layers 3 to 9 fused"
# What each method does in the last block: attention, residual, MLP; and what it does besides.
CHANGES = {
    "vanilla": ("QK", "yes", "yes", ""),
    "values": ("identity", "no", "no", ""),
    "maskclip": ("identity", "yes", "yes", ""),
    "sclip": ("QQ + KK", "yes", "yes", ""),
    "clearclip": ("QQ", "no", "no", ""),
    "naclip": ("KK + Gaussian", "no", "no", ""),
    "gem": ("QQ, KK, VV, twice", "own path", "no", "last six blocks"),
    "resclip": ("KK + Gaussian, QK", "no", "no", "QK of blocks 5 to 8, feedback of words"),
    "registers": ("QK", "yes", "yes", "a register takes neurons of blocks 0 to 5"),
    "rfclip": ("KK of all blocks", "no", "no", "tokens filtered in all blocks"),
    "scclip": ("content and QK", "0.3 cls", "no", SCCLIP_BESIDES),
    "scclip-published": ("content and KK", "0.3 cls", "no", SCCLIP_BESIDES),
}
# The benchmarks as papers call them.
BENCHMARK_NAMES = {
    "voc21": "VOC21",
    "context60": "Context60",
    "coco-object": "COCO-Object",
    "voc20": "VOC20",
    "context59": "Context59",
    "coco-stuff": "COCO-Stuff",
    "cityscapes": "Cityscapes",
    "ade20k": "ADE20K",
}
# The test scene of the figure of label maps; its random seed is 1.
SCENE = 3


def compare_methods(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """Every method's mIoU, its paired difference to SC-CLIP, objects and background right.

    Each is measured on `count` test scenes of each style, with 95 % bootstrap intervals.
    """
    methods = {name: make_method(name, model) for name in METHODS}
    rows = []
    for style in STYLES:
        counted = score_methods(methods, style, count, seed, TEST)
        for name, counts in counted.items():
            for measure, statistic in MEAN_AND_PARTS.items():
                rows.append((measure, name, style, *interval(counts, statistic, seed)))
            paired = paired_interval(counts, counted["scclip"], mean_iou, seed)
            rows.append(("mIoU minus scclip", name, style, *paired))
    columns = ["measure", "method", "styles", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def compare_label_maps(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of one scene in both styles: the truth, and those of every method.

    Returns a row for each line of a map, with the labels of the line as one text.
    """
    rows = []
    for style in STYLES:
        scene = evaluation_scene(TEST, 1, SCENE, style)
        maps = {
            "truth": torch.from_numpy(scene.labels),
            **segment_by_methods(model, scene, METHODS),
        }
        for name, labels in maps.items():
            rows += [(style, name, *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["styles", "what", "line", "labels"])


def time_methods(model: FrozenCLIP, batch: int = 1, repeats: int = 10) -> pd.DataFrame:
    """The time of every method's features, as a ratio to vanilla's in the same round."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    runs: dict[str, Callable[[], object]] = {
        name: partial(make_method(name, model).features, images) for name in METHODS
    }
    return compare(runs, repeats).assign(model=model.name, batch=batch, **machine())


def describe_changes() -> pd.DataFrame:
    """What every method does in the last block: method, attention, residual, MLP, besides."""
    columns = ["attention", "residual", "MLP", "besides"]
    table = pd.DataFrame.from_dict(CHANGES, orient="index", columns=columns)
    return table.rename_axis("method").reset_index()


def published_scores() -> pd.DataFrame:
    """The mIoU that is stated for methods on eight benchmarks, a row for each method and source.

    ViT-B/16 where the method's name does not say another backbone. The kind of a source says how
    far it can be relied on: paper, README, article or third party.
    """
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for _, claim in read_published().iterrows():
        method, backbone = claim["method"], claim["backbone"]
        title = method if backbone == "ViT-B-16" else f"{method}, {backbone}"
        source = f"{claim['kind']}: {claim['source']}"
        row = rows.setdefault((title, source), {"method": title})
        row[BENCHMARK_NAMES[claim["dataset"]]] = claim["mIoU"]
    table = [row | {"source": source} for (_, source), row in rows.items()]
    return pd.DataFrame(table, columns=["method", *BENCHMARK_NAMES.values(), "source"])


def equivalent_scenes(table: pd.DataFrame) -> pd.DataFrame:
    """The number of labelled scenes with which fine-tuning reaches a training-free method's mIoU.

    Between the numbers of scenes that were measured, mIoU is interpolated over the logarithm of
    the number; outside, it is "fewer than 10" or "more than 1,000".

    Takes the table of `training.finetune`. Returns the columns styles, method, fine-tuned, and
    labelled scenes.
    """
    rows, part = [], table[table["measure"] == "mIoU"]
    tuned, free = part[part["labelled scenes"] > 0], part[part["labelled scenes"] == 0]
    for (style, trained), line in tuned.groupby(["styles", "trained"], sort=False):
        amounts, reached = line["labelled scenes"].to_numpy(), line["value"].to_numpy()
        for _, method in free[free["styles"] == style].iterrows():
            value = float(method["value"])
            if value < reached[0]:
                scenes = f"fewer than {amounts[0]}"
            elif value > reached[-1]:
                scenes = f"more than {amounts[-1]:,}"
            else:
                scenes = f"{np.exp(np.interp(value, reached, np.log(amounts))):.0f}"
            rows.append((style, METHOD_NAMES[method["trained"]], trained, scenes))
    return pd.DataFrame(rows, columns=["styles", "method", "fine-tuned", "labelled scenes"])


@figure("09_finetuned")
def draw_finetuned(table: pd.DataFrame) -> Figure:
    """mIoU over the number of labelled scenes; what training-free methods reach is dashed."""
    drawn, axes = plt.subplots(1, len(STYLES), figsize=(16, 5), sharey=True)
    part = table[table["measure"] == "mIoU"]
    # Yellow is hard to see as a line.
    colours = [colour for colour in OKABE_ITO if colour != "#F0E442"]
    for axis, (style, rows) in zip(axes, part.groupby("styles", sort=False), strict=True):
        groups = rows.groupby("trained", sort=False)
        for colour, (trained, line) in zip(colours, groups, strict=False):
            name = METHOD_NAMES.get(str(trained), str(trained))
            if (line["labelled scenes"] == 0).all():
                value, low, high = 100 * line[["value", "low", "high"]].iloc[0]
                axis.axhline(value, color=colour, linestyle="--", label=f"{name}, no label")
                axis.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
            else:
                amounts, values = line["labelled scenes"], 100 * line["value"]
                look = {"color": colour, "marker": "o", "capsize": 4, "label": name}
                axis.errorbar(amounts, values, 100 * error_bars(line), **look)
        axis.set(xscale="log", xlabel="labelled scenes", title=f"{STYLE_NAMES[style]}")
        axis.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
        axis.minorticks_off()
    axes[0].set(ylabel="mIoU (%)", ylim=(0, None))
    look = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes[-1].legend(frameon=False, fontsize=12, **look)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("09_changes")
def draw_changes(table: pd.DataFrame) -> Figure:
    """A diagram of the last block of every method: what is changed, and what is left out."""
    columns = 4
    lines = -(-len(table) // columns)
    drawn, axes = plt.subplots(lines, columns, figsize=(3.75 * columns, 4.2 * lines))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (_, row) in zip(axes.flat, table.fillna("").iterrows(), strict=False):
        axis.set(xlim=(0, 10), ylim=(-2.6, 10))
        axis.set_title(METHOD_NAMES[row["method"]], fontsize=14)
        parts = (
            (1.0, "layer norm", "yes"),
            (3.2, row["attention"], "changed" if row["attention"] != "QK" else "yes"),
            (5.4, f"residual: {row['residual']}", row["residual"]),
            (7.6, f"MLP: {row['MLP']}", row["MLP"]),
        )
        for height, text, kept in parts:
            colour = {"yes": "#56B4E9", "no": "white"}.get(kept, "#E69F00")
            line = "--" if kept == "no" else "-"
            axis.add_patch(Rectangle((1, height), 8, 1.6, fc=colour, ec="0.3", ls=line))
            axis.text(5, height + 0.8, text, ha="center", va="center", fontsize=12)
        for height in (2.6, 4.8, 7.0):
            arrow = {"arrowstyle": "->", "color": "0.3"}
            axis.annotate("", (5, height + 0.6), (5, height), arrowprops=arrow)
        if row["besides"]:
            axis.add_patch(Rectangle((1, -2.3), 8, 2.5, fc="#E69F00", ec="0.3"))
            text = textwrap.fill(row["besides"], 25)
            axis.text(5, -1.05, text, ha="center", va="center", fontsize=11.5)
            axis.annotate("", (5, 0.9), (5, 0.2), arrowprops=arrow)
    note = (
        "Read upwards. Blue: as trained; orange: changed; dashed: left out."
        " A lowest box: what the method changes outside this block."
    )
    drawn.text(0.01, -0.02, note, fontsize=13)
    drawn.tight_layout()
    return drawn


@figure("09_maps")
def draw_label_maps(table: pd.DataFrame) -> Figure:
    """One scene in each style: the picture, the truth, and the label map of every method."""
    columns = 6
    groups = {str(style): part for style, part in table.groupby("styles", sort=False)}
    maps = {
        style: {
            str(n): read_labels(lines["labels"]) for n, lines in part.groupby("what", sort=False)
        }
        for style, part in groups.items()
    }
    colours = word_colours([found["truth"] for found in maps.values()], len(WORDS), N_OBJECTS)
    lines = -(-(1 + max(map(len, maps.values()))) // columns)
    size = (2.6 * columns, len(maps) * (2.95 * lines + 0.8))
    drawn = plt.figure(figsize=size, layout="constrained")
    parts = drawn.subfigures(len(maps), 1, squeeze=False).flat
    for part, (style, found) in zip(parts, maps.items(), strict=True):
        axes = part.subplots(lines, columns).flatten()
        for axis in axes:
            axis.axis("off")
        show_image(axes[0], evaluation_scene(TEST, 1, SCENE, style).image, f"{STYLE_NAMES[style]}")
        for axis, (name, labels) in zip(axes[1:], found.items(), strict=False):
            painted = paint_labels(labels, found["truth"], colours)
            show_image(axis, painted, METHOD_NAMES.get(name, name))
        others = [labels for name, labels in found.items() if name != "truth"]
        handles = legend_handles(found["truth"], others, colours, WORDS)
        part.legend(
            handles=handles,
            loc="outside lower left",
            ncols=len(handles),
            frameon=False,
            fontsize=12,
        )
    drawn.supxlabel(HATCHING, x=0.005, ha="left", fontsize=13)
    return drawn


@figure("09_baselines")
def draw_scores(table: pd.DataFrame) -> Figure:
    """mIoU, and object and background pixels right, of every method in both styles."""
    names = {name: METHOD_NAMES[name] for name in table["method"].unique()}
    return draw_method_scores(table, tuple(MEAN_AND_PARTS), names)
