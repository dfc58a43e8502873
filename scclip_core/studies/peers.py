"""Chapter 9: training-free methods side by side: maps, numbers, times, and what each changes."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.evaluation import dense, stack_images
from scclip_core.files import DATA
from scclip_core.methods import METHODS, make_method
from scclip_core.metrics import interval, mean_iou, paired_interval, pixel_accuracy
from scclip_core.plots import OKABE_ITO, colour_labels, name_colours, spread
from scclip_core.scenes import STYLES, TEST, WORDS, evaluation_scene
from scclip_core.studies import figure
from scclip_core.studies.drawing import label_rows, read_labels
from scclip_core.timing import compare, machine

NAMES = {
    "vanilla": "vanilla CLIP",
    "maskclip": "MaskCLIP",
    "sclip": "SCLIP",
    "clearclip": "ClearCLIP",
    "naclip": "NACLIP",
    "gem": "GEM",
    "seed": "SC-CLIP (seed)",
    "reference": "SC-CLIP (reference)",
}
# what each does to the last block: attention, residual, MLP, and what else
CHANGES = {
    "vanilla": ("QK", "yes", "yes", ""),
    "maskclip": ("identity", "no", "no", ""),
    "sclip": ("QQ + KK", "yes", "yes", ""),
    "clearclip": ("QQ", "no", "no", ""),
    "naclip": ("KK + Gaussian", "no", "no", ""),
    "gem": ("QQ, KK, VV, twice", "own path", "no", "last six blocks"),
    "seed": ("content and QK", "0.3 cls", "no", "LOF repair, two aggregations, fusion"),
    "reference": ("content and KK", "0.3 cls", "no", "LOF repair, two aggregations, fusion"),
}
SCENE = 3  # test scene of the gallery, seed 1


def compare_methods(model: FrozenCLIP, count: int, seed: int = 2) -> pd.DataFrame:
    """mIoU, pixel accuracy, and paired difference to SC-CLIP of all methods, `count` test scenes a style."""
    methods = {name: make_method(name, model) for name in METHODS}
    rows = []
    for style in STYLES:
        counted = dense(methods, style, count, seed, TEST)
        for name, counts in counted.items():
            rows.append(("mIoU", name, style, *interval(counts, mean_iou, seed)))
            rows.append(("pixel accuracy", name, style, *interval(counts, pixel_accuracy, seed)))
            paired = paired_interval(counts, counted["seed"], mean_iou, seed)
            rows.append(("mIoU minus SC-CLIP (seed)", name, style, *paired))
    columns = ["measure", "method", "styles", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def maps_side_by_side(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of one scene in both styles: a row a (style, what, line), a line's labels in one string."""
    rows = []
    for style in STYLES:
        scene = evaluation_scene(TEST, 1, SCENE, style)
        maps = {"truth": torch.from_numpy(scene.labels)}
        for name in METHODS:
            maps[name] = make_method(name, model).segment(stack_images(model, [scene]), WORDS)[0]
        for name, labels in maps.items():
            rows += [(style, name, *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["styles", "what", "line", "labels"])


def time_methods(model: FrozenCLIP, batch: int = 1, repeats: int = 10) -> pd.DataFrame:
    """Time of every method's features as a ratio to vanilla's, side by side."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    methods = {name: make_method(name, model) for name in METHODS}
    runs = {name: lambda m=method: m.features(images) for name, method in methods.items()}
    return compare(runs, repeats).assign(model=model.name, batch=batch, **machine())


def changes() -> pd.DataFrame:
    """What every method does to the last block."""
    columns = ["attention", "residual", "MLP", "besides"]
    table = pd.DataFrame.from_dict(CHANGES, orient="index", columns=columns)
    return table.rename_axis("method").reset_index()


def published() -> pd.DataFrame:
    """mIoU that the peers' authors state on the eight benchmarks, ViT-B/16: claims, with their sources."""
    return pd.read_csv(DATA / "published.csv")


def worth(table: pd.DataFrame) -> pd.DataFrame:
    """How many labelled scenes a training-free method is worth: where a way of fine-tuning reaches its mIoU.

    Between the amounts measured, on a line over the logarithm of the scenes; "fewer than 10" or "more than
    1,000" outside.
    """
    rows, part = [], table[table["measure"] == "mIoU"]
    for (style, way), line in part[part["labelled scenes"] > 0].groupby(["styles", "way"], sort=False):
        amounts, reached = line["labelled scenes"].to_numpy(), line["value"].to_numpy()
        for level in part[(part["labelled scenes"] == 0) & (part["styles"] == style)].itertuples():
            if level.value < reached[0]:
                scenes = f"fewer than {amounts[0]}"
            elif level.value > reached[-1]:
                scenes = f"more than {amounts[-1]:,}"
            else:
                scenes = f"{np.exp(np.interp(level.value, reached, np.log(amounts))):.0f}"
            rows.append((style, NAMES[level.way], way, scenes))
    return pd.DataFrame(rows, columns=["styles", "method", "fine-tuned", "labelled scenes"])


@figure("09_finetuned")
def draw_finetuned(table: pd.DataFrame) -> Figure:
    """mIoU over the number of labelled scenes, with what training-free methods reach as level lines."""
    drawn, axes = plt.subplots(1, len(STYLES), figsize=(14, 4.8), sharey=True)
    part = table[table["measure"] == "mIoU"]
    for axis, (style, rows) in zip(axes, part.groupby("styles", sort=False), strict=True):
        for i, (way, line) in enumerate(rows.groupby("way", sort=False)):
            colour, label = OKABE_ITO[i if i < 3 else i + 1], NAMES.get(str(way), str(way))
            if (line["labelled scenes"] == 0).all():
                level = 100 * line[["value", "low", "high"]].iloc[0]
                axis.axhline(level["value"], color=colour, linestyle="--", label=f"{label}, no label")
                axis.axhspan(level["low"], level["high"], color=colour, alpha=0.12, linewidth=0)
            else:
                axis.errorbar(
                    line["labelled scenes"], 100 * line["value"], 100 * spread(line), color=colour,
                    marker="o", capsize=4, label=label,
                )  # fmt: skip
        axis.set(xscale="log", xlabel="labelled scenes", title=f"{style} style")
        axis.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
        axis.minorticks_off()
    axes[0].set_ylabel("mIoU (%)")
    axes[1].legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("09_changes")
def draw_changes(table: pd.DataFrame) -> Figure:
    """The last block of every method as a small diagram: kept is filled, left out is dashed."""
    drawn, axes = plt.subplots(2, 4, figsize=(15, 7.4))
    for axis, row in zip(axes.flat, table.fillna("").itertuples(), strict=True):
        axis.set(xlim=(0, 10), ylim=(0, 10))
        axis.axis("off")
        axis.set_title(NAMES[row.method], fontsize=14)
        parts = (
            (1.0, "layer norm", "yes"),
            (3.2, row.attention, "changed" if row.attention != "QK" else "yes"),
            (5.4, f"residual: {row.residual}", row.residual),
            (7.6, f"MLP: {row.MLP}", row.MLP),
        )
        for height, text, kept in parts:
            colour = {"yes": "#56B4E9", "no": "white"}.get(kept, "#E69F00")
            style = {"fc": colour, "ec": "0.3", "ls": "--" if kept == "no" else "-"}
            axis.add_patch(plt.Rectangle((1, height), 8, 1.6, **style))
            axis.text(5, height + 0.8, text, ha="center", va="center", fontsize=12)
        for height in (2.6, 4.8, 7.0):
            axis.annotate("", (5, height + 0.6), (5, height), arrowprops={"arrowstyle": "->", "color": "0.3"})
        axis.text(5, 0.3, row.besides, ha="center", va="center", fontsize=10, color="0.3")
    drawn.text(0.01, 0.005, "blue: as trained; orange: changed; dashed: left out", fontsize=12)
    drawn.tight_layout()
    return drawn


@figure("09_maps")
def draw_maps(table: pd.DataFrame) -> Figure:
    """One scene in both styles: the image, the truth, and what each method makes of it."""
    styles = table["styles"].unique()
    drawn, axes = plt.subplots(2 * len(styles), 5, figsize=(15, 7.3 * len(styles)))
    for number, (style, part) in enumerate(table.groupby("styles", sort=False)):
        maps = {str(name): read_labels(lines["labels"]) for name, lines in part.groupby("what", sort=False)}
        colours, handles = name_colours(maps["truth"], list(maps.values()), WORDS)
        image = evaluation_scene(TEST, 1, SCENE, str(style)).image
        panels = {f"{style} style": image}
        panels |= {NAMES.get(n, n): colour_labels(labels, colours) for n, labels in maps.items()}
        lines = axes[2 * number : 2 * number + 2]
        for axis, (title, picture) in zip(lines.flat, panels.items(), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[], title=title)
        lines[1, 0].legend(
            handles=handles, loc="upper left", bbox_to_anchor=(-0.05, -0.04), ncols=8, frameon=False,
            fontsize=11, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
    drawn.subplots_adjust(wspace=0.06, hspace=0.42)
    return drawn


@figure("09_peers")
def draw_peers(table: pd.DataFrame) -> Figure:
    """mIoU and pixel accuracy of all methods in both styles, with intervals."""
    drawn, axes = plt.subplots(1, 2, figsize=(15, 5.4), sharey=True)
    for axis, measure in zip(axes, ("mIoU", "pixel accuracy"), strict=True):
        part = table[table["measure"] == measure]
        for i, (style, rows) in enumerate(part.groupby("styles", sort=False)):
            place = np.arange(len(rows)) + 0.38 * (i - 0.5)
            axis.barh(
                place, 100 * rows["value"], 0.36, xerr=100 * spread(rows), capsize=3, label=f"{style} style"
            )
        axis.set_yticks(range(len(METHODS)), [NAMES[name] for name in METHODS])
        axis.set_xlabel(f"{measure} (%)")
    axes[0].set_ylim(len(METHODS) - 0.4, -0.6)
    axes[1].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
