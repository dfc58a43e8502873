"""Chapter 6: from words to label maps: methods, prompts, absent words, sliding windows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from tqdm import tqdm

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_core.segmentation import best_class, sliding_logits
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import count_classes, interval, mean_iou
from scclip_lab.evaluation.mini import MEASURES, score_methods, stack_images
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.drawing import (
    GalleryRow,
    draw_band,
    draw_bars,
    draw_interval_bars,
    draw_scene_gallery,
    label_rows,
    read_labels,
)

# Index and style of the test scenes that are shown; their random seed is 1.
GALLERY = ((0, "training"), (1, "training"), (2, "held-out"))
METHODS = ("vanilla", "scclip", "scclip-published")
# The shares of object and background pixels that have the right word.
PARTS = ("objects right", "background right")


def compare_label_maps(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of the gallery's scenes: the truth, and those of each method.

    Returns a row for each line of a map, with the labels of the line as one text.
    """
    rows = []
    for number, (index, style) in enumerate(GALLERY):
        scene = evaluation_scene(TEST, 1, index, style)
        truth = torch.from_numpy(scene.labels)
        maps = {"truth": (truth, [float("nan")] * len(PARTS))}
        for name in METHODS:
            labels = make_method(name, model).segment(stack_images(model, [scene]), WORDS)[0]
            counts = count_classes(labels, truth, len(WORDS))
            maps[name] = (labels, [float(MEASURES[part](counts)) for part in PARTS])
        for name, (labels, shares) in maps.items():
            rows += [(number, name, *shares, *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["scene", "what", *PARTS, "line", "labels"])


def compare_prompts(model: FrozenCLIP, count: int, seed: int = 2) -> pd.DataFrame:
    """mIoU of SC-CLIP with the bare word, the article's sentence, and 80 sentences averaged."""
    prompts = {
        "the word alone": ("{}",),
        "a photo of the word": SCCLIPConfig().templates,
        "80 sentences, averaged": SCCLIPConfig.published().templates,
    }
    methods = {
        name: SCCLIP(model, replace(SCCLIPConfig(), templates=templates))
        for name, templates in prompts.items()
    }
    counted = score_methods(methods, "training", count, seed)
    rows = [(name, *interval(counts, mean_iou, seed)) for name, counts in counted.items()]
    table = pd.DataFrame(rows, columns=["prompt", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


def add_absent_words(
    model: FrozenCLIP, count: int, numbers: tuple[int, ...] = (0, 2, 8, 24, 48), seed: int = 2
) -> pd.DataFrame:
    """Pixels right with the true words of a scene alone, and with words that are not there.

    The shares of object and of background pixels, each with its 95 % bootstrap interval. `numbers`
    says how many absent words are offered besides; `count` test scenes.
    """
    segmenter = SCCLIP(model)
    found: dict[int, list[np.ndarray]] = {n: [] for n in numbers}
    for index in tqdm(range(count), desc="absent words"):
        scene = evaluation_scene(TEST, seed, index)
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        others = [word for word in WORDS if word not in scene.words]
        order = np.random.default_rng((TEST, seed, index)).permutation(len(others))
        for number in numbers:
            offered = [*scene.words, *(others[i] for i in order[:number])]
            places = torch.tensor([WORDS.index(word) for word in offered])
            labels = places[segmenter.segment(images, offered)[0]]
            found[number].append(count_classes(labels, truth, len(WORDS)))
    table = _score_parts(found, "words that are not there", seed)
    return table.assign(scenes=count, seed=seed)


def _score_parts(found: Mapping[Any, list[np.ndarray]], column: str, seed: int) -> pd.DataFrame:
    """Shares of object and background pixels that are right, for the counts of every key."""
    rows = []
    for measure in PARTS:
        for key, counts in found.items():
            rows.append((measure, key, *interval(np.stack(counts), MEASURES[measure], seed)))
    return pd.DataFrame(rows, columns=["measure", column, "value", "low", "high"])


def panorama(index: int) -> Scene:
    """Six test scenes in two rows of three, 448 x 672 pixels, to try sliding windows on."""
    tiles = [evaluation_scene(TEST, 3, 6 * index + i) for i in range(6)]
    lines = (tiles[:3], tiles[3:])
    image = np.concatenate([np.concatenate([t.image for t in line], 1) for line in lines])
    labels = np.concatenate([np.concatenate([t.labels for t in line], 1) for line in lines])
    objects = tuple(dict.fromkeys(word for tile in tiles for word in tile.objects))
    return Scene(image, labels, objects, tiles[0].background)


def compare_windows(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """Pixels right on large pictures: at once, and by windows of 224 at steps of 224 and 112.

    The shares of object and of background pixels, on `count` panoramas; `seed` is that of the
    bootstrap.
    """
    segmenter = SCCLIP(model)
    names, text = segmenter.embed_classes(WORDS)
    found: dict[str, list[np.ndarray]] = {}
    for index in tqdm(range(count), desc="panoramas"):
        scene = panorama(index)
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        maps = {"whole picture at once": segmenter.segment(images, WORDS)[0]}
        for stride in (224, 112):
            (logits,) = sliding_logits(
                lambda cut: segmenter.logits(cut, text), list(images), window=224, stride=stride
            )
            _, labels = best_class(logits, names, truth.shape)
            maps[f"windows of 224, step {stride}"] = labels
        for name, labels in maps.items():
            found.setdefault(name, []).append(count_classes(labels, truth, len(WORDS)))
    return _score_parts(found, "inference", seed).assign(pictures=count, seed=seed)


@figure("06_gallery")
def draw_label_maps(table: pd.DataFrame) -> Figure:
    """The scenes, the truth, and the label maps of each method."""
    rows = []
    for (index, style), (_, part) in zip(GALLERY, table.groupby("scene"), strict=True):
        image = evaluation_scene(TEST, 1, index, style).image
        lines = {str(name): found for name, found in part.groupby("what", sort=False)}
        maps = {name: read_labels(found["labels"]) for name, found in lines.items()}
        shown = {METHOD_NAMES[name]: maps[name] for name in METHODS}
        captions = {}
        for name in METHODS:
            shares = lines[name][list(PARTS)].iloc[0]
            captions[METHOD_NAMES[name]] = "\n".join(
                f"{p} {share:.0%}" for p, share in shares.items()
            )
        rows.append(GalleryRow(f"{style} style", image, maps["truth"], shown, captions))
    return draw_scene_gallery(rows, WORDS, N_OBJECTS)


@figure("06_prompts")
def draw_prompts(table: pd.DataFrame) -> Figure:
    """mIoU with each kind of prompt."""
    return draw_interval_bars(table, "prompt", f"mIoU on {table['scenes'].iloc[0]} test scenes (%)")


@figure("06_absent")
def draw_absent_words(table: pd.DataFrame) -> Figure:
    """Object and background pixels right, over the number of words that are not there."""
    drawn, axis = plt.subplots(figsize=(8, 4.2))
    for measure, part in table.groupby("measure", sort=False):
        draw_band(axis, part, "words that are not there", str(measure))
    axis.set(xlabel="words that are not there", ylabel="pixels right (%)", ylim=(0, 102))
    axis.legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    return drawn


@figure("06_windows")
def draw_windows(table: pd.DataFrame) -> Figure:
    """Object and background pixels right on large pictures, at once and by windows."""
    drawn, axes = plt.subplots(1, len(PARTS), figsize=(14, 3.2), sharey=True)
    for axis, measure in zip(axes, PARTS, strict=True):
        draw_bars(axis, table[table["measure"] == measure], "inference")
        axis.set(xlabel=f"{measure} (%)")
    count = table["pictures"].iloc[0]
    axes[0].set_title(f"{count} pictures of 448 x 672 pixels", fontsize=12, loc="left")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
