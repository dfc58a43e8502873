"""Chapter 2's made case: tokens of extreme length that drag attention, until they are repaired.

Large vision transformers have such tokens at patches that hold little information (Darcet et al.
2024, "Vision Transformers Need Registers", arXiv 2309.16588). The bundled model has none, so they
are made here, with a known place for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from scclip_core.anomaly import flag_anomalies, local_outlier_factor, repair_anomalies
from scclip_core.prediction import palette
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import draw_band, map_rows, read_maps

# Patches of a side, dimensions of a token, neighbours that the local outlier factor looks at.
GRID, WIDTH, K = 14, 64, 30
# The article's share of tokens to flag.
CONTAMINATION = 0.05
# Lengths of what a token is made of: what all share, what its word adds, noise in each dimension.
SHARED, OWN, NOISE = 4.0, 5.0, 0.3
# How many times longer an outlier is than an ordinary token.
LONGER = 10
WORDS = ("ground", "disc", "bar")
# Rows and columns of the connected blocks of outliers, in the order of their size.
BLOCKS = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3))
# Numbers of scattered outliers.
COUNTS = (1, 4, 8, 10, 12, 16, 20, 24, 28, 32, 40)


@dataclass(frozen=True)
class Case:
    """Tokens of a made picture.

    Attributes:
        tokens: [1, 196, 64].
        labels: the true word of every patch, int64 [196].
        outliers: which tokens are outliers, bool [196].
        words: unit embeddings of the words, [3, 64].
    """

    tokens: Tensor
    labels: Tensor
    outliers: Tensor
    words: Tensor


def made_labels() -> Tensor:
    """The word of every patch: a disc and a bar on the ground, int64 [14, 14]."""
    row, col = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    labels = torch.zeros(GRID, GRID, dtype=torch.int64)
    labels[(row - 4) ** 2 + (col - 4) ** 2 <= 6] = 1
    labels[9:11, 5:12] = 2
    return labels


def scattered(count: int, rng: np.random.Generator) -> Tensor:
    """`count` patches of the ground of which no two touch where possible, bool [14, 14].

    They are drawn from every second row and column first. Raises ValueError where the ground has
    too few patches.
    """
    ground = (made_labels() == 0).numpy()
    if not 0 <= count <= ground.sum():
        raise ValueError(f"count must be in 0..{ground.sum()}, the ground's patches, got {count}")
    row, col = np.indices((GRID, GRID))
    apart = ground & (row % 2 == 0) & (col % 2 == 0)
    first, second = (rng.permutation(np.flatnonzero(m)) for m in (apart, ground & ~apart))
    where = torch.zeros(GRID * GRID, dtype=torch.bool)
    where[np.concatenate([first, second])[:count]] = True
    return where.view(GRID, GRID)


def block(rows: int, cols: int) -> Tensor:
    """A connected block of patches of the ground, bool [14, 14]."""
    where = torch.zeros(GRID, GRID, dtype=torch.bool)
    where[2 : 2 + rows, 9 : 9 + cols] = True
    return where


def make_case(where: Tensor, seed: int = 0, alike: bool = True) -> Case:
    """Ordinary tokens, and outliers at given patches.

    An ordinary token is what all tokens share, plus its word, plus noise. An outlier has lost its
    word: it has a share in what all tokens share, which is why every query finds it, and a
    direction that no ordinary token has, and it is ten times as long.

    Args:
        where: the patches of outliers, bool [14, 14].
        seed: of the directions and the noise.
        alike: whether all outliers have that direction in common, or each has its own.
    """
    generator = torch.Generator().manual_seed(seed)
    # Orthogonal unit directions: shared, one for each word, one for the outliers.
    axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0].T
    shared, words, strange = axes[0], axes[1 : 1 + len(WORDS)], axes[1 + len(WORDS)]
    labels, outliers = made_labels().flatten(), where.flatten()
    noise = NOISE * torch.randn(GRID * GRID, WIDTH, generator=generator)
    tokens = SHARED * shared + OWN * words[labels] + noise
    own = F.normalize(torch.randn(GRID * GRID, WIDTH, generator=generator), dim=1)
    direction = F.normalize(shared + (strange if alike else own), dim=-1)
    long = LONGER * tokens.norm(dim=1).median() * direction + noise
    tokens = torch.where(outliers[:, None], long, tokens)
    return Case(tokens[None], labels, outliers, words)


def attention_weights(tokens: Tensor) -> Tensor:
    """softmax(x x^T / sqrt(d)), the tokens being queries and keys, [1, N, D] -> [1, N, N]."""
    return (tokens @ tokens.mT / tokens.shape[-1] ** 0.5).softmax(-1)


def name_tokens(case: Case, tokens: Tensor) -> Tensor:
    """The word of every token after attention, its values being the tokens; int64 [196]."""
    read = attention_weights(tokens) @ tokens  # [1, N, D]
    return (F.normalize(read, dim=-1) @ case.words.T).argmax(-1)[0]


def flag_and_repair(tokens: Tensor, repair_from: str = "all") -> tuple[Tensor, Tensor, Tensor]:
    """Stage 3 of SC-CLIP: scores [196], flags [196] and repaired tokens [1, 196, 64]."""
    scores = local_outlier_factor(tokens, K)
    flags = flag_anomalies(scores, CONTAMINATION)
    return scores[0], flags[0], repair_anomalies(tokens, flags, (GRID, GRID), repair_from)


def repair_maps(count: int = 4, seed: int = 0) -> pd.DataFrame:
    """What the case looks like without outliers, with them, and repaired, as rows of maps.

    Panels are "state: what", for what in length, attention (that a patch receives from all
    queries; 1 is an even share), word and flagged.
    """
    where = scattered(count, np.random.default_rng(seed))
    clean, case = (make_case(w, seed) for w in (torch.zeros_like(where), where))
    _, flags, repaired = flag_and_repair(case.tokens)
    states = {
        "no outliers": (clean, clean.tokens, torch.zeros_like(flags)),
        "outliers": (case, case.tokens, flags),
        "repaired": (case, repaired, torch.zeros_like(flags)),
    }
    maps = {}
    for state, (source, tokens, flagged) in states.items():
        maps[f"{state}: length"] = tokens[0].norm(dim=1)
        maps[f"{state}: attention"] = attention_weights(tokens)[0].sum(0)
        maps[f"{state}: word"] = name_tokens(source, tokens)
        maps[f"{state}: flagged"] = flagged
    return map_rows({name: values.view(GRID, GRID) for name, values in maps.items()})


def limits(seeds: int = 20, counts: tuple[int, ...] = COUNTS) -> pd.DataFrame:
    """Where repair ends: more outliers than the budget, and outliers that touch.

    Returns the columns panel, curve, outliers, value, low, high, and seeds. The panel "flagged" has
    the share of scattered outliers that are flagged, the others the share of the patches of disc
    and bar, and of the ground, that get the right word. Intervals are 95 % bootstrap intervals over
    seeds.
    """
    found: dict[tuple[str, str, int], list[float]] = {}
    for seed in range(seeds):
        for panel, curve, outliers, value in (*_flagged_of(seed, counts), *_named_of(seed)):
            found.setdefault((panel, curve, outliers), []).append(value)
    rows = [(*key, *mean_interval(np.array(v)), seeds) for key, v in found.items()]
    columns = ["panel", "curve", "outliers", "value", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _flagged_of(seed: int, counts: tuple[int, ...]) -> Iterator[tuple[str, str, int, float]]:
    """The share of scattered outliers that are flagged, of one seed."""
    for count in counts:
        where = scattered(count, np.random.default_rng(seed))
        for alike, curve in ((True, "all alike"), (False, "each different")):
            case = make_case(where, seed, alike)
            flags = flag_and_repair(case.tokens)[1]
            yield "flagged", curve, count, float(flags[case.outliers].float().mean())


def _named_of(seed: int) -> Iterator[tuple[str, str, int, float]]:
    """The share of patches with the right word, for blocks of outliers, of one seed."""
    for rows, cols in BLOCKS:
        count = rows * cols
        case = make_case(block(rows, cols), seed)
        apart = make_case(scattered(count, np.random.default_rng(seed)), seed)
        curves = {
            "scattered, mean of all 8": (apart, flag_and_repair(apart.tokens)[2]),
            "a block, mean of all 8": (case, flag_and_repair(case.tokens)[2]),
            "a block, mean of those not flagged": (case, flag_and_repair(case.tokens, "clean")[2]),
            "a block, not repaired": (case, case.tokens),
        }
        for curve, (source, tokens) in curves.items():
            right, ground = name_tokens(source, tokens) == source.labels, source.labels == 0
            yield "objects right", curve, count, float(right[~ground].float().mean())
            yield "ground right", curve, count, float(right[ground].float().mean())


@figure("02_case")
def draw_case(table: pd.DataFrame) -> Figure:
    """Length, attention and word of every patch (columns), in the three states (rows)."""
    maps = read_maps(table)
    states = list(dict.fromkeys(name.split(": ")[0] for name in maps))
    drawn, axes = plt.subplots(3, 3, figsize=(9.6, 8.6), layout="constrained")
    scales = {
        "length": ("length of the token", (5, 10, 20, 50)),
        "attention": ("attention received", (0.01, 0.1, 1, 10)),
    }
    for axis, (what, (label, ticks)) in zip(axes.T, scales.items(), strict=False):
        values = np.stack([maps[f"{state}: {what}"] for state in states])
        norm = LogNorm(ticks[0], values.max())
        for cell, one in zip(axis, values, strict=True):
            shown = cell.imshow(np.maximum(one, ticks[0]), norm=norm)
        bar = drawn.colorbar(shown, ax=axis, location="bottom", label=label, fraction=0.04)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
    colours = palette(len(WORDS))
    for line, state in zip(axes, states, strict=True):
        line[2].imshow(colours[maps[f"{state}: word"].astype(int)])
        for row, col in np.argwhere(maps[f"{state}: flagged"] > 0):
            look: dict[str, Any] = {"color": "#D55E00", "markersize": 9, "markeredgewidth": 2.5}
            line[0].plot(col, row, "s", fillstyle="none", **look)
        line[0].set_ylabel(state, fontsize=14)
        for cell in line:
            cell.set(xticks=[], yticks=[])
    for cell, title in zip(axes[0], ("length", "attention", "word named"), strict=True):
        cell.set_title(title, fontsize=14)
    handles = [Patch(color=c / 255, label=w) for c, w in zip(colours, WORDS, strict=True)]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes[0, 2].legend(handles=handles, frameon=False, fontsize=12, **place)
    return drawn


@figure("02_limits")
def draw_limits(table: pd.DataFrame) -> Figure:
    """The share of outliers that are flagged, and of the patches that are named right."""
    drawn, axes = plt.subplots(1, 3, figsize=(15, 4.2), sharey=True)
    for axis, (panel, part) in zip(axes, table.groupby("panel", sort=False), strict=True):
        # Without yellow, which a thin line on white does not show.
        axis.set_prop_cycle(color=["#0072B2", "#D55E00", "#009E73", "0.5"])
        for curve, rows in part.groupby("curve", sort=False):
            draw_band(axis, rows, "outliers", str(curve))
        axis.set(title=f"{panel} (%)", xlabel="outliers among 196 tokens", ylim=(-4, 104))
        if panel == "flagged":
            counts = np.arange(1, part["outliers"].max() + 1)
            budget = 100 * np.minimum(1, round(CONTAMINATION * GRID**2) / counts)
            axis.plot(counts, budget, ":", color="0.3", label="the most that 5 % of 196 allow")
    look: dict[str, Any] = {"frameon": False, "fontsize": 12, "loc": "upper left"}
    axes[0].legend(bbox_to_anchor=(-0.05, -0.22), **look)
    axes[1].legend(bbox_to_anchor=(-0.05, -0.22), ncols=2, **look)
    sns.despine(drawn)
    return drawn
