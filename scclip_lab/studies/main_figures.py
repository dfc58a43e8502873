"""The main job, `make figures`: scenes segmented with words, the trace, and the model's scores.

Every figure is written with the numbers that it shows, as a CSV file.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.files import DATA
from scclip_core.loading import load_clip
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.metrics import count_classes
from scclip_lab.evaluation.mini import MEASURES, evaluate_mini, save_evaluation, stack_images
from scclip_lab.plots import error_bars, save_figure, set_theme
from scclip_lab.studies import METHOD_NAMES
from scclip_lab.studies.drawing import GalleryRow, draw_scene_gallery

# Random seeds of the test scenes; nothing was chosen on them.
GALLERY_SEED, EVALUATION_SEED = 1, 2
METHODS = ("vanilla", "values", "scclip", "scclip-published")


def make_figures(folder: Path, quick: bool = False) -> None:
    """Write gallery, trace, scores and training curve of the bundled model into a folder.

    `quick` takes fewer scenes.
    """
    set_theme()
    torch.manual_seed(0)
    model = load_clip("mini")
    save_figure(*gallery(model, per_style=1 if quick else 4), "gallery", folder)
    save_figure(*trace_table(model), "trace", folder)
    table = evaluate_mini(model, count=8 if quick else 200, seed=EVALUATION_SEED)
    save_evaluation(table, folder)
    save_figure(draw_scores(table), table, "mini", folder)
    save_figure(*training_curve(), "training", folder)


def gallery(model: FrozenCLIP, per_style: int) -> tuple[Figure, pd.DataFrame]:
    """The first test scenes of each style: picture, truth, and the label map of each method.

    The scenes are taken by their number, not chosen, and all words are offered.
    """
    methods = {name: make_method(name, model) for name in METHODS}
    rows, numbers = [], []
    for style in STYLES:
        for index in range(per_style):
            scene = evaluation_scene(TEST, GALLERY_SEED, index, style)
            images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
            maps, captions = {}, {}
            for method, segmenter in methods.items():
                labels = segmenter.segment(images, WORDS)[0]
                counts = count_classes(labels, truth, len(WORDS))
                scores = {name: float(measure(counts)) for name, measure in MEASURES.items()}
                maps[METHOD_NAMES[method]] = labels.numpy()
                captions[METHOD_NAMES[method]] = "\n".join(
                    [
                        f"mIoU {scores['mIoU']:.2f}",
                        f"objects right {scores['objects right']:.0%}",
                        f"background right {scores['background right']:.0%}",
                    ]
                )
                words = " ".join(scene.words)
                numbers.append((style, index, words, method, *scores.values()))
            title = f"{style} style\nscene {index}"
            rows.append(GalleryRow(title, scene.image, scene.labels, maps, captions))
    note = (
        f"The first test scenes of each style, unchosen; all {len(WORDS)} words are"
        " offered. Below a map: its mIoU, and the shares of object and background pixels that have"
        " the right word."
    )
    drawn = draw_scene_gallery(rows, WORDS, N_OBJECTS, note)
    columns = ["styles", "scene", "words", "method", *MEASURES]
    return drawn, pd.DataFrame(numbers, columns=columns)


def trace_table(model: FrozenCLIP) -> tuple[Figure, pd.DataFrame]:
    """Every tensor of one scene's forward pass, as a table and as a picture of it."""
    scene = evaluation_scene(TEST, GALLERY_SEED, 0)
    table = pd.DataFrame(SCCLIP(model).trace(stack_images(model, [scene]), WORDS))
    drawn, axis = plt.subplots(figsize=(13, 0.33 * len(table) + 0.6))
    axis.axis("off")
    cells = axis.table(
        cellText=table.astype(str).to_numpy().tolist(),
        colLabels=[str(column) for column in table],
        cellLoc="left",
        colWidths=[0.06, 0.23, 0.17, 0.54],
        loc="center",
    )
    cells.auto_set_font_size(False)
    cells.set_fontsize(11)
    cells.scale(1, 1.45)
    for (row, _), cell in cells.get_celld().items():
        cell.set_edgecolor("0.85")
        if row == 0:
            cell.set_text_props(weight="bold")
        elif int(table["stage"][row - 1]) % 2:
            cell.set_facecolor("0.95")
    return drawn, table


def draw_scores(table: pd.DataFrame) -> Figure:
    """mIoU, and the shares of object and background pixels that are right, with intervals."""
    measures = ("mIoU", "objects right", "background right")
    methods = [name for name in METHOD_NAMES if name in set(table["method"])]
    table = table[table["objects"] == "all"]
    size = (17, 0.5 * len(methods) + 1.6)
    drawn, axes = plt.subplots(1, len(measures), figsize=size, sharey=True)
    for axis, measure in zip(axes, measures, strict=True):
        part = table[table["measure"] == measure]
        for i, style in enumerate(STYLES):
            rows = part[part["styles"] == style].set_index("method").loc[methods]
            place = np.arange(len(rows)) + 0.38 * (i - 0.5)
            look = {"capsize": 3, "label": f"{style} style"}
            axis.barh(place, 100 * rows["value"], 0.36, xerr=100 * error_bars(rows), **look)
        axis.set_yticks(range(len(methods)), [METHOD_NAMES[name] for name in methods])
        axis.set_xlabel(f"{measure} (%)")
    axes[0].set_ylim(len(methods) - 0.4, -0.6)
    axes[0].legend(frameon=False, fontsize=11)
    count = table["scenes"].iloc[0]
    note = f"{count} test scenes of each style, all {len(WORDS)} words offered; 95 % intervals"
    axes[0].set_title(note, fontsize=12, loc="left")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


def training_curve() -> tuple[Figure, pd.DataFrame]:
    """The loss of the bundled model's training, from `data/mini/curve.json`.

    The curve names the side of the scenes in each row; older ones name the part of the training.
    """
    table = pd.read_json(DATA / "mini" / "curve.json")
    drawn, axis = plt.subplots(figsize=(10, 4.4))
    kind = "side" if "side" in table else "part"
    for number, rows in table.groupby(kind, sort=False):
        label = f"scenes of {number} x {number} pixels" if kind == "side" else f"part {number}"
        axis.plot(rows["step"], rows["loss"], marker="o", markersize=3, label=label)
    axis.set(xlabel="step", ylabel="loss (mean of 250 steps)")
    axis.legend(frameon=False, fontsize=11)
    axis.set_title(f"{table['hours'].sum():.1f} hours on two cores", fontsize=12, loc="left")
    sns.despine(drawn)
    return drawn, table
