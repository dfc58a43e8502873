"""What SC-CLIP relies on, measured in a frozen CLIP: similarities, norms, outliers, attention.

The table and the figure of the model card, `figures/phenomena.csv` and `.png`.
"""

import math
from collections.abc import Iterator

import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.attention import self_attention_weights
from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.similarity import patch_similarity
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.metrics import count_classes
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.studies import figure
from scclip_lab.studies.reading import label_map, patch_labels, read_layer

# Pairs of patches by their labels.
PAIRS = ("same object", "other object", "object and background")
QUANTILES = {"LOF, median": 0.5, "LOF, 95 %": 0.95, "LOF, 99 %": 0.99, "LOF, largest": 1.0}
COLUMNS = ["what", "place", "value"]
Row = tuple[str, int, float]


def measure_phenomena(model: FrozenCLIP, count: int, seed: int, split: int = TEST) -> pd.DataFrame:
    """Everything below on `count` scenes, as rows what, place, value: means over scenes.

    The place is a layer (counted from 0, as everywhere) or, for the entropy, a head. A scene with
    one object has no pair of patches on two objects, and counts for the others alone.
    """
    segmenter = make_method("vanilla", model)
    rows: list[Row] = []
    for index in range(count):
        scene = evaluation_scene(split, seed, index)
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        labels = torch.from_numpy(patch_labels(scene).copy()).flatten()  # [N]
        _, cache = segmenter.run_with_cache(images, "blocks.*.hook_resid_post")
        layers = [tokens[0] for tokens in cache.values()]  # [L, C] each
        rows += similarities_by_layer(layers, labels)
        rows += norms_by_layer(layers)
        rows += entropy_by_head(model, layers[-2])
        rows += outlier_scores(model, images)
        rows += accuracy_by_layer(model, images, layers[:-1], truth)
    table = pd.DataFrame(rows, columns=COLUMNS)
    means = table.groupby(["what", "place"], sort=False, as_index=False)["value"].mean()
    return means.assign(scenes=count, seed=seed)


def similarities_by_layer(layers: list[Tensor], labels: Tensor) -> Iterator[Row]:
    """Mean cosine of pairs of patches by their labels, and the share above beta, by layer.

    Takes tokens [L, C] of every layer, and the labels [N] of the patches' centres.
    """
    same, objects = labels[:, None] == labels, labels < N_OBJECTS  # [N, N], [N]
    both, one = objects[:, None] & objects, objects[:, None] ^ objects
    itself = torch.eye(len(labels), dtype=torch.bool)
    masks = dict(zip(PAIRS, (both & same & ~itself, both & ~same, one), strict=True))
    beta = SCCLIPConfig().beta
    for layer, tokens in enumerate(layers):
        similarity = patch_similarity(tokens[None, 1:])[0]  # [N, N]
        for name, mask in masks.items():
            yield f"cosine, {name}", layer, float(similarity[mask].mean())
        yield "share above beta", layer, float((similarity >= beta).float().mean())


def norms_by_layer(layers: list[Tensor]) -> Iterator[Row]:
    """Length of the class token, mean of the patch tokens, the longest patch over the median.

    Takes tokens [L, C] of every layer.
    """
    for layer, tokens in enumerate(layers):
        lengths = tokens.norm(dim=-1)  # [L]
        yield "length, class token", layer, float(lengths[0])
        yield "length, patch tokens", layer, float(lengths[1:].mean())
        ratio = lengths[1:].max() / lengths[1:].median()
        yield "longest patch token over the median", layer, float(ratio)


def entropy_by_head(model: FrozenCLIP, tokens: Tensor) -> Iterator[Row]:
    """Entropy of the last block's attention of patches, as a share of an even one's, by head.

    -sum_j A_ij log A_ij / log L, mean over patches i; takes the tokens [L, C] that enter it.
    """
    weights = self_attention_weights(model.qkv(model.blocks[-1], tokens[None]), "qk")[0]
    entropy = torch.special.entr(weights[:, 1:]).sum(-1).mean(-1)  # [heads, N, L] -> [heads]
    for head, value in enumerate(entropy.tolist()):
        yield "entropy of attention", head, value / math.log(weights.shape[-1])


def outlier_scores(model: FrozenCLIP, images: Tensor) -> Iterator[Row]:
    """Quantiles of the local outlier factor in an image, and the share of patches above 1.5."""
    _, cache = make_method("scclip", model).run_with_cache(images, "stage3.lof_scores")
    scores, layer = cache["stage3.lof_scores"].float(), model.depth - 2
    for name, quantile in QUANTILES.items():
        yield name, layer, float(scores.quantile(quantile))
    yield "LOF, share above 1.5", layer, float((scores > 1.5).float().mean())


def accuracy_by_layer(
    model: FrozenCLIP, images: Tensor, layers: list[Tensor], truth: Tensor
) -> Iterator[Row]:
    """Object and background pixels right when the last block reads the values of another layer.

    Takes one image [1, 3, H, W], tokens [L, C] of every layer but the last, true labels [H, W].
    """
    values = make_method("values", model)
    for layer, tokens in enumerate(layers):
        features = read_layer(values, images, tokens[None])
        labels = label_map(values, features, len(truth))
        counts = count_classes(labels, truth, len(WORDS))
        for measure in ("objects right", "background right"):
            value = float(MEAN_AND_PARTS[measure](counts))
            yield f"{measure}, values of the layer", layer, value


@figure("phenomena")
def draw_phenomena(table: pd.DataFrame) -> Figure:
    """Six panels: similarities, share kept, lengths, accuracy by layer, entropy, outliers."""
    panels = {
        "cosine of two patches": [f"cosine, {name}" for name in PAIRS],
        "share of similarities above beta = 0.4": ["share above beta"],
        "length of tokens": ["length, class token", "length, patch tokens"],
        "pixels right, the layer read by the last block": [
            "objects right, values of the layer",
            "background right, values of the layer",
        ],
    }
    drawn, axes = plt.subplots(2, 3, figsize=(17, 8.6))
    for axis, (title, names) in zip(axes.flat, panels.items(), strict=False):
        for name in names:
            rows = table[table["what"] == name]
            label = name.removeprefix("cosine, ").removeprefix("length, ").partition(", values")[0]
            axis.plot(rows["place"], rows["value"], marker="o", label=label)
        axis.set_title(title, fontsize=14)
        axis.set_xlabel("layer")
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=11)
    for axis in (axes[0, 1], axes[1, 0]):
        axis.set_ylim(0, 1)
    heads = table[table["what"] == "entropy of attention"]
    axes[1, 1].bar(heads["place"].astype(str), heads["value"])
    axes[1, 1].set_title("entropy of attention, 1: even", fontsize=14)
    axes[1, 1].set(xlabel="head of the last block", ylim=(0, 1))
    scores = table[table["what"].isin(list(QUANTILES))]
    axes[1, 2].bar([name.removeprefix("LOF, ") for name in scores["what"]], scores["value"])
    axes[1, 2].set_title("local outlier factor", fontsize=14)
    axes[1, 2].set_xlabel("quantile of the patches of a scene")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
