"""Segmentation by example: an object marked in one picture is found in others, without words."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.segmentation import upsample
from scclip_lab.datasets.atlas import HELD_OUT_STYLES, TRAINING_STYLES
from scclip_lab.datasets.clips import Clip, choose_words, generator, make_still
from scclip_lab.datasets.scenes import TEST, VALIDATION, WORDS
from scclip_lab.studies.reading import PATCH
from scclip_lab.studies.tasks_common import (
    COLUMNS,
    all_readers,
    as_input,
    name_pixels,
    read_all,
    score_rows,
    word_readers,
)

# Cosine similarities among which a threshold is chosen on validation pictures.
GRID = np.linspace(-0.2, 1, 121)
# Methods whose label maps of all words stand beside the examples.
BY_WORDS = ("values", "scclip")


class Example(NamedTuple):
    """A marked picture, and pictures by style in which its object is to be found.

    The object is the first of every picture: instance 1.
    """

    word: str
    reference: Clip
    targets: dict[str, Clip]


def draw_example(split: int, seed: int, index: int) -> Example:
    """Number `index` of a set: a reference in one training style, targets in two other styles.

    One target is in the training styles that the reference does not have, one in the style that no
    training saw. Each picture has one to three other objects besides.
    """
    rng = generator("examples", split, seed, index)
    words = choose_words(rng, (7,))
    own = str(rng.choice(TRAINING_STYLES))
    others = [style for style in TRAINING_STYLES if style != own]
    reference = make_still(rng, [words[0], *words[1 : 1 + rng.integers(1, 3)]], [own])
    beside = {style: [words[0], *words[4 : 5 + rng.integers(0, 3)]] for style in ("a", "b")}
    targets = {
        "training": make_still(rng, beside["a"], others),
        "held-out": make_still(rng, beside["b"], HELD_OUT_STYLES),
    }
    return Example(words[0], reference, targets)


def coverage(mask: np.ndarray) -> Tensor:
    """The share of every patch that a mask [H, W] covers, float32 [rows, cols]."""
    return F.avg_pool2d(torch.from_numpy(mask.astype(np.float32))[None], PATCH)[0]


def prototype(features: Tensor, mask: np.ndarray) -> Tensor:
    """The mean of patch features [rows, cols, D] under a mask [H, W], unit length [D].

    Every patch counts as much as the mask covers of it.
    """
    weights = coverage(mask).to(features.dtype)
    return F.normalize((weights[..., None] * features).sum((0, 1)), dim=0)


def similarity_map(features: Tensor, wanted: Tensor, side: int) -> np.ndarray:
    """Cosine similarity of every pixel with a vector, [rows, cols, D], [D] -> [side, side]."""
    alike = (F.normalize(features, dim=-1) @ wanted)[None, ..., None]  # [1, rows, cols, 1]
    return upsample(alike, (side, side))[0, 0].numpy()


def mask_iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks, bool of one shape; 0 where both are empty."""
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def iou_by_threshold(alike: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The IoU of `alike > t` with a mask for every t of `GRID`, [len(GRID)]."""
    edges = np.append(GRID, np.inf)
    inside, outside = (np.histogram(alike[part], edges)[0] for part in (truth, ~truth))
    hit, wrong = (counts[::-1].cumsum()[::-1] for counts in (inside, outside))
    return hit / (truth.sum() + wrong)


def similarity_maps(
    readers: dict, model: FrozenCLIP, example: Example
) -> tuple[dict[tuple[str, str], np.ndarray], dict[str, dict[str, Tensor]]]:
    """(reader, style) -> similarity of the target to the marked object; style -> features."""
    clips = {"reference": example.reference, **example.targets}
    images = np.concatenate([clip.images for clip in clips.values()])
    read = read_all(readers, as_input(model, images))
    maps, kept = {}, {}
    for place, style in enumerate(clips):
        kept[style] = {name: features[place] for name, features in read.items()}
        if style != "reference":
            for name, features in kept[style].items():
                marked = example.reference.instances[0] == 1
                wanted = prototype(kept["reference"][name], marked)
                maps[name, style] = similarity_map(features, wanted, images.shape[1])
    return maps, kept


def choose_thresholds(model: FrozenCLIP, count: int, seed: int = 11) -> dict[str, float]:
    """For every reader the threshold with the best mean IoU on validation pictures."""
    readers = all_readers(model, modules=True)
    total = {name: np.zeros(len(GRID)) for name in readers}
    for index in range(count):
        example = draw_example(VALIDATION, seed, index)
        for (name, style), alike in similarity_maps(readers, model, example)[0].items():
            total[name] += iou_by_threshold(alike, example.targets[style].instances[0] == 1)
    return {name: float(GRID[scores.argmax()]) for name, scores in total.items()}


def measure_example(
    model: FrozenCLIP, thresholds: dict[str, float], count: int, seed: int = 7
) -> pd.DataFrame:
    """IoU of the marked object in other pictures, by similarity and by words, for both styles.

    `thresholds` are those of `choose_thresholds`. Rows have the `COLUMNS` of all tasks; "values, by
    words" is the object's part of the label map over all words.
    """
    readers, words = all_readers(model, modules=True), word_readers(model)
    scores: dict[str, dict[str, list[float]]] = {}
    for index in range(count):
        example = draw_example(TEST, seed, index)
        maps, kept = similarity_maps(readers, model, example)
        for (name, style), alike in maps.items():
            truth = example.targets[style].instances[0] == 1
            found = mask_iou(alike > thresholds[name], truth)
            scores.setdefault(style, {}).setdefault(name, []).append(found)
        for style, target in example.targets.items():
            for name in BY_WORDS:
                labels, _ = name_pixels(words[name], kept[style][name], len(target.images[0]))
                found = mask_iou(labels == WORDS.index(example.word), target.instances[0] == 1)
                scores[style].setdefault(f"{name}, by words", []).append(found)
    rows = []
    for style, by_name in scores.items():
        arrays = {name: np.array(values) for name, values in by_name.items()}
        rows += score_rows("IoU by example", style, arrays, seed)
        right = {name: (values >= 0.5).astype(float) for name, values in arrays.items()}
        rows += score_rows("found, IoU at least 0.5", style, right, seed)
    return pd.DataFrame(rows, columns=COLUMNS).assign(pictures=count, seed=seed)
