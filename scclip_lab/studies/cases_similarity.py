"""Chapter 3's made case: what averaging over similar tokens repairs, and what it cannot.

A made picture of 14 x 14 patches has three words: a disc and a bar on the ground. Each patch has
two tokens: one of a middle layer, the guide, which says what is similar, and one of the last layer,
which carries the word and an error. All errors are known, so it can be said which of them vanish.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from scclip_core.config import SCCLIPConfig
from scclip_core.prediction import palette
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import draw_band, map_rows, paint_labels, read_maps

GRID, WIDTH = 14, 32
GROUND, DISC, BAR = range(3)
NAMES = ("ground", "disc", "bar")
# Lengths of the errors in the guide and in the last layer, where a word has length 1.
GUIDE_ERROR, ERROR = 0.5, 4.0
# Cosine of two different words: tokens of one picture have something in common.
COMMON = 0.3
BETA = SCCLIPConfig().beta
# A beta at which different objects count as similar.
TOO_LOW = 0.1
# Draws of random errors that curves are means over.
DRAWS = 40


@dataclass(frozen=True)
class Case:
    """Tokens of a made picture.

    Attributes:
        guide: tokens of the middle layer, [1, 196, 32].
        tokens: tokens of the last layer, [1, 196, 32].
        words: unit vectors of the three words, [3, 32].
    """

    guide: Tensor
    tokens: Tensor
    words: Tensor


def made_labels() -> Tensor:
    """The word of every patch: a disc left and a bar right, on the ground, int64 [14, 14]."""
    row, col = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    labels = torch.full((GRID, GRID), GROUND)
    labels[(row - 4) ** 2 + (col - 3) ** 2 <= 5] = DISC
    labels[3:11, 10:12] = BAR
    return labels


def unit_words(alike: float = COMMON) -> Tensor:
    """Three unit vectors [3, 32]; disc and bar have cosine `alike`, other pairs `COMMON`.

    Raises ValueError where no three such vectors exist.
    """
    gram = torch.full((3, 3), COMMON, dtype=torch.float64).fill_diagonal_(1)
    gram[DISC, BAR] = gram[BAR, DISC] = alike
    values, vectors = torch.linalg.eigh(gram)
    if values.min() < -1e-9:
        least = 2 * COMMON**2 - 1
        raise ValueError(f"alike must be in [{least:.2f}, 1], got {alike}")
    return F.pad(vectors * values.clamp(min=0).sqrt(), (0, WIDTH - 3)).float()


def errors(shape: tuple[int, ...], length: float, rng: torch.Generator) -> Tensor:
    """Random vectors [*shape, 32] of root mean square length `length`."""
    return length * torch.randn(*shape, WIDTH, generator=rng) / WIDTH**0.5


def made_case(seed: int, alike: float = COMMON, shared: bool = False) -> Case:
    """Guide and last layer of the made picture.

    Args:
        seed: of the errors.
        alike: cosine of disc and bar in the guide; in the last layer they differ as ever.
        shared: whether all patches of a word have one error in common, or each its own.
    """
    rng = torch.Generator().manual_seed(seed)
    labels, words = made_labels().flatten(), unit_words()
    guide = unit_words(alike)[labels] + errors((len(labels),), GUIDE_ERROR, rng)
    own = errors((len(labels),), ERROR, rng)
    error = errors((len(NAMES),), ERROR, rng)[labels] if shared else own
    return Case(guide[None], (words[labels] + error)[None], words)


def read_words(tokens: Tensor, words: Tensor) -> Tensor:
    """The word that each token is nearest to, [1, 196, 32] -> int64 [14, 14]."""
    return (tokens[0] @ words.T).argmax(-1).view(GRID, GRID)


def aggregate(case: Case, beta: float) -> Tensor:
    """Stage 4 on a made case: the tokens averaged by the similarities of the guide."""
    thresholded = threshold_similarity(patch_similarity(case.guide), beta)
    return adaptive_aggregate(case.tokens, thresholded)


def aggregated_maps(seed: int = 0) -> pd.DataFrame:
    """The words that are read from the made picture, as rows panel, row, col, value."""
    case, common = made_case(seed), made_case(seed, shared=True)
    tokens = {
        "each by itself": case.tokens,
        f"averaged, beta = {BETA}": aggregate(case, BETA),
        f"averaged, beta = {TOO_LOW}": aggregate(case, TOO_LOW),
        "shared error:\neach by itself": common.tokens,
        f"shared error:\naveraged, beta = {BETA}": aggregate(common, BETA),
    }
    read = {name: read_words(found, case.words) for name, found in tokens.items()}
    return map_rows({"truth": made_labels(), **read}).astype({"value": int})


def aggregation_limits(draws: int = DRAWS) -> pd.DataFrame:
    """The error that is left over the number of like tokens, and the patches right over beta.

    Returns rows part, line, x, value, low, high. Part "neighbours": the length of a token's error
    after averaging n like tokens, as a share of its length before; part "beta": the share of the
    patches of a word that are read right.
    """
    rows: list[tuple[object, ...]] = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        for line, shared in (("own errors", 0.0), ("half shared", 0.5), ("all shared", 1.0)):
            left = np.array([error_left(n, shared, seed) for seed in range(draws)])
            rows.append(("neighbours", line, n, *mean_interval(left)))
    labels = made_labels()
    for beta in np.arange(-0.2, 1.01, 0.1).round(2).tolist():
        right = []
        for seed in range(draws):
            case = made_case(seed)
            right.append(read_words(aggregate(case, beta), case.words) == labels)
        for word, name in enumerate(NAMES):
            shares = torch.stack(right)[:, labels == word].double().mean(1).numpy()
            rows.append(("beta", name, beta, *mean_interval(shares)))
    return pd.DataFrame(rows, columns=["part", "line", "x", "value", "low", "high"])


def error_left(n: int, shared: float, seed: int) -> float:
    """|error of the first of n like tokens after averaging| / its root mean square length before.

    `shared` is the share of the squared error that all n have in common.
    """
    rng = torch.Generator().manual_seed(seed)
    own, common = errors((n,), ERROR, rng), errors((1,), ERROR, rng)
    error = (1 - shared) ** 0.5 * own + shared**0.5 * common
    word = unit_words()[DISC]
    alike = torch.ones(1, n, n)  # of one word, and without an error in the guide
    averaged = adaptive_aggregate((word + error)[None], alike)[0, 0]
    return float((averaged - word).norm()) / ERROR


COLOURS = palette(len(NAMES))


def show_words(axis: Axes, labels: np.ndarray, truth: np.ndarray, title: str = "") -> None:
    """A map of words [14, 14]; wrong ones are hatched, and the share that is right is below."""
    read, true = (values.astype(int).repeat(16, 0).repeat(16, 1) for values in (labels, truth))
    axis.imshow(paint_labels(read, true, COLOURS))
    axis.set_title(title, fontsize=12)
    objects = truth != GROUND
    right = [(labels == truth)[part].mean() for part in (objects, ~objects)]
    axis.set_xlabel(f"objects right {right[0]:.0%}\nground right {right[1]:.0%}", fontsize=11)


def add_legend(drawn: Figure) -> None:
    """The colours of the words, below the figure."""
    handles = [Patch(color=colour / 255, label=n) for colour, n in zip(COLOURS, NAMES, strict=True)]
    handles.append(Patch(facecolor="white", edgecolor="0.4", hatch="////", label="a wrong word"))
    drawn.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=12)


@figure("03_made")
def draw_aggregated(table: pd.DataFrame) -> Figure:
    """A made picture, read token by token and after averaging; wrong words are hatched."""
    maps = read_maps(table)
    drawn, axes = plt.subplots(1, len(maps), figsize=(2.7 * len(maps), 4), layout="constrained")
    for axis, (panel, labels) in zip(axes, maps.items(), strict=True):
        show_words(axis, labels, maps["truth"], panel)
        axis.set(xticks=[], yticks=[])
    axes[0].set_xlabel("")
    add_legend(drawn)
    return drawn


@figure("03_limits")
def draw_limits(table: pd.DataFrame) -> Figure:
    """What averaging leaves of an error, and which beta reads which word right."""
    drawn, axes = plt.subplots(1, 2, figsize=(13, 4.4))
    for axis, part in zip(axes, ("neighbours", "beta"), strict=True):
        for line, rows in table[table["part"] == part].groupby("line", sort=False):
            draw_band(axis, rows, "x", str(line))
        axis.set_ylim(-3, 118 if part == "neighbours" else 103)
        axis.legend(frameon=False, fontsize=11)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    axes[0].set(xlabel="like tokens that are averaged", ylabel="error left (%)")
    axes[1].axvline(BETA, color="0.3", linewidth=1)
    axes[1].set(xlabel="beta (line: the article's)", ylabel="patches right (%)")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
