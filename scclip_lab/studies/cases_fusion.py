"""Chapter 5's made case: tokens that the last layers name wrong, and the fusion that saves them.

The tokens of the objects are exchanged for a token of another scene, at a known layer and place.
All modules but the fusion are off, so that both branches are the last block's values: the main
branch reads layer 10, the auxiliary branch reads the sum of layers 3 to 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.hooks import Hook
from scclip_core.pipeline import SCCLIP
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import figure
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.drawing import (
    GalleryRow,
    draw_band,
    draw_scene_gallery,
    label_rows,
    read_labels,
)
from scclip_lab.studies.reading import label_map, patch_labels
from scclip_lab.studies.shared import changed, no_module

GRID = 14
BRANCHES = ("main branch alone", "auxiliary branch alone", "both added (fusion)")
# The layer that the main branch reads, what the auxiliary branch reads, and the first summed layer.
LAST, SUM, FIRST = "blocks.10.hook_resid_post", "stage7.summed_layers", 3
# The rows of the figure of label maps: title -> the layer at which tokens are exchanged, how much.
SHOWN = {
    "as it is": (LAST, 0.0),
    "layer 10:\n70 % exchanged": (LAST, 0.7),
    "layer 10:\nall exchanged": (LAST, 1.0),
    "layer 8:\nall exchanged": ("blocks.8.hook_resid_post", 1.0),
}
# How much of a token is exchanged.
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Exchange:
    """A scene, and what takes the place of its objects' tokens.

    Attributes:
        scene: the scene.
        images: the scene as the model takes it, [1, 3, H, W].
        chosen: the tokens that are exchanged, those of its objects, bool [1, L, 1].
        foreign: what takes their place, by the name of the tensor: a token [C] of another scene.
    """

    scene: Scene
    images: Tensor
    chosen: Tensor
    foreign: dict[str, Tensor]

    def hook_at(self, place: str, strength: float = 1.0) -> dict[str, Hook]:
        """Hooks that exchange the tokens at a place, by a share of `strength` in [0, 1]."""

        def exchange(tokens: Tensor) -> Tensor:
            mixed = (1 - strength) * tokens + strength * self.foreign[place]
            return torch.where(self.chosen, mixed, tokens)

        return {place: exchange}


def fusion_alone(model: FrozenCLIP) -> SCCLIP:
    """SC-CLIP with no module but the fusion."""
    return SCCLIP(model, changed(no_module(), fusion=True))


def make_exchange(model: FrozenCLIP, scene: Scene, seed: int = 0) -> Exchange:
    """A scene with the token that is put into its objects, from a scene with other words.

    The token is that of the largest object's patch in the middle of a test scene of one object
    that is nowhere in `scene`; `seed` chooses that scene.
    """
    for index in range(1000):
        other = evaluation_scene(TEST, 1000 + seed, index, counts=(1,))
        middle = int(patch_labels(other)[GRID // 2, GRID // 2])
        if middle < N_OBJECTS and not set(other.words) & set(scene.words):
            break
    else:
        raise RuntimeError("no other scene was found")
    segmenter = fusion_alone(model)
    names = ["blocks.*.hook_resid_post", SUM]
    _, cache = segmenter.run_with_cache(stack_images(model, [other]), names)
    number = 1 + GRID * (GRID // 2) + GRID // 2  # the class token comes first
    objects = torch.from_numpy(patch_labels(scene) < N_OBJECTS).flatten()
    chosen = torch.cat([torch.tensor([False]), objects])[None, :, None]
    foreign = {name: tokens[0, number] for name, tokens in cache.items()}
    return Exchange(scene, stack_images(model, [scene]), chosen, foreign)


def read_branches(segmenter: SCCLIP, images: Tensor, hooks: dict[str, Hook]) -> list[Tensor]:
    """The features of `BRANCHES`, [1, rows, cols, D] each, of one run with tokens exchanged."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        return lambda tokens: kept.update({name: tokens})

    names = ("stage5.attention", "stage7.attention")
    fused = segmenter.run_with_hooks(images, hooks | {name: keep(name) for name in names})
    return [*(segmenter.finish(kept[name], (GRID, GRID)) for name in names), fused]


@torch.no_grad()
def exchanged_maps(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of the example scene with tokens exchanged, read by each branch.

    Returns rows case, what ("truth" or one of `BRANCHES`), line, labels of the line as text.
    """
    segmenter, exchange = fusion_alone(model), make_exchange(model, example_scene())
    rows = []
    for case, (place, strength) in SHOWN.items():
        truth = torch.from_numpy(exchange.scene.labels)
        rows += [(case, "truth", *line) for line in label_rows(truth)]
        found = read_branches(segmenter, exchange.images, exchange.hook_at(place, strength))
        for branch, features in zip(BRANCHES, found, strict=True):
            labels = label_map(segmenter, features, len(truth))
            rows += [(case, branch, *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["case", "what", "line", "labels"])


@torch.no_grad()
def fusion_limits(
    model: FrozenCLIP, count: int, seed: int = 7, strengths: Sequence[float] = STRENGTHS
) -> pd.DataFrame:
    """The share of the exchanged patches that are named right, by branch, on `count` test scenes.

    Returns rows part, branch, x, value, low, high. Part "last": x is how much of the tokens of
    layer 10 is exchanged; "sum": how much of the sum; "layer": the layer from which on they are
    wholly exchanged.
    """
    segmenter = fusion_alone(model)
    text = segmenter.embed_classes(WORDS)[1]
    cases = [("last", s, LAST, s) for s in strengths] + [("sum", s, SUM, s) for s in strengths]
    layers = range(FIRST, model.depth - 1)
    cases += [("layer", i, f"blocks.{i}.hook_resid_post", 1.0) for i in layers]
    found: dict[tuple[str, str, float], list[float]] = {}
    for index in range(count):
        exchange = make_exchange(model, evaluation_scene(TEST, seed, index), index)
        labels = torch.from_numpy(patch_labels(exchange.scene).astype(np.int64))
        objects = labels < N_OBJECTS
        if not objects.any():
            continue
        with shared_results():
            for part, x, place, strength in cases:
                hooks = exchange.hook_at(place, strength)
                read = read_branches(segmenter, exchange.images, hooks)
                for branch, features in zip(BRANCHES, read, strict=True):
                    right = ((features[0] @ text.T).argmax(-1) == labels)[objects]
                    found.setdefault((part, branch, x), []).append(float(right.float().mean()))
    rows = [(*key, *mean_interval(np.array(v), seed)) for key, v in found.items()]
    table = pd.DataFrame(rows, columns=["part", "branch", "x", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


@figure("05_fusion")
def draw_exchanged(table: pd.DataFrame) -> Figure:
    """The tokens of the objects exchanged for another scene's, and what each branch reads."""
    scene, rows = example_scene(), []
    for case, part in table.groupby("case", sort=False):
        groups = part.groupby("what", sort=False)
        maps = {str(what): read_labels(lines["labels"]) for what, lines in groups}
        truth = maps.pop("truth")
        objects = truth < N_OBJECTS
        captions = {}
        for branch, labels in maps.items():
            share = [(labels == truth)[pixels].mean() for pixels in (objects, ~objects)]
            captions[branch] = f"objects right {share[0]:.0%}\nbackground right {share[1]:.0%}"
        titled = {name.replace(" ", "\n", 1): labels for name, labels in maps.items()}
        texts = {name.replace(" ", "\n", 1): text for name, text in captions.items()}
        rows.append(GalleryRow(str(case), scene.image, truth, titled, texts))
    return draw_scene_gallery(rows, WORDS, N_OBJECTS)


@figure("05_limits")
def draw_limits(table: pd.DataFrame) -> Figure:
    """Exchanged patches that are still named right, by how much is exchanged, and from where on."""
    labels = {
        "last": "share of layer 10 that is exchanged",
        "sum": "share of the sum that is exchanged",
        "layer": "layer from which on tokens are exchanged",
    }
    drawn, axes = plt.subplots(1, len(labels), figsize=(17, 4.8), sharey=True)
    for axis, (part, label) in zip(axes, labels.items(), strict=True):
        lines = table[table["part"] == part].groupby("branch", sort=False)
        for branch, rows in lines:
            draw_band(axis, rows, "x", str(branch))
        axis.set(xlabel=label, ylim=(-3, 103))
    axes[0].set_ylabel("exchanged patches right (%)")
    handles, names = axes[0].get_legend_handles_labels()
    look = {"frameon": False, "fontsize": 13, "ncols": 3, "bbox_to_anchor": (0.5, 1.1)}
    drawn.legend(handles, names, loc="upper center", **look)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
