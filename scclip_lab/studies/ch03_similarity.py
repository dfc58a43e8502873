"""Chapter 3: which patches are similar, what beta keeps, where averaging gains, over-smoothing."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_lab.datasets.scenes import TEST, VALIDATION, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import (
    GAINED,
    count_classes,
    interval_and_gain,
    mean_interval,
    paired_interval,
)
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.studies import cases_similarity as cases  # noqa: F401  registers its figures
from scclip_lab.studies import figure
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.drawing import (
    CLAIM_STYLE,
    draw_band,
    draw_gains,
    draw_maps,
    map_rows,
    read_maps,
)
from scclip_lab.studies.places import cut_patches, draw_places
from scclip_lab.studies.reading import label_map, patch_labels
from scclip_lab.studies.reasons import symmetric_aggregate
from scclip_lab.studies.tables import in_percent
from scclip_lab.studies.verdicts import paired_gain

GRID = 14
BETAS = (0.0, 0.2, 0.4, 0.6, 0.8)
BETA = SCCLIPConfig().beta


def layer_tokens(model: FrozenCLIP, images: Tensor) -> list[Tensor]:
    """Patch tokens after every block but the last, each [B, N, C]."""
    _, cache = make_method("values", model).run_with_cache(images, "blocks.*.hook_resid_post")
    return [tokens[:, 1:] for tokens in cache.values()]


def similarity_matrices(
    model: FrozenCLIP, scene: Scene, layers: tuple[int, ...] = (3, 8)
) -> pd.DataFrame:
    """The similarities of all pairs of a scene's patches at some layers.

    Patches are sorted by their labels, and within a label the cut ones come last. Returns rows
    panel, row, col, value, with 196 x 196 values for each layer.
    """
    tokens = layer_tokens(model, stack_images(model, [scene]))
    order = patches_by_label(scene)
    found = {f"layer {i}": patch_similarity(tokens[i])[0][order][:, order] for i in layers}
    return map_rows(found).round({"value": 3})


def patches_by_label(scene: Scene) -> np.ndarray:
    """The numbers of the patches, sorted by the label of their centres, int64 [N].

    Within a label, patches that an outline cuts come after those that have one label alone.
    """
    return np.lexsort((cut_patches(scene.labels).ravel(), patch_labels(scene).ravel()))


def similarity_maps(
    model: FrozenCLIP, scene: Scene, row: int, col: int, layers: tuple[int, ...]
) -> pd.DataFrame:
    """What resembles one patch at several layers: its row of the similarity matrix, on the grid."""
    tokens = layer_tokens(model, stack_images(model, [scene]))
    place = row * GRID + col
    found = {i: patch_similarity(tokens[i])[0, place] for i in layers}
    return map_rows({f"layer {i}": values.view(GRID, GRID) for i, values in found.items()})


def explore(model: FrozenCLIP, scene: Scene) -> object:
    """A widget with sliders for patch and layer, and the map of what resembles the patch."""
    # Only a running notebook needs these.
    from IPython.display import display
    from ipywidgets import IntSlider, interactive

    def show(row: int, col: int, layer: int) -> None:
        table = similarity_maps(model, scene, row, col, (layer,))
        drawn = draw_maps(table.assign(patch_row=row, patch_col=col), scene.image)
        display(drawn)
        # A figure that is left open would be shown a second time.
        plt.close(drawn)

    sides = {name: IntSlider(7, 0, GRID - 1) for name in ("row", "col")}
    return interactive(show, **sides, layer=IntSlider(8, 0, model.depth - 2))


def share_kept(model: FrozenCLIP, count: int, seed: int = 0, batch: int = 20) -> pd.DataFrame:
    """The share of similarities that each beta keeps, and their median, by layer.

    Both are means over `count` test scenes, with 95 % bootstrap intervals over scenes.
    """
    kept: dict[tuple[int, str], list[Tensor]] = {}
    for start in range(0, count, batch):
        indices = range(start, min(start + batch, count))
        images = stack_images(model, [evaluation_scene(TEST, seed, i) for i in indices])
        for layer, tokens in enumerate(layer_tokens(model, images)):
            similarity = patch_similarity(tokens).flatten(1)  # [B, N * N]
            for beta in BETAS:
                shares = (similarity >= beta).float().mean(1)
                kept.setdefault((layer, f"{beta}"), []).append(shares)
            kept.setdefault((layer, "median"), []).append(similarity.median(1).values)
    rows = []
    for (layer, what), parts in kept.items():
        values = torch.cat(parts).double().numpy()
        rows.append((layer, what, *mean_interval(values, seed), count, seed))
    return pd.DataFrame(rows, columns=["layer", "what", "value", "low", "high", "scenes", "seed"])


def normalised_adjacency(similarity: Tensor) -> Tensor:
    """D^-1 S of thresholded similarities S [B, N, N]: a graph, each row divided by its sum."""
    degree = similarity.sum(-1) + 1e-6
    return torch.diag_embed(1 / degree) @ similarity


def compare_normalisations(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """How far D^-1 S F and D^-1/2 S D^-1/2 F lie apart, of the tokens of the last layer but one.

    Returns rows what, value, low, high: the distance of both results as a share of the length of
    the first, their cosine, and their ratio of lengths, as means over the patches of `count` test
    scenes.
    """
    found: dict[str, list[float]] = {}
    for index in range(count):
        images = stack_images(model, [evaluation_scene(TEST, seed, index)])
        layers = layer_tokens(model, images)
        graph = threshold_similarity(patch_similarity(layers[SCCLIPConfig().pre_adjust_idx]), BETA)
        rows, symmetric = (f(layers[-1], graph) for f in (adaptive_aggregate, symmetric_aggregate))
        lengths = rows.norm(dim=-1)
        measures = {
            "distance, as a share of the length": (rows - symmetric).norm(dim=-1) / lengths,
            "cosine": F.cosine_similarity(rows, symmetric, dim=-1),
            "ratio of lengths": symmetric.norm(dim=-1) / lengths,
        }
        for what, values in measures.items():
            found.setdefault(what, []).append(float(values.mean()))
    table = [(what, *mean_interval(np.array(v), seed), count, seed) for what, v in found.items()]
    return pd.DataFrame(table, columns=["what", "value", "low", "high", "scenes", "seed"])


STEPS = (0, 1, 4, 16, 64, 256, 1024)
# The columns of a paired gain and its interval, and how they end among those of `GAINED`.
ENDS = {"gain": "", "low": "_low", "high": "_high"}
# Pairs of patches by their labels.
PAIRS = ("same label", "different labels")


def over_smoothing(
    model: FrozenCLIP, count: int, powers: tuple[int, ...] = STEPS, seed: int = 2
) -> pd.DataFrame:
    """The last block's values, aggregated again and again with the similarities of layer 8.

    Returns a row for each number of steps in `powers`, the first of which the others are compared
    with: mIoU over all words with its gain, the gains of objects and of background right, and the
    mean cosine of pairs of features, by their labels, on `count` validation scenes.
    """
    # With every module off, stage 5 gives the last block's values.
    segmenter = make_method("scclip", model, **dict.fromkeys(SWITCHES, False))
    layer = f"blocks.{SCCLIPConfig().pre_adjust_idx}.hook_resid_post"
    counts: dict[int, list[np.ndarray]] = {p: [] for p in powers}
    cosines: dict[int, list[list[float]]] = {p: [] for p in powers}
    for index in range(count):
        scene = evaluation_scene(VALIDATION, seed, index)
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        labels = torch.from_numpy(patch_labels(scene).copy()).flatten()
        same = labels[:, None] == labels  # [N, N]
        _, cache = segmenter.run_with_cache(images, [layer, "stage5.attention"])
        thresholded = threshold_similarity(patch_similarity(cache[layer][:, 1:]), BETA)
        adjacency = normalised_adjacency(thresholded)
        for p in powers:
            tokens = torch.linalg.matrix_power(adjacency, p) @ cache["stage5.attention"]
            features = F.normalize(model.project(tokens), dim=-1)
            found = label_map(segmenter, features.unflatten(1, (GRID, GRID)), len(truth))
            counts[p].append(count_classes(found, truth, len(WORDS)))
            alike = patch_similarity(features)[0]
            cosines[p].append([float(alike[pairs].mean()) for pairs in (same, ~same)])
    counted, rows = {p: np.stack(found) for p, found in counts.items()}, []
    for p in powers:
        row: dict[str, object] = {"steps": p}
        for name, measure in MEAN_AND_PARTS.items():
            base = counted[powers[0]]
            if name == "mIoU":
                scored = interval_and_gain(counted[p], base, measure, seed)
                row |= dict(zip(GAINED, scored, strict=True))
            else:
                gain = paired_interval(counted[p], base, measure, seed)
                row |= dict(zip((f"{name}, {part}" for part in ENDS), gain, strict=True))
        row |= dict(zip(PAIRS, np.mean(cosines[p], 0).tolist(), strict=True))
        rows.append(row | {"scenes": count, "seed": seed})
    return pd.DataFrame(rows)


def smoothing_gains(table: pd.DataFrame) -> pd.DataFrame:
    """The paired gains that `over_smoothing` found, in points with intervals, as text."""
    gains = {"mIoU": [in_percent(paired_gain(row)) for _, row in table.iterrows()]}
    for name in ("objects right", "background right"):
        part = table[[f"{name}, {end}" for end in ENDS]].set_axis(["value", "low", "high"], axis=1)
        gains[name] = [in_percent(row) for _, row in part.iterrows()]
    return pd.DataFrame(gains, index=pd.Index(table["steps"], name="steps"))


@figure("03_matrices")
def draw_matrices(table: pd.DataFrame) -> Figure:
    """The similarity matrices of the example scene, patches sorted by label, blocks framed."""
    scene, maps = example_scene(), read_maps(table)
    drawn, axes = plt.subplots(1, len(maps), figsize=(6.6 * len(maps), 5.6), layout="constrained")
    labels, cut = patch_labels(scene).ravel(), cut_patches(scene.labels).ravel()
    words, sizes = np.unique(labels, return_counts=True)
    ends = np.cumsum(sizes)
    for axis, (panel, values) in zip(axes, maps.items(), strict=True):
        shown = axis.imshow(values, vmin=-0.5, vmax=1)
        for word, end, size in zip(words, ends, sizes, strict=True):
            corner = (end - size - 0.5, end - size - 0.5)
            axis.add_patch(Rectangle(corner, size, size, fill=False, ec="white", lw=2))
            whole = end - 0.5 - cut[labels == word].sum()
            axis.axhline(whole, color="white", lw=0.8, ls=":")
            axis.axvline(whole, color="white", lw=0.8, ls=":")
        axis.set_title(panel, fontsize=14)
        axis.set(xticks=[])
        axis.set_yticks(ends - sizes / 2, [WORDS[i] for i in words])
        axis.tick_params(length=0)
    drawn.colorbar(shown, ax=axes, fraction=0.025, pad=0.01, label="cosine of two patches")
    return drawn


@figure("03_alike")
def draw_similarity_maps(table: pd.DataFrame) -> Figure:
    """What resembles the followed patch, layer by layer."""
    return draw_maps(table, example_scene().image, label="cosine with the crossed patch")


@figure("03_kept")
def draw_kept(table: pd.DataFrame) -> Figure:
    """The share that each beta keeps and the median similarity, by layer; the article's claims."""
    drawn, axes = plt.subplots(1, 2, figsize=(13, 4.6))
    for beta in map(str, BETAS):
        draw_band(axes[0], table[table["what"] == beta], "layer", f"beta = {beta}")
    label = "article's claim for 0.4: 30-40 %"
    axes[0].axhspan(30, 40, color=CLAIM_STYLE["color"], alpha=0.25, label=label)
    axes[0].set(xlabel="layer", ylabel="similarities kept (%)", ylim=(0, 103))
    axes[0].legend(frameon=False, fontsize=10, bbox_to_anchor=(1, 1))
    draw_band(axes[1], table[table["what"] == "median"], "layer", "measured", scale=1)
    axes[1].axhline(BETA, **CLAIM_STYLE, label="article: beta = 0.4 is near the median")
    axes[1].set(xlabel="layer", ylabel="median similarity")
    axes[1].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("03_where")
def draw_where(table: pd.DataFrame) -> Figure:
    """What the first aggregation alone changes, by the kind of place and the style."""
    return draw_places(table)


@figure("03_smoothing")
def draw_smoothing(table: pd.DataFrame) -> Figure:
    """Paired gains, and the cosine of patches, over the number of aggregation steps."""
    drawn, axes = plt.subplots(1, 2, figsize=(13, 4.4))
    draw_gains(axes[0], table, "steps", "mIoU")
    for name in ("objects right", "background right"):
        names = {f"{name}, {part}": f"gain{end}" for part, end in ENDS.items()}
        draw_gains(axes[0], table[["steps", *names]].rename(columns=names), "steps", name)
    axes[0].set(ylabel="against no step (points)")
    for pairs in PAIRS:
        axes[1].plot(table["steps"], table[pairs], marker="o", markersize=5, label=pairs)
    axes[1].set(ylabel="mean cosine of two patches", ylim=(None, 1.02))
    for axis in axes:
        axis.set_xscale("symlog", base=4, linthresh=1)
        axis.set_xticks(table["steps"], table["steps"].astype(str))
        axis.minorticks_off()
        axis.set_xlim(-0.3, 1.3 * table["steps"].max())
        axis.set_xlabel("aggregation steps")
        axis.legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
