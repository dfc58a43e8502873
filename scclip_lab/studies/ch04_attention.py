"""Chapter 4: content attention, self-attention, their mix, and the class-token residual."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.attention import content_attention, self_attention_weights
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import (
    N_OBJECTS,
    TEST,
    VALIDATION,
    WORDS,
    Scene,
    evaluation_scene,
)
from scclip_lab.evaluation.metrics import GAINED, interval_and_gain, mean_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods, stack_images
from scclip_lab.plots import error_bars
from scclip_lab.studies import cases_attention as cases  # noqa: F401  registers its figures
from scclip_lab.studies import figure
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.drawing import CLAIM_STYLE, draw_gains, draw_maps, map_rows
from scclip_lab.studies.places import draw_places
from scclip_lab.studies.reading import label_map, patch_labels
from scclip_lab.studies.shared import segmenters

GRID = 14
KINDS = ("content", "content, not masked", "mix", "qk", "kk", "qq", "identity")


@torch.no_grad()
def attention_maps(model: FrozenCLIP, images: Tensor, config: SCCLIPConfig) -> dict[str, Tensor]:
    """Every kind of attention in the last block, on the same tokens.

    Returns kind -> weights [B, heads, N, N]; every row sums to 1.
    """
    names = ["stage4.similarity", "stage4.aggregated"]
    _, cache = SCCLIP(model, config).run_with_cache(images, names)
    similarity = cache["stage4.similarity"]
    qkv = model.qkv(model.blocks[-1], cache["stage4.aggregated"])
    maps = {kind: self_attention_weights(qkv, kind) for kind in ("qk", "kk", "qq")}
    shape = maps["qk"].shape
    content = content_attention(similarity, config.content_gain)
    not_masked = config.content_gain * (similarity - similarity.mean((1, 2), keepdim=True))
    maps["content"] = content[:, None].expand(shape)
    maps["content, not masked"] = not_masked.softmax(-1)[:, None].expand(shape)
    maps["mix"] = torch.lerp(maps["qk"], maps["content"], config.mix)
    maps["identity"] = torch.eye(shape[-1]).expand(shape)
    return {kind: maps[kind] for kind in KINDS}


def patch_maps(model: FrozenCLIP, scene: Scene, row: int, col: int) -> pd.DataFrame:
    """Where one patch attends to, for each kind of attention, as rows panel, row, col, value.

    Values are means over heads, times the number of patches, so that 1 is an even share.
    """
    maps = attention_maps(model, stack_images(model, [scene]), SCCLIPConfig())
    place, n = row * GRID + col, GRID * GRID
    rows = {kind: n * weights[0, :, place].mean(0) for kind, weights in maps.items()}
    return map_rows({kind: values.view(GRID, GRID) for kind, values in rows.items()})


def purity_and_entropy(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """How broad each kind of attention is, and how much of it stays on the same label, by head.

    The entropy of a row is in nats. The label of a patch is that of its centre. Both are means over
    `count` test scenes, with 95 % bootstrap intervals over scenes.
    """
    found: dict[tuple[str, int, str], list[float]] = {}
    for index in range(count):
        scene = evaluation_scene(TEST, seed, index)
        labels = torch.from_numpy(patch_labels(scene).copy()).flatten()
        same = (labels[:, None] == labels[None]).float()  # [N, N]
        maps = attention_maps(model, stack_images(model, [scene]), SCCLIPConfig())
        for kind, attention in maps.items():
            for head, weights in enumerate(attention[0]):
                entropy = float(torch.special.entr(weights).sum(-1).mean())
                found.setdefault((kind, head, "entropy"), []).append(entropy)
                share = float((weights * same).sum(-1).mean())
                found.setdefault((kind, head, "share on the same label"), []).append(share)
    rows = []
    for (kind, head, measure), values in found.items():
        rows.append((kind, head, measure, *mean_interval(np.array(values), seed), count, seed))
    columns = ["kind", "head", "measure", "value", "low", "high", "scenes", "seed"]
    return pd.DataFrame(rows, columns=columns)


def residual_sweep(
    model: FrozenCLIP,
    count: int,
    weights: tuple[float, ...] = (0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    seed: int = 2,
) -> pd.DataFrame:
    """mIoU, and the shares of object and background pixels that are right, for weights `res_cls`.

    Each is measured on `count` validation scenes, with its paired gain over the article's 0.3,
    which must be among the weights.
    """
    configs = {str(w): replace(SCCLIPConfig(), res_cls=w) for w in weights}
    counted = score_methods(segmenters(model, configs), "training", count, seed, VALIDATION)
    rows = []
    for weight, counts in counted.items():
        for name, measure in MEAN_AND_PARTS.items():
            scored = interval_and_gain(counts, counted["0.3"], measure, seed)
            rows.append((float(weight), name, *scored, count, seed))
    return pd.DataFrame(rows, columns=["res_cls", "measure", *GAINED, "scenes", "seed"])


# Kinds of wrong pixels, in the order of `wrong_pixels`.
WRONG = (
    "background read as an object",
    "object read as the background",
    "object read as another object",
    "read as a word that is not in the scene",
)


def wrong_pixels(labels: np.ndarray, scene: Scene) -> list[float]:
    """The shares of all pixels that are wrong in the ways of `WRONG`, labels [H, W]."""
    absent = ~np.isin(labels, [WORDS.index(word) for word in scene.words])
    true_object, read_object = scene.labels < N_OBJECTS, labels < N_OBJECTS
    kinds = (
        ~true_object & read_object & ~absent,
        true_object & ~read_object & ~absent,
        true_object & read_object & (labels != scene.labels) & ~absent,
        absent,
    )
    return [float(kind.mean()) for kind in kinds]


# Where the class token is added in `residual_errors`: name -> the tensors that it is added to.
BRANCHES = {
    "neither": (),
    "main branch": ("stage5.class_residual",),
    "auxiliary branch": ("stage7.class_residual",),
    "both": ("stage5.class_residual", "stage7.class_residual"),
}


def residual_errors(
    model: FrozenCLIP, count: int, weight: float = 1.0, seed: int = 2
) -> pd.DataFrame:
    """Which errors are made if the class token is added to one branch, to both or to neither.

    It is each branch's own class token, times `weight`. Returns rows branch, error, value, low,
    high, scenes, seed; values are shares of all pixels of `count` validation scenes.
    """
    # Nothing is added but by hooks.
    segmenter = SCCLIP(model, replace(SCCLIPConfig(), res_cls=0.0))
    names = [f"blocks.{model.depth - 2}.hook_resid_post", "stage7.summed_layers"]
    found: dict[str, list[list[float]]] = {branch: [] for branch in BRANCHES}
    for index in range(count):
        scene = evaluation_scene(VALIDATION, seed, index)
        images = stack_images(model, [scene])
        with shared_results():
            _, cache = segmenter.run_with_cache(images, names)
            added = {
                stage: partial(torch.add, weight * cache[name][:, :1])
                for stage, name in zip(BRANCHES["both"], names, strict=True)
            }
            read = {
                branch: segmenter.run_with_hooks(images, {stage: added[stage] for stage in where})
                for branch, where in BRANCHES.items()
            }
        for branch, features in read.items():
            labels = label_map(segmenter, features, len(scene.labels)).numpy()
            found[branch].append(wrong_pixels(labels, scene))
    rows = []
    for branch, values in found.items():
        for kind, shares in zip(WRONG, np.array(values).T, strict=True):
            rows.append((branch, kind, *mean_interval(shares, seed), count, seed))
    columns = ["branch", "error", "value", "low", "high", "scenes", "seed"]
    return pd.DataFrame(rows, columns=columns)


@figure("04_maps")
def draw_attention(table: pd.DataFrame) -> Figure:
    """Where the crossed patch attends to, for each kind of attention but the identity.

    All panels have one colour scale.
    """
    # All of its weight on one patch, 196 times an even share, would leave the others dark.
    shown = table[table["panel"] != "identity"]
    label = "attention, 1 is an even share"
    return draw_maps(shown, example_scene().image, columns=4, label=label)


@figure("04_purity")
def draw_purity(table: pd.DataFrame) -> Figure:
    """Entropy and share on the same label by kind and head."""
    drawn, axes = plt.subplots(1, 2, figsize=(14, 4.8))
    for axis, measure in zip(axes, ("entropy", "share on the same label"), strict=True):
        part = table[table["measure"] == measure]
        for i, (head, rows) in enumerate(part.groupby("head")):
            place, error = np.arange(len(rows)) + 0.27 * (i - 1), error_bars(rows)
            axis.barh(place, rows["value"], 0.26, xerr=error, capsize=2, label=f"head {head}")
        axis.set_yticks(range(len(KINDS)), part["kind"].unique())
        axis.invert_yaxis()
        axis.set(xlabel="entropy of a row (nats)" if measure == "entropy" else measure)
    axes[1].legend(frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("04_where")
def draw_where(table: pd.DataFrame) -> Figure:
    """What the calibrated attention alone changes, by the kind of place and the style."""
    return draw_places(table)


@figure("04_residual")
def draw_residual(table: pd.DataFrame) -> Figure:
    """Paired gains over the article's weight of the class token, in every measure."""
    drawn, axes = plt.subplots(1, 3, figsize=(14, 4.2), sharey=True)
    for axis, (measure, part) in zip(axes, table.groupby("measure", sort=False), strict=True):
        draw_gains(axis, part, "res_cls")
        axis.axvline(0.3, **CLAIM_STYLE, label="article: best at 0.3")
        axis.set(xlabel="res_cls", title=str(measure))
    axes[0].set_ylabel("against 0.3 (points)")
    axes[0].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
