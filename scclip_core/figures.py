"""The main job, `make figures`: scenes segmented with words, drawn beside the truth, with every number in a
CSV.
"""

from pathlib import Path

import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP, load_clip
from scclip_core.config import SCCLIPConfig
from scclip_core.curriculum import BRANCHES, TRUNK
from scclip_core.evaluation import evaluate_mini, save_evaluation, stack_images
from scclip_core.files import DATA
from scclip_core.methods import PRESETS, make_method
from scclip_core.metrics import count_classes, mean_iou, pixel_accuracy
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import draw_gallery, save_figure, set_theme, spread
from scclip_core.scenes import STYLES, TEST, WORDS, evaluation_scene

GALLERY_SEED, EVALUATION_SEED = 1, 2  # test scenes; nothing was tuned on them
TITLES = {
    "vanilla": "vanilla CLIP",
    "maskclip": "MaskCLIP-like",
    "seed": "SC-CLIP (seed)",
    "reference": "SC-CLIP (reference)",
}


def make_figures(folder: Path, quick: bool = False) -> None:
    """Write gallery, trace and evaluation of the bundled model into `folder`; `quick` takes fewer scenes."""
    set_theme()
    torch.manual_seed(0)
    model = load_clip("mini")
    save_figure(*gallery(model, per_style=1 if quick else 4), "gallery", folder)
    save_figure(*trace_table(model), "trace", folder)
    table = evaluate_mini(model, count=8 if quick else 200, seed=EVALUATION_SEED)
    save_evaluation(table, folder)
    save_figure(draw_evaluation(table), table, "mini", folder)
    save_figure(*training_curve(), "training", folder)


def gallery(model: FrozenCLIP, per_style: int) -> tuple[Figure, pd.DataFrame]:
    """Scenes in the training styles and in the style never seen: picture, truth, and the label map of each
    method.
    """
    methods = {name: make_method(name, model) for name in PRESETS}
    rows, numbers = [], []
    for style in STYLES:
        for index in range(per_style):
            scene = evaluation_scene(TEST, GALLERY_SEED, index, style)
            truth = torch.from_numpy(scene.labels)
            maps, captions = {"truth": scene.labels}, {"truth": f"{style} style"}
            for name, segmenter in methods.items():
                guess = segmenter.segment(stack_images(model, [scene]), WORDS)[0]
                counts = count_classes(guess, truth, len(WORDS))
                iou, accuracy = float(mean_iou(counts)), float(pixel_accuracy(counts))
                maps[TITLES[name]] = guess.numpy()
                captions[TITLES[name]] = f"mIoU {iou:.2f}, pixels {accuracy:.0%}"
                numbers.append((style, index, " ".join(scene.words), name, iou, accuracy))
            rows.append({"image": scene.image, "maps": maps, "captions": captions})
    figure = draw_gallery(rows, ["truth", *(TITLES[name] for name in methods)], WORDS)
    return figure, pd.DataFrame(
        numbers, columns=["styles", "scene", "words", "method", "mIoU", "pixel accuracy"]
    )


def trace_table(model: FrozenCLIP) -> tuple[Figure, pd.DataFrame]:
    """The walk of one scene through all stages, as a table and as a picture of it."""
    scene = evaluation_scene(TEST, GALLERY_SEED, 0)
    rows = SCCLIP(model, SCCLIPConfig()).trace(stack_images(model, [scene]), WORDS).rows()
    table = pd.DataFrame(rows)
    figure, axis = plt.subplots(figsize=(13, 0.33 * len(table) + 0.6))
    axis.axis("off")
    drawn = axis.table(
        cellText=table.astype(str).values,
        colLabels=list(table),
        cellLoc="left",
        colWidths=[0.06, 0.2, 0.17, 0.57],
        loc="center",
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(11)
    drawn.scale(1, 1.45)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_edgecolor("0.85")
        if row == 0:
            cell.set_text_props(weight="bold")
        elif int(table["stage"][row - 1]) % 2:
            cell.set_facecolor("0.95")
    return figure, table


def training_curve() -> tuple[Figure, pd.DataFrame]:
    """The loss of the bundled model's training, part by part; from `data/mini/curve.json`."""
    table = pd.read_json(DATA / "mini" / "curve.json")
    parts = (*TRUNK, *BRANCHES)
    figure, axis = plt.subplots(figsize=(10, 4.4))
    for number, rows in table.groupby("part"):
        side, branch = parts[number - 1].side, number > len(TRUNK)
        label = f"part {number}: {side} pixels" + (", a branch" if branch else "")
        axis.plot(rows["step"], rows["loss"], marker="o", markersize=3, label=label)
    axis.set(xlabel="step", ylabel="loss (mean of 250 steps)")
    axis.legend(frameon=False, fontsize=11)
    axis.set_title(f"{table['hours'].sum():.1f} hours on two cores", fontsize=12, loc="left")
    sns.despine(figure)
    return figure, table


def draw_evaluation(table: pd.DataFrame) -> Figure:
    """mIoU and pixel accuracy by method and style, with their intervals."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
    for axis, measure in zip(axes, ("mIoU", "pixel accuracy"), strict=True):
        part = table[table["measure"] == measure]
        for i, style in enumerate(STYLES):
            rows = part[part["styles"] == style].reset_index(drop=True)
            place = [k + 0.36 * (i - 0.5) for k in range(len(rows))]
            axis.bar(
                place, 100 * rows["value"], 0.34, yerr=100 * spread(rows), capsize=4, label=f"{style} style"
            )
        axis.set_xticks(
            range(len(PRESETS)), [TITLES[name].replace(" (", "\n(") for name in rows["method"]], fontsize=11
        )
        axis.set_ylabel(f"{measure} (%)")
    axes[0].legend(frameon=False)
    axes[0].set_title(
        f"{table['scenes'].iloc[0]} test scenes a style, 56 words, bars: 95 % intervals",
        fontsize=12,
        loc="left",
    )
    sns.despine(figure)
    figure.tight_layout()
    return figure
