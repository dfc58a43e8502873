"""Chapter 14: how much of a table is words: the same pictures, weights and method, other names."""

import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.dense import DenseCLIP
from scclip_core.pipeline import SCCLIP
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import count_classes, interval, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import (
    HATCHING,
    draw_bars,
    label_rows,
    legend_handles,
    paint_labels,
    read_labels,
    show_image,
    word_colours,
)

# The scene whose label maps are shown, index and random seed: the first with two renamed objects.
SHOWN = (5, 1)
# Words that the captions of the training had, though no picture ever showed them.
HEARD = (
    *("toy", "painting", "drawing", "cartoon", "plastic", "tattoo"),
    *("sculpture", "origami", "graffiti", "sketch", "doodle", "rendering"),
)
# Another name for every third object, none of which the training had.
OTHER_NAMES = {
    "dog": "hound",
    "cow": "cattle",
    "lion": "big feline",
    "fish": "goldfish",
    "bee": "wasp",
    "chick": "hatchling",
    "grapes": "vine fruit",
    "pineapple": "ananas",
    "hamburger": "beefburger",
    "cake": "gateau",
    "car": "automobile",
    "boat": "ship",
    "balloon": "inflatable",
    "umbrella": "parasol",
    "rose": "blossom",
    "tree": "oak",
}
NAMES = {
    "the trained words": list(WORDS),
    "and 12 words of the captions that no picture shows": [*WORDS, *HEARD],
    "16 objects under another name": [OTHER_NAMES.get(word, word) for word in WORDS],
    "these 16 under both names": [
        f"{word}|{OTHER_NAMES[word]}" if word in OTHER_NAMES else word for word in WORDS
    ],
}
TRAINED = next(iter(NAMES))
OWN_WORDS = "only the words of the scene"


class Labelled(NamedTuple):
    """A label map int64 [H, W] over `WORDS`, and one number more for all other words."""

    labels: Tensor
    counts: np.ndarray


def segment_with(
    segmenter: DenseCLIP,
    images: Tensor,
    scene: Scene,
    names: Sequence[str],
    places: Sequence[int],
) -> Labelled:
    """Segment a scene with given names; name i counts as the word number `places[i]`.

    `images` [1, 3, H, W] is the scene's. The number `len(WORDS)` stands for every name that is no
    word of the scenes.
    """
    truth = torch.from_numpy(scene.labels)
    with warnings.catch_warnings():
        # What the bundled model does not know is the subject here.
        warnings.simplefilter("ignore")
        found = segmenter.segment(images, names)[0]
    labels = torch.tensor(places)[found]
    return Labelled(labels, count_classes(labels, truth, len(WORDS) + 1))


def all_readings(segmenter: DenseCLIP, scene: Scene) -> dict[str, Labelled]:
    """A scene segmented with every list of `NAMES`, and with its own words alone."""
    places = {title: [min(i, len(WORDS)) for i in range(len(NAMES[title]))] for title in NAMES}
    places[OWN_WORDS] = [WORDS.index(word) for word in scene.words]
    images, lists = stack_images(segmenter.model, [scene]), {**NAMES, OWN_WORDS: scene.words}
    with shared_results():
        return {
            title: segment_with(segmenter, images, scene, names, places[title])
            for title, names in lists.items()
        }


def compare_names(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """Scores of SC-CLIP with each list of names, and paired differences to the trained words.

    `count` test scenes of the training styles. Returns the columns measure, names, value, low,
    high, and the same three of the difference.
    """
    segmenter = SCCLIP(model)
    counted: dict[str, list[np.ndarray]] = {}
    for index in range(count):
        for title, reading in all_readings(segmenter, evaluation_scene(TEST, seed, index)).items():
            counted.setdefault(title, []).append(reading.counts[:, : len(WORDS)])
    stacked = {title: np.stack(counts) for title, counts in counted.items()}
    rows = []
    for measure, statistic in MEAN_AND_PARTS.items():
        for title, counts in stacked.items():
            change = paired_interval(counts, stacked[TRAINED], statistic, seed)
            rows.append((measure, title, *interval(counts, statistic, seed), *change))
    columns = ["measure", "names", "value", "low", "high", "change", "change_low", "change_high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def label_maps(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of one scene with each list of names: names, line, labels of the line as text."""
    index, seed = SHOWN
    scene = evaluation_scene(TEST, seed, index)
    rows = [("truth", *line) for line in label_rows(torch.from_numpy(scene.labels))]
    for title, reading in all_readings(SCCLIP(model), scene).items():
        rows += [(title, *line) for line in label_rows(reading.labels)]
    return pd.DataFrame(rows, columns=["names", "line", "labels"])


@figure("14_words")
def draw_words(table: pd.DataFrame) -> Figure:
    """mIoU, object and background pixels right, with each list of names."""
    drawn, axes = plt.subplots(1, len(MEAN_AND_PARTS), figsize=(17, 4), sharey=True)
    for axis, measure in zip(axes, MEAN_AND_PARTS, strict=True):
        draw_bars(axis, table[table["measure"] == measure], "names")
        axis.set(xlabel=f"{measure} (%)")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("14_maps")
def draw_maps(table: pd.DataFrame) -> Figure:
    """One scene, and what SC-CLIP makes of it with each list of names."""
    index, seed = SHOWN
    maps = {
        str(title): read_labels(lines["labels"])
        for title, lines in table.groupby("names", sort=False)
    }
    truth = maps["truth"]
    colours = word_colours([truth], len(WORDS) + 1, N_OBJECTS)
    drawn, axes = plt.subplots(1, len(maps) + 1, figsize=(2.7 * (len(maps) + 1), 3.9))
    show_image(axes[0], evaluation_scene(TEST, seed, index).image, "picture")
    for axis, (title, labels) in zip(axes[1:], maps.items(), strict=True):
        show_image(axis, paint_labels(labels, truth, colours))
        axis.set_title(textwrap.fill(title, 20), fontsize=12)
    others = [labels for title, labels in maps.items() if title != "truth"]
    handles = legend_handles(truth, others, colours, [*WORDS, "a word of the captions"])
    look: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, -0.02), "frameon": False}
    drawn.legend(handles=handles, ncols=len(handles), fontsize=12, **look)
    drawn.text(0.005, -0.06, HATCHING, fontsize=13, va="top")
    return drawn
