"""Chapter 3: which patches look alike, how much beta keeps, and aggregation as graph convolution."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.evaluation import stack_images
from scclip_core.metrics import GAINED, count_classes, interval_and_gain, mean_interval, mean_iou
from scclip_core.pipeline import SCCLIP, upsample
from scclip_core.scenes import TEST, VALIDATION, WORDS, Scene, evaluation_scene
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_core.studies import figure
from scclip_core.studies.drawing import CLAIM, draw_band, draw_maps, map_rows
from scclip_core.studies.shapes import the_scene

GRID = 14
BETAS = (0.0, 0.2, 0.4, 0.6, 0.8)
BETA = SCCLIPConfig().beta


def layer_tokens(model: FrozenCLIP, images: Tensor) -> list[Tensor]:
    """Patch tokens after every block but the last, each [B, N, C]."""
    trace = SCCLIP(model, SCCLIPConfig.maskclip()).trace(images)
    return [trace[f"block_{i}"].tensor[:, 1:] for i in range(model.depth - 1)]


def matrices(model: FrozenCLIP, scene: Scene, layers: tuple[int, ...] = (3, 8)) -> pd.DataFrame:
    """Similarity matrices of a scene at some layers, rows panel, row, col, value (196 x 196 each)."""
    tokens = layer_tokens(model, stack_images(model, [scene]))
    return map_rows({f"layer {i}": patch_similarity(tokens[i])[0] for i in layers}).round({"value": 3})


def alike_maps(model: FrozenCLIP, scene: Scene, row: int, col: int, layers: tuple[int, ...]) -> pd.DataFrame:
    """What looks like one patch, at several layers: its row of the similarity matrix on the grid."""
    tokens = layer_tokens(model, stack_images(model, [scene]))
    here = row * GRID + col
    return map_rows({f"layer {i}": patch_similarity(tokens[i])[0, here].view(GRID, GRID) for i in layers})


def explore(model: FrozenCLIP, scene: Scene) -> object:
    """Sliders for the patch and the layer, and the map of what looks like it: an ipywidgets widget."""
    from IPython.display import display  # only a live notebook needs these
    from ipywidgets import IntSlider, interactive

    def show(row: int, col: int, layer: int) -> None:
        table = alike_maps(model, scene, row, col, (layer,))
        drawn = draw_maps(table.assign(patch_row=row, patch_col=col), scene.image)
        display(drawn)
        plt.close(drawn)  # left open, it would be shown a second time

    sides = {name: IntSlider(7, 0, GRID - 1) for name in ("row", "col")}
    return interactive(show, **sides, layer=IntSlider(8, 0, model.depth - 2))


def share_kept(model: FrozenCLIP, count: int, seed: int = 0, batch: int = 20) -> pd.DataFrame:
    """Share of similarities that each beta keeps, and their median, by layer; mean over `count` test
    scenes.
    """
    kept: dict[tuple[int, str], list[Tensor]] = {}
    for start in range(0, count, batch):
        scenes = [evaluation_scene(TEST, seed, i) for i in range(start, min(start + batch, count))]
        for layer, tokens in enumerate(layer_tokens(model, stack_images(model, scenes))):
            similarity = patch_similarity(tokens).flatten(1)  # [B, N N]
            for beta in BETAS:
                kept.setdefault((layer, f"{beta}"), []).append((similarity >= beta).float().mean(1))
            kept.setdefault((layer, "median"), []).append(similarity.median(1).values)
    rows = []
    for (layer, what), parts in kept.items():
        rows.append((layer, what, *mean_interval(torch.cat(parts).double().numpy(), seed), count, seed))
    return pd.DataFrame(rows, columns=["layer", "what", "value", "low", "high", "scenes", "seed"])


def normalised_adjacency(similarity: Tensor) -> Tensor:
    """D^-1 S of a thresholded similarity [B, N, N]: the graph's adjacency, each row divided by its sum."""
    degree = similarity.sum(-1) + 1e-6
    return torch.diag_embed(1 / degree) @ similarity


def over_smoothing(
    model: FrozenCLIP, count: int, powers: tuple[int, ...] = (0, 1, 2, 4, 8, 16), seed: int = 2
) -> pd.DataFrame:
    """The last block's values aggregated again and again with the similarity at layer 8.

    mIoU over all words, and the mean cosine similarity of all pairs of features, after each number of steps,
    on `count` validation scenes.
    """
    segmenter = SCCLIP(model, SCCLIPConfig.maskclip())
    text, layer = segmenter.embed_classes(WORDS)[1], SCCLIPConfig().pre_adjust_idx
    counts: dict[int, list[np.ndarray]] = {p: [] for p in powers}
    alike: dict[int, list[float]] = {p: [] for p in powers}
    for index in range(count):
        scene = evaluation_scene(VALIDATION, seed, index)
        trace = segmenter.trace(stack_images(model, [scene]))
        sparse = threshold_similarity(patch_similarity(trace[f"block_{layer}"].tensor[:, 1:]), BETA)
        tokens, truth = trace["attention_main"].tensor, torch.from_numpy(scene.labels)
        for step in range(max(powers) + 1):
            if step in powers:
                features = torch.nn.functional.normalize(model.project(tokens), dim=-1)
                logits = (features @ text.T).unflatten(1, (GRID, GRID))
                guess = upsample(logits, truth.shape).argmax(1)[0]
                counts[step].append(count_classes(guess, truth, len(WORDS)))
                alike[step].append(float(patch_similarity(features).mean()))
            tokens = adaptive_aggregate(tokens, sparse)
    counted = {p: np.stack(found) for p, found in counts.items()}
    rows = [
        (
            p,
            *interval_and_gain(counted[p], counted[powers[0]], mean_iou, seed),
            float(np.mean(alike[p])),
            count,
            seed,
        )
        for p in powers
    ]
    return pd.DataFrame(rows, columns=["steps", *GAINED, "mean similarity", "scenes", "seed"])


@figure("03_matrices")
def draw_matrices(table: pd.DataFrame) -> Figure:
    """The similarity matrices of a scene."""
    panels = table["panel"].unique()
    drawn, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 5.2))
    for axis, panel in zip(axes, panels, strict=True):
        values = table[table["panel"] == panel].pivot(index="row", columns="col", values="value")
        sns.heatmap(values, ax=axis, vmin=-0.5, vmax=1, cmap="viridis", xticklabels=28, yticklabels=28)
        axis.set(title=f"{panel}: cosine of all pairs", xlabel="patch", ylabel="patch")
    drawn.tight_layout()
    return drawn


@figure("03_alike")
def draw_alike(table: pd.DataFrame) -> Figure:
    """What looks like the followed patch, layer by layer."""
    return draw_maps(table, the_scene().image, label="cosine with the crossed patch")


@figure("03_kept")
def draw_kept(table: pd.DataFrame) -> Figure:
    """Share kept by beta, layer by layer, and the median similarity; the seed's claims dashed."""
    drawn, axes = plt.subplots(1, 2, figsize=(13, 4.6))
    for beta in map(str, BETAS):
        draw_band(axes[0], table[table["what"] == beta], "layer", f"beta = {beta}")
    axes[0].axhspan(30, 40, color=CLAIM["color"], alpha=0.25, label="seed's claim for 0.4: 30-40 %")
    axes[0].set(xlabel="layer", ylabel="similarities kept (%)", ylim=(0, 103))
    axes[0].legend(frameon=False, fontsize=10, bbox_to_anchor=(1, 1))
    draw_band(axes[1], table[table["what"] == "median"], "layer", "measured", scale=1)
    axes[1].axhline(BETA, **CLAIM, label="seed: beta = 0.4 is near the median")
    axes[1].set(xlabel="layer", ylabel="median similarity")
    axes[1].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("03_smoothing")
def draw_smoothing(table: pd.DataFrame) -> Figure:
    """mIoU and mean similarity over the number of aggregation steps."""
    drawn, axes = plt.subplots(1, 2, figsize=(12, 4.2))
    draw_band(axes[0], table, "steps")
    axes[0].set(xlabel="aggregation steps", ylabel="mIoU (%)")
    axes[1].plot(table["steps"], table["mean similarity"], marker="o")
    axes[1].set(xlabel="aggregation steps", ylabel="mean similarity of all pairs", ylim=(None, 1))
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
