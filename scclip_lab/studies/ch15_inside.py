"""Chapter 15: reading and writing the inside of a forward pass: a lens, heads, patching."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.drawing import (
    GalleryRow,
    draw_band,
    draw_maps,
    draw_scene_gallery,
    label_rows,
    map_rows,
    read_labels,
)
from scclip_lab.studies.reading import label_map, read_layer

GRID = 14
# Layers whose values the last block reads in the figure of the lens.
LENS = (0, 2, 4, 6, 8, 10)


def logit_lens(model: FrozenCLIP) -> pd.DataFrame:
    """What the last block's values say when they are taken from an earlier layer.

    Returns the label maps of the example scene: what, line, labels of the line as text.
    """
    scene = example_scene()
    images, values = stack_images(model, [scene]), make_method("values", model)
    _, cache = values.run_with_cache(images, "blocks.*.hook_resid_post")
    rows = [("truth", *line) for line in label_rows(torch.from_numpy(scene.labels))]
    for layer in LENS:
        given = cache[f"blocks.{layer}.hook_resid_post"]
        features = read_layer(values, images, given)
        labels = label_map(values, features, len(scene.labels))
        rows += [(f"layer {layer}", *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["what", "line", "labels"])


def heads_of_the_class_token(model: FrozenCLIP) -> pd.DataFrame:
    """Where the class token attends to in the last block, head by head, as rows of maps."""
    images = stack_images(model, [example_scene()])
    vanilla = make_method("vanilla", model)
    _, cache = vanilla.run_with_cache(images, "blocks.11.attn.hook_pattern")
    pattern = cache["blocks.11.attn.hook_pattern"][0, :, 0, 1:]  # [heads, N]
    maps = {f"head {i}": GRID * GRID * row.view(GRID, GRID) for i, row in enumerate(pattern)}
    return map_rows(maps)


def paired_scenes(index: int, seed: int) -> tuple[Scene, Scene]:
    """Two test scenes of one object each, of which neither word is true of the other."""
    first = evaluation_scene(TEST, seed, 2 * index, counts=(1,))
    for number in range(1, 1000):
        second = evaluation_scene(TEST, seed, 1000 * index + number, counts=(1,))
        if not set(first.words) & set(second.words):
            return first, second
    raise RuntimeError("no second scene was found")


@torch.no_grad()
def patch_halves(
    model: FrozenCLIP, count: int, seed: int = 7, methods: tuple[str, ...] = ("values", "scclip")
) -> pd.DataFrame:
    """Activation patching: the left half of a scene's tokens exchanged for another scene's.

    At one layer, the patch tokens of the left half are those of another scene; the rest of the
    pass runs on. Measured is the share of pixels with a word of the other scene, in the left half
    (where it was put) and in the right half (where it can only have leaked to), by layer.
    """
    left = torch.arange(GRID).repeat(GRID) < GRID // 2  # [N]
    chosen = torch.cat([torch.tensor([False]), left])[None, :, None]  # [1, L, 1]
    found: dict[tuple[str, int, str], list[float]] = {}
    for index in range(count):
        scenes = paired_scenes(index, seed)
        own, other = (stack_images(model, [scene]) for scene in scenes)
        words = torch.tensor([WORDS.index(word) for word in scenes[1].words])
        with shared_results():
            layers = (make_method("values", model).encode(images) for images in (own, other))
            mixed = [torch.where(chosen, given, kept) for kept, given in zip(*layers, strict=True)]
            for name in methods:
                segmenter = make_method(name, model)
                for layer, tokens in enumerate(mixed):
                    features = read_layer(segmenter, own, tokens, layer)
                    taken = torch.isin(label_map(segmenter, features, 224), words).float()
                    for half, part in (("left", taken[:, :112]), ("right", taken[:, 112:])):
                        found.setdefault((name, layer, half), []).append(float(part.mean()))
    rows = [(*key, *mean_interval(np.array(values), seed)) for key, values in found.items()]
    columns = ["method", "layer", "half", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(pairs=count, seed=seed)


@figure("15_lens")
def draw_lens(table: pd.DataFrame) -> Figure:
    """The scene, its truth, and its label map by the values of several layers."""
    groups = table.groupby("what", sort=False)
    maps = {str(what): read_labels(lines["labels"]) for what, lines in groups}
    truth, scene = maps.pop("truth"), example_scene()
    objects = truth < N_OBJECTS
    captions = {
        what: f"objects right {(labels == truth)[objects].mean():.0%}"
        for what, labels in maps.items()
    }
    return draw_scene_gallery(
        [GalleryRow("a test scene", scene.image, truth, maps, captions)], WORDS, N_OBJECTS
    )


@figure("15_heads")
def draw_heads(table: pd.DataFrame) -> Figure:
    """The last block's attention of the class token, head by head."""
    label = "attention times the number of patches"
    return draw_maps(table, example_scene().image, label=label)


@figure("15_patching")
def draw_patching(table: pd.DataFrame) -> Figure:
    """The share of pixels that take a word of the other scene, by layer and half."""
    methods = table["method"].unique()
    drawn, axes = plt.subplots(1, len(methods), figsize=(13, 4.4), sharey=True)
    for axis, method in zip(axes, methods, strict=True):
        part = table[table["method"] == method]
        for half, rows in part.groupby("half", sort=False):
            label = "left half: exchanged" if half == "left" else "right half: untouched"
            draw_band(axis, rows, "layer", label)
        axis.set(xlabel="layer at which tokens are exchanged", title=METHOD_NAMES[method])
    axes[0].set_ylabel("pixels with a word of\nthe other scene (%)")
    axes[0].legend(frameon=False, fontsize=12)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
