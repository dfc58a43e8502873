"""Chapter 6, large pictures: read at once, or by sliding windows, with seams where they fall."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from tqdm import tqdm

from scclip_core.clip import FrozenCLIP
from scclip_core.pipeline import SCCLIP
from scclip_core.segmentation import best_class, sliding_logits
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import count_classes, interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.plots import error_bars
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import label_rows, read_labels, show_image
from scclip_lab.studies.reading import PATCH

# Pixels of the side of a test scene, of a training image and of a window.
SIDE = 224
# How a wrong pixel is painted, red, green and blue.
WRONG = (213, 94, 0)
# Where scenes meet in a large picture that is shifted, and in one that is not.
SEAMS = {True: "anywhere", False: "where windows begin"}


def score_counts(found: Mapping[Any, list[np.ndarray]], column: str, seed: int) -> pd.DataFrame:
    """mIoU, object and background pixels right, for the counts of every key of `found`."""
    rows = []
    for measure, statistic in MEAN_AND_PARTS.items():
        for key, counts in found.items():
            rows.append((measure, key, *interval(np.stack(counts), statistic, seed)))
    return pd.DataFrame(rows, columns=["measure", column, "value", "low", "high"])


def mosaic_offset(index: int) -> tuple[int, int]:
    """Where picture `index` is cut out of its mosaic: pixels from the top and from the left.

    Neither is a multiple of the patch, 16, so that no seam of two scenes lies where a window or
    a patch begins.
    """
    rng = np.random.default_rng((TEST, 3, index))
    whole, rest = rng.integers(0, SIDE // PATCH, 2), rng.integers(1, PATCH, 2)
    row, col = PATCH * whole + rest
    return int(row), int(col)


def panorama(index: int, shifted: bool = True) -> Scene:
    """A large picture, 448 x 672 pixels, cut out of a mosaic of test scenes of 224 pixels.

    If `shifted`, it is cut at `mosaic_offset`, so that scenes are cut and meet anywhere. Otherwise
    it shows six whole scenes, and their seams lie exactly where sliding windows begin.
    """
    tiles = [evaluation_scene(TEST, 3, 12 * index + i) for i in range(12)]
    lines = [tiles[i : i + 4] for i in (0, 4, 8)]
    image = np.concatenate([np.concatenate([t.image for t in line], 1) for line in lines])
    labels = np.concatenate([np.concatenate([t.labels for t in line], 1) for line in lines])
    row, col = mosaic_offset(index) if shifted else (0, 0)
    part = slice(row, row + 2 * SIDE), slice(col, col + 3 * SIDE)
    seen = np.unique(labels[part])
    objects = tuple(WORDS[i] for i in seen if i < N_OBJECTS)
    return Scene(image[part], labels[part], objects, WORDS[seen[-1]])


def read_panorama(segmenter: SCCLIP, scene: Scene) -> dict[str, Tensor]:
    """Label maps of a large picture: at once, and by windows of 224 at steps of 224 and of 112."""
    images = stack_images(segmenter.model, [scene])
    names, text = segmenter.embed_classes(WORDS)
    maps = {"whole picture at once": segmenter.segment(images, WORDS)[0]}
    for stride in (224, 112):
        (logits,) = sliding_logits(
            lambda cut: segmenter.logits(cut, text), list(images), window=224, stride=stride
        )
        maps[f"windows of 224, step {stride}"] = best_class(logits, names, scene.labels.shape)[1]
    return maps


def compare_windows(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """Scores on large pictures, at once and by windows, on `count` pictures of each kind.

    The column `seams` says where scenes meet: anywhere, or exactly where windows begin. `seed` is
    that of the bootstrap.
    """
    segmenter, tables = SCCLIP(model), []
    for shifted, seams in SEAMS.items():
        found: dict[str, list[np.ndarray]] = {}
        for index in tqdm(range(count), desc=f"panoramas, seams {seams}"):
            scene = panorama(index, shifted)
            truth = torch.from_numpy(scene.labels)
            for name, labels in read_panorama(segmenter, scene).items():
                found.setdefault(name, []).append(count_classes(labels, truth, len(WORDS)))
        tables.append(score_counts(found, "inference", seed).assign(seams=seams))
    return pd.concat(tables, ignore_index=True).assign(pictures=count, seed=seed)


def panorama_maps(model: FrozenCLIP, index: int = 0) -> pd.DataFrame:
    """Where each inference is right on one large picture: 1 right, 0 wrong, a row for each line."""
    scene = panorama(index)
    truth, rows = torch.from_numpy(scene.labels), []
    for name, labels in read_panorama(SCCLIP(model), scene).items():
        right = labels == truth
        share = float(right.float().mean())
        rows += [(name, share, *line) for line in label_rows(right.int())]
    table = pd.DataFrame(rows, columns=["inference", "right", "line", "labels"])
    return table.assign(picture=index)


@figure("06_panorama")
def draw_panorama(table: pd.DataFrame) -> Figure:
    """One large picture, its seams and windows, and the pixels that each inference has wrong."""
    index = int(table["picture"].iloc[0])
    image, (row, col) = panorama(index).image, mosaic_offset(index)
    maps = {
        (str(name), float(lines["right"].iloc[0])): read_labels(lines["labels"])
        for name, lines in table.groupby("inference", sort=False)
    }
    drawn, axes = plt.subplots(2, 2, figsize=(12, 9.2))
    show_image(axes[0, 0], image, "the picture; dashed: seams of the scenes")
    height, width = image.shape[:2]
    for across in range(SIDE - row, height, SIDE):
        axes[0, 0].axhline(across, color="white", linestyle="--", linewidth=2)
    for down in range(SIDE - col, width, SIDE):
        axes[0, 0].axvline(down, color="white", linestyle="--", linewidth=2)
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1) * 0.4 + 150
    for axis, ((name, share), right) in zip(axes.flat[1:], maps.items(), strict=True):
        painted = np.where(right[..., None] == 1, grey, WRONG).astype(np.uint8)
        show_image(axis, painted, f"{name}: {share:.0%} right")
        step = int(name.rpartition(" ")[2]) if "step" in name else 0
        for start in range(step, width, step) if step else ():
            axis.axvline(start, color="#0072B2", linewidth=1.5)
            if start < height:
                axis.axhline(start, color="#0072B2", linewidth=1.5)
    handles = [
        Patch(color=np.array(WRONG) / 255, label="wrong word"),
        Patch(color="#0072B2", label="where windows begin"),
    ]
    drawn.tight_layout()
    look = {"loc": "lower left", "bbox_to_anchor": (0.01, -0.04), "frameon": False}
    drawn.legend(handles=handles, ncols=2, fontsize=13, **look)
    return drawn


@figure("06_windows")
def draw_windows(table: pd.DataFrame) -> Figure:
    """Scores on large pictures, at once and by windows: a colour for where the scenes meet."""
    names = list(table["inference"].unique())
    drawn, axes = plt.subplots(1, len(MEAN_AND_PARTS), figsize=(17, 3.6), sharey=True)
    for axis, measure in zip(axes, MEAN_AND_PARTS, strict=True):
        part = table[table["measure"] == measure]
        for i, (seams, rows) in enumerate(part.groupby("seams", sort=False)):
            rows = rows.set_index("inference").loc[names]
            place = np.arange(len(rows)) + 0.38 * (i - 0.5)
            look = {"capsize": 3, "label": f"seams {seams}"}
            axis.barh(place, 100 * rows["value"], 0.36, xerr=100 * error_bars(rows), **look)
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel=f"{measure} (%)", xlim=(0, 100))
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    axes[0].legend(frameon=False, fontsize=12, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
