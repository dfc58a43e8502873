"""Chapter 4's made case: a patch asked by query and key, and by its content.

The picture is that of chapter 3's case. Queries and keys know in which half of it a patch lies and
nothing else; the content knows the words.
"""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from scclip_core.attention import content_attention, mixed_weights, self_attention_weights
from scclip_core.config import SCCLIPConfig
from scclip_core.similarity import patch_similarity
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.studies import figure
from scclip_lab.studies.cases_similarity import (
    COMMON,
    DRAWS,
    GRID,
    GROUND,
    WIDTH,
    Case,
    add_legend,
    made_case,
    made_labels,
    read_words,
    show_words,
)
from scclip_lab.studies.drawing import draw_band, map_rows, read_maps

GAIN, MIX = SCCLIPConfig().content_gain, SCCLIPConfig().mix
# Row and column of the patch of the disc whose attention is drawn.
ASKED = (4, 4)
# What is drawn of attention: the kind, and the cosine of disc and bar in the guide.
PANELS = (("itself", COMMON), ("qk", COMMON), ("content", COMMON), ("mix", COMMON), ("content", 1))


def halves() -> Tensor:
    """1 for the patches of the left half, -1 for those of the right one, [14, 14]."""
    return torch.where(torch.arange(GRID) < GRID // 2, 1.0, -1.0).expand(GRID, GRID)


def attention_kinds(case: Case) -> dict[str, Tensor]:
    """Kinds of attention on a made case, kind -> weights [196, 196].

    Queries and keys know only in which half of the picture a patch lies, as if one half were in
    the sun and one in the shade; the content is that of the guide.
    """
    projected = torch.zeros(1, 1, GRID * GRID, WIDTH)
    # Logits of +2 within a half and of -2 across.
    projected[..., 0] = (2 * WIDTH**0.5) ** 0.5 * halves().flatten()
    qkv = torch.stack([projected, projected, case.tokens[:, None]])  # [3, 1, 1, 196, 32]
    content = content_attention(patch_similarity(case.guide), GAIN)
    return {
        "itself": torch.eye(GRID * GRID),
        "qk": self_attention_weights(qkv, "qk")[0, 0],
        "content": content[0],
        "mix": mixed_weights(qkv, content, "qk", MIX)[0, 0],
    }


def attention_case_maps(seed: int = 0) -> pd.DataFrame:
    """Attention of a patch of the disc, and the words read, as rows what, panel, row, col, value.

    Attention is given as a multiple of an even share.
    """
    place, parts = ASKED[0] * GRID + ASKED[1], []
    truth = map_rows({"truth": made_labels()}).assign(what="words")
    sides = map_rows({"halves": halves()}).assign(what="halves")
    for kind, alike in PANELS:
        case = made_case(seed, alike)
        weights = attention_kinds(case)[kind]
        panel = kind if alike == COMMON else f"{kind}, disc like bar"
        read = read_words(weights @ case.tokens, case.words)
        asked = GRID * GRID * weights[place].view(GRID, GRID)
        for what, values in (("attention", asked), ("words", read)):
            parts.append(map_rows({panel: values}).assign(what=what))
    return pd.concat([truth, sides, *parts], ignore_index=True)


def attention_limits(draws: int = DRAWS) -> pd.DataFrame:
    """The share of the objects' patches that are right, over the cosine of disc and bar.

    Returns rows kind, cosine, value, low, high; the cosine is that in the guide.
    """
    labels = made_labels()
    objects, rows = labels != GROUND, []
    for alike in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0):
        found: dict[str, list[float]] = {}
        for seed in range(draws):
            case = made_case(seed, alike)
            for kind, weights in attention_kinds(case).items():
                right = read_words(weights @ case.tokens, case.words) == labels
                found.setdefault(kind, []).append(float(right[objects].double().mean()))
        rows += [(kind, alike, *mean_interval(np.array(v))) for kind, v in found.items()]
    return pd.DataFrame(rows, columns=["kind", "cosine", "value", "low", "high"])


@figure("04_made")
def draw_attention_case(table: pd.DataFrame) -> Figure:
    """Above, what the crossed patch of the disc attends to; below, the words that are read."""
    words = read_maps(table[table["what"] == "words"])
    attention = read_maps(table[table["what"] == "attention"])
    drawn, axes = plt.subplots(2, len(words), figsize=(15, 6.8), layout="constrained")
    limit = max(values.max() for name, values in attention.items() if name != "itself")
    axes[0, 0].imshow(read_maps(table[table["what"] == "halves"])["halves"], cmap="gray", vmin=-3)
    axes[0, 0].set_title("all that q and k know:\nthe half", fontsize=12)
    for column, (panel, labels) in enumerate(words.items()):
        show_words(axes[1, column], labels, words["truth"], "" if column else "truth")
        if column:
            shown = axes[0, column].imshow(attention[panel], vmin=0, vmax=limit)
            axes[0, column].set_title(panel, fontsize=12)
            axes[0, column].plot(*ASKED[::-1], "x", color="#D55E00", ms=10, mew=3)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    axes[1, 0].set_xlabel("")
    label = "times an even share"
    drawn.colorbar(shown, ax=axes[0], fraction=0.02, pad=0.01, label=label, extend="max")
    add_legend(drawn)
    return drawn


@figure("04_likeness")
def draw_likeness(table: pd.DataFrame) -> Figure:
    """Object patches that are right, over how alike disc and bar are in the guide."""
    drawn, axis = plt.subplots(figsize=(8.5, 4.4))
    for kind, rows in table.groupby("kind", sort=False):
        draw_band(axis, rows, "cosine", str(kind))
    axis.set(xlabel="cosine of disc and bar in the guide", ylabel="object patches right (%)")
    axis.set_ylim(-3, 103)
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1), loc="upper left")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
