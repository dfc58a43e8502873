"""Where a module gains and where it loses: objects and background, whole patches and cut ones.

A patch is whole where all its pixels have one label, and cut where an outline runs through it: one
token then stands for pixels of two words, and at most one of them can be read right.
"""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.sharing import shared_results
from scclip_core.similarity import patch_similarity, threshold_similarity
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import GAINED, interval, interval_and_gain
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.plots import error_bars
from scclip_lab.studies.reading import PATCH, patch_labels
from scclip_lab.studies.tables import STYLE_NAMES

PLACES = (
    "objects, whole patches",
    "objects, cut patches",
    "background, whole patches",
    "background, cut patches",
)
# What a patch that is read wrong is averaged with.
PARTNERS = ("same label, read right", "same label, read wrong", "another label")


def cut_patches(labels: np.ndarray) -> np.ndarray:
    """Which patches hold more than one label, labels [H, W] -> bool [rows, cols]."""
    height, width = labels.shape
    pixels = labels.reshape(height // PATCH, PATCH, width // PATCH, PATCH)
    different: np.ndarray = pixels.max((1, 3)) != pixels.min((1, 3))
    return different


def count_places(prediction: Tensor, scene: Scene) -> np.ndarray:
    """Pixels that are right, and all pixels, at each of `PLACES`, int64 [4, 2]."""
    right = prediction.numpy() == scene.labels
    objects = scene.labels < N_OBJECTS
    cut = cut_patches(scene.labels).repeat(PATCH, 0).repeat(PATCH, 1)
    places = [part & where for part in (objects, ~objects) for where in (~cut, cut)]
    return np.array([[(right & place).sum(), place.sum()] for place in places])


def gain_by_place(model: FrozenCLIP, module: str, count: int, seed: int = 0) -> pd.DataFrame:
    """What a module alone changes against the last block's values, at each of `PLACES`.

    Args:
        model: the frozen CLIP.
        module: the field of the configuration that switches it on.
        count: number of test scenes of each style.
        seed: of the scenes.

    Returns rows styles, place, share of all pixels, value with interval, paired gain with interval.
    Raises ValueError for an unknown module.
    """
    if module not in SWITCHES:
        raise ValueError(f"module must be one of {', '.join(SWITCHES)}, got {module!r}")
    off = dict.fromkeys(SWITCHES, False)
    methods = [make_method("scclip", model, **{**off, module: on}) for on in (False, True)]
    rows = []
    for style in STYLES:
        counted: list[list[np.ndarray]] = [[], []]
        for index in range(count):
            scene = evaluation_scene(TEST, seed, index, style)
            images = stack_images(model, [scene])
            with shared_results():
                for found, method in zip(counted, methods, strict=True):
                    found.append(count_places(method.segment(images, WORDS)[0], scene))
        before, after = (np.stack(found) for found in counted)  # [count, 4, 2]
        for i, place in enumerate(PLACES):
            share = before[:, i, 1].sum() / before[..., 1].sum()
            scored = interval_and_gain(after[:, i], before[:, i], share_right, seed)
            rows.append((style, place, share, *scored, count, seed))
    return pd.DataFrame(rows, columns=["styles", "place", "share", *GAINED, "scenes", "seed"])


def share_right(counts: np.ndarray) -> np.ndarray:
    """Right pixels of all pixels, [..., 2] -> [...]; NaN where there are none."""
    right, total = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    return np.divide(right, total, out=np.full(np.shape(right), np.nan), where=total > 0)


def partners_of_wrong_patches(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """What the first aggregation averages a wrong patch with, by style of the drawings.

    Of all whole patches of objects that the last block's values read wrong: how their weights, the
    rows of D^-1 S, divide among `PARTNERS`. The label of a patch is that of its centre.

    Returns rows styles, patches (read wrong), share (of all whole object patches), partner, value,
    low, high.
    """
    method, config = make_method("values", model), SCCLIPConfig()
    place = f"blocks.{config.pre_adjust_idx}.hook_resid_post"
    text, rows = method.embed_classes(WORDS)[1], []
    for style in STYLES:
        sums, objects = [], 0
        for index in range(count):
            scene = evaluation_scene(TEST, seed, index, style)
            features, cache = method.run_with_cache(stack_images(model, [scene]), place)
            similarity = patch_similarity(cache[place][:, 1:])
            graph = threshold_similarity(similarity, config.beta)[0]  # [N, N]
            labels = torch.from_numpy(patch_labels(scene).astype(np.int64)).flatten()
            right = (features[0] @ text.T).argmax(-1).flatten() == labels
            whole = torch.from_numpy(~cut_patches(scene.labels)).flatten() & (labels < N_OBJECTS)
            asked, same = whole & ~right, labels[:, None] == labels
            parts = torch.stack([same & right, same & ~right, ~same])  # [3, N, N]
            weights = (parts * graph).sum(-1)[:, asked] / graph.sum(-1)[asked]  # [3, asked]
            sums.append([*weights.sum(-1).tolist(), int(asked.sum())])
            objects += int(whole.sum())
        found = np.array(sums)  # [count, 4]
        for i, partner in enumerate(PARTNERS):
            shares = interval(found[:, [i, 3]], share_right, seed)
            wrong = int(found[:, 3].sum())
            rows.append((style, wrong, wrong / objects, partner, *shares, count, seed))
    columns = ["styles", "patches", "share", "partner", "value", "low", "high", "scenes", "seed"]
    return pd.DataFrame(rows, columns=columns)


def draw_places(table: pd.DataFrame) -> Figure:
    """Paired gains in points at every place, a colour for each style of the drawings."""
    drawn, axis = plt.subplots(figsize=(10, 4.6))
    for i, (style, rows) in enumerate(table.groupby("styles", sort=False)):
        names = {"gain": "value", "gain_low": "low", "gain_high": "high"}
        gains = 100 * rows[list(names)].rename(columns=names)
        place = np.arange(len(PLACES)) + 0.38 * (i - 0.5)
        error, label = error_bars(gains), f"{STYLE_NAMES[style]}"
        axis.barh(place, gains["value"], 0.36, xerr=error, capsize=4, label=label)
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_yticks(range(len(PLACES)), PLACES)
    axis.set_ylim(len(PLACES) - 0.4, -0.6)
    axis.set_xlabel("pixels right, against the values alone (points)")
    axis.legend(frameon=False, fontsize=12, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn
