"""The main job, `make figures`: scenes segmented with words, the trace, and the model's scores.

Every figure is written with the numbers that it shows, as a CSV file.
"""

import json
import math
from pathlib import Path

import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.files import DATA
from scclip_core.loading import load_clip
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.metrics import count_classes
from scclip_lab.evaluation.mini import (
    MEAN_AND_PARTS,
    MEASURES,
    evaluate_mini,
    save_evaluation,
    stack_images,
)
from scclip_lab.plots import OKABE_ITO, save_figure, set_theme
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.drawing import GalleryRow, draw_method_scores, draw_scene_gallery
from scclip_lab.studies.phenomena import draw_phenomena, measure_phenomena
from scclip_lab.studies.reading import segment_by_methods
from scclip_lab.studies.tables import STYLE_NAMES

# Random seeds of the test scenes; nothing was chosen on them.
GALLERY_SEED, EVALUATION_SEED = 1, 7
METHODS = ("vanilla", "values", "scclip", "scclip-published")


def make_figures(folder: Path, quick: bool = False) -> None:
    """Write gallery, trace, scores, phenomena and training curve of the bundled model.

    `quick` takes fewer scenes.
    """
    set_theme()
    torch.manual_seed(0)
    model = load_clip("mini")
    save_figure(*gallery(model, per_style=1 if quick else 4), "gallery", folder)
    scene = evaluation_scene(TEST, GALLERY_SEED, 0)
    traced = pd.DataFrame(SCCLIP(model).trace(stack_images(model, [scene]), WORDS))
    save_figure(draw_trace(traced), traced, "trace", folder)
    count = 8 if quick else 200
    table = evaluate_mini(model, count, EVALUATION_SEED, methods=METHODS)
    save_evaluation(table, folder)
    save_figure(draw_scores(table), table, "mini", folder)
    found = measure_phenomena(model, 4 if quick else 32, EVALUATION_SEED)
    save_figure(draw_phenomena(found), found, "phenomena", folder)
    curve = pd.read_json(DATA / "mini" / "curve.json")
    save_figure(draw_training(curve), curve, "training", folder)


def gallery(model: FrozenCLIP, per_style: int) -> tuple[Figure, pd.DataFrame]:
    """The first test scenes of each style: picture, truth, and the label map of each method.

    The scenes are taken by their number, not chosen, and all words are offered.
    """
    rows, numbers = [], []
    for style in STYLES:
        for index in range(per_style):
            scene = evaluation_scene(TEST, GALLERY_SEED, index, style)
            truth = torch.from_numpy(scene.labels)
            maps, captions = {}, {}
            for method, labels in segment_by_methods(model, scene, METHODS).items():
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
            title = f"{STYLE_NAMES[style]}\nscene {index}"
            rows.append(GalleryRow(title, scene.image, scene.labels, maps, captions))
    note = (
        f"The first test scenes of each style, unchosen; all {len(WORDS)} words are"
        " offered. Below a map: its mIoU, and the shares of object and background pixels that have"
        " the right word."
    )
    drawn = draw_scene_gallery(rows, WORDS, N_OBJECTS, note)
    columns = ["styles", "scene", "words", "method", *MEASURES]
    return drawn, pd.DataFrame(numbers, columns=columns)


@figure("trace")
def draw_trace(table: pd.DataFrame) -> Figure:
    """How many numbers each tensor of one scene's forward pass has, by stage."""
    sizes = [math.prod(json.loads(shape)) for shape in table["shape"]]
    names = table["tensor"] + "  " + table["shape"]
    drawn, axis = plt.subplots(figsize=(11, 0.3 * len(table) + 1))
    colours = [OKABE_ITO[stage % len(OKABE_ITO) - 1] for stage in table["stage"]]
    axis.barh(names, sizes, color=colours, log=True)
    for stage, rows in table.groupby("stage"):
        place = (max(sizes) * 1.3, float(rows.index.to_numpy().mean()))
        axis.annotate(f"stage {stage}", place, va="center", fontsize=12, annotation_clip=False)
    axis.set(xlabel="numbers in the tensor (one image)", ylim=(len(table) - 0.4, -0.6))
    axis.tick_params(axis="y", labelsize=10)
    sns.despine(drawn)
    return drawn


def draw_scores(table: pd.DataFrame) -> Figure:
    """mIoU, and the shares of object and background pixels that are right, with intervals."""
    table = table[table["objects"] == "all"]
    names = {name: METHOD_NAMES[name] for name in METHOD_NAMES if name in set(table["method"])}
    drawn = draw_method_scores(table, tuple(MEAN_AND_PARTS), names)
    count = table["scenes"].iloc[0]
    note = f"{count} test scenes of each style, all {len(WORDS)} words offered; 95 % intervals"
    drawn.axes[0].set_title(note, fontsize=12, loc="left")
    return drawn


@figure("training")
def draw_training(table: pd.DataFrame) -> Figure:
    """The loss of the bundled model's training, by step."""
    drawn, axis = plt.subplots(figsize=(10, 4.4))
    for side, rows in table.groupby("side", sort=False):
        label = f"scenes of {side} x {side} pixels"
        axis.plot(rows["step"], rows["loss"], marker="o", markersize=3, label=label)
    axis.set(xlabel="step", ylabel="loss (mean of 250 steps)")
    axis.legend(frameon=False, fontsize=11)
    hours = table["hours"].sum()
    axis.set_title(f"{hours:.1f} hours on one thread of a CPU", fontsize=12, loc="left")
    sns.despine(drawn)
    return drawn
