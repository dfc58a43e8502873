"""Chapter 4: content attention, self attention and their mix; what masking does; the class-token residual."""

from dataclasses import replace

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.attention import content_attention, self_attention_maps
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.evaluation import dense, stack_images
from scclip_core.metrics import GAINED, interval_and_gain, mean_interval, mean_iou, pixel_accuracy
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import spread
from scclip_core.scenes import N_OBJECTS, TEST, VALIDATION, Scene, evaluation_scene
from scclip_core.studies import figure
from scclip_core.studies.drawing import CLAIM, draw_band, draw_maps, map_rows
from scclip_core.studies.shapes import the_scene

GRID, PATCH = 14, 16
KINDS = ("content", "content, not masked", "mix", "qk", "kk", "qq", "identity")


@torch.no_grad()
def attention_maps(model: FrozenCLIP, images: Tensor, config: SCCLIPConfig) -> dict[str, Tensor]:
    """Every kind of attention in the last block on the same tokens, each [B, heads, N, N], rows sum to 1."""
    trace = SCCLIP(model, config).trace(images)
    qkv = model.qkv(model.blocks[-1], trace["aggregated_pre"].tensor)
    similarity = trace["similarity_mid_raw"].tensor
    logits = config.content_gain * (similarity - similarity.mean((1, 2), keepdim=True))
    maps = {kind: self_attention_maps(qkv, kind) for kind in ("qk", "kk", "qq")}
    shape = maps["qk"].shape
    maps["content"] = content_attention(similarity, config.content_gain)[:, None].expand(shape)
    maps["content, not masked"] = logits.softmax(-1)[:, None].expand(shape)
    maps["mix"] = torch.lerp(maps["qk"], maps["content"], config.mix)
    maps["identity"] = torch.eye(shape[-1]).expand(shape)
    return {kind: maps[kind] for kind in KINDS}


def patch_maps(model: FrozenCLIP, scene: Scene, row: int, col: int) -> pd.DataFrame:
    """Where one patch attends to, by kind, mean over heads; times N, so that 1 is an even share."""
    maps = attention_maps(model, stack_images(model, [scene]), SCCLIPConfig())
    here, n = row * GRID + col, GRID * GRID
    return map_rows({kind: n * m[0, :, here].mean(0).view(GRID, GRID) for kind, m in maps.items()})


def purity_and_entropy(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """By kind and head: entropy of a row (nats), and the share of attention that stays on patches whose
    centre has the same label; mean over `count` test scenes, 95 % bootstrap intervals.
    """
    found: dict[tuple[str, int, str], list[float]] = {}
    for index in range(count):
        scene = evaluation_scene(TEST, seed, index)
        labels = torch.from_numpy(scene.labels[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].copy()).flatten()
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


def object_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of object pixels with the right label, class counts [..., 3, C] -> [...]."""
    return pixel_accuracy(counts[..., :N_OBJECTS])


def background_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of background pixels with the right label, class counts [..., 3, C] -> [...]."""
    return pixel_accuracy(counts[..., N_OBJECTS:])


def residual_sweep(
    model: FrozenCLIP,
    count: int,
    weights: tuple[float, ...] = (0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    seed: int = 2,
) -> pd.DataFrame:
    """res_cls from 0 to 1: mIoU, and the accuracy on object and background pixels, on validation scenes, with
    the paired gain over the seed's 0.3, which must be among the weights.
    """
    methods = {str(w): SCCLIP(model, replace(SCCLIPConfig(), res_cls=w)) for w in weights}
    counted = dense(methods, "training", count, seed, VALIDATION)
    measures = {
        "mIoU": mean_iou,
        "object pixels right": object_accuracy,
        "background pixels right": background_accuracy,
    }
    rows = [
        (float(weight), name, *interval_and_gain(counts, counted["0.3"], measure, seed), count, seed)
        for weight, counts in counted.items()
        for name, measure in measures.items()
    ]
    return pd.DataFrame(rows, columns=["res_cls", "measure", *GAINED, "scenes", "seed"])


@figure("04_maps")
def draw_attention(table: pd.DataFrame) -> Figure:
    """Where the crossed patch attends to, by kind of attention."""
    label = "attention times the number of patches (1: an even share)"
    return draw_maps(table, the_scene().image, columns=4, label=label)


@figure("04_purity")
def draw_purity(table: pd.DataFrame) -> Figure:
    """Entropy and share on the same label by kind and head."""
    drawn, axes = plt.subplots(1, 2, figsize=(14, 4.8))
    for axis, measure in zip(axes, ("entropy", "share on the same label"), strict=True):
        part = table[table["measure"] == measure]
        for head, rows in part.groupby("head"):
            place = np.arange(len(rows)) + 0.36 * (head - 0.5)
            axis.barh(place, rows["value"], 0.34, xerr=spread(rows), capsize=2, label=f"head {head}")
        axis.set_yticks(range(len(KINDS)), part["kind"].unique())
        axis.invert_yaxis()
        axis.set(xlabel="entropy of a row (nats)" if measure == "entropy" else measure)
    axes[0].legend(frameon=False, fontsize=11, loc="lower right")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("04_residual")
def draw_residual(table: pd.DataFrame) -> Figure:
    """mIoU and pixel accuracies over the weight of the class token."""
    drawn, axes = plt.subplots(1, 3, figsize=(14, 4.2))
    for axis, (measure, part) in zip(axes, table.groupby("measure", sort=False), strict=True):
        draw_band(axis, part, "res_cls")
        axis.axvline(0.3, **CLAIM, label="seed: best at 0.3")
        axis.set(xlabel="res_cls", ylabel=f"{measure} (%)")
    axes[0].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
