"""Chapter 7: what each idea for saving time is worth, and the limits set for the project's speed.

An idea is two functions that compute the same, timed one after the other; where an idea pays, its
second function is what the core does. The limits stand beside what was measured.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from scclip_core import text_cache
from scclip_core.anomaly import (
    flag_anomalies,
    local_outlier_factor,
    repair_anomalies,
    squared_distances,
)
from scclip_core.attention import content_attention, mixed_attention, self_attention_weights
from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import imagenet_templates
from scclip_core.loading import load_clip
from scclip_core.pipeline import SCCLIP
from scclip_core.segmentation import sliding_logits
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_core.text import embed_names
from scclip_lab.datasets.scenes import VALIDATION, WORDS, evaluation_scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.evaluation.timing import compare, machine
from scclip_lab.studies import figure
from scclip_lab.studies.tables import fit_exponents

# What is timed before, and what after.
Calls = tuple[Callable[[], Tensor], Callable[[], Tensor]]
# The tensors of stages 5 and 7 that the blocks' own work does not include; those of stages 3, 4
# and 6 are all added.
ADDED = (
    "stage5.content_attention",
    "stage5.class_residual",
    "stage7.summed_layers",
    "stage7.class_residual",
    "stage7.aggregated",
    "stage7.fused",
)
RATIOS = ["ratio", "ratio_low", "ratio_high"]
# Whether "after" is what the core does.
IN_CORE = {
    "distances from one Gram matrix": True,
    "top-k in place of a full sort": True,
    "repair by sums over the grid": True,
    "no attention map per head": True,
    "main and auxiliary attention as one batch": False,
    "rows normalised after the product": False,
    "channels-last patch embedding": False,
    "windows in batches": True,
}


def ideas(model: FrozenCLIP, batch: int, side: int = 224) -> dict[str, Calls]:
    """Before and after of every idea, on random images and on a model's tokens of them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator)
    grid, last = (side // model.patch_size,) * 2, model.blocks[-1]
    with torch.no_grad():
        tokens = model.embed(images)[:, 1:]
        content = content_attention(patch_similarity(tokens), 3.0)
        anomalous = flag_anomalies(local_outlier_factor(tokens, 30), 0.05)
        distances = squared_distances(tokens)
        thresholded = threshold_similarity(patch_similarity(tokens), 0.4)
    both = torch.cat([tokens, tokens])
    large = torch.randn(1, 3, 2 * side, 3 * side, generator=generator)
    text = F.normalize(torch.randn(20, model.embed_dim, generator=generator), dim=-1)
    segmenter = SCCLIP(model)

    def attend(patches: Tensor, weights: Tensor) -> Tensor:
        return last.attn.out_proj(mixed_attention(model.qkv(last, patches), weights, "qk", 0.5))

    def attend_with_stored_maps() -> Tensor:
        qkv = model.qkv(last, tokens)
        by_self = self_attention_weights(qkv, "qk")  # [B, heads, N, N]
        maps = 0.5 * content[:, None] + 0.5 * by_self
        return last.attn.out_proj((maps @ qkv[2]).transpose(1, 2).flatten(2))

    def window_logits(windows_at_once: int) -> Tensor:
        sizes = {"window": side, "stride": side // 2, "batch": windows_at_once}
        return sliding_logits(lambda cut: segmenter.logits(cut, text), list(large), **sizes)[0]

    return {
        "distances from one Gram matrix": (
            lambda: torch.cdist(
                tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist"
            ).square(),
            lambda: squared_distances(tokens),
        ),
        "top-k in place of a full sort": (
            lambda: distances.sort(-1).values[..., :31],
            lambda: distances.topk(31, largest=False).values,
        ),
        "repair by sums over the grid": (
            lambda: repair_one_by_one(tokens, anomalous, grid),
            lambda: repair_anomalies(tokens, anomalous, grid),
        ),
        "no attention map per head": (
            attend_with_stored_maps,
            lambda: attend(tokens, content),
        ),
        "main and auxiliary attention as one batch": (
            lambda: torch.cat([attend(tokens, content), attend(tokens, content)]),
            lambda: attend(both, content.repeat(2, 1, 1)),
        ),
        "rows normalised after the product": (
            lambda: adaptive_aggregate(tokens, thresholded),
            lambda: (thresholded @ tokens) / (thresholded.sum(-1, keepdim=True) + 1e-6),
        ),
        "channels-last patch embedding": (
            lambda: model.visual.conv1(images),
            lambda: model.visual.conv1(images.contiguous(memory_format=torch.channels_last)),
        ),
        "windows in batches": (lambda: window_logits(1), lambda: window_logits(16)),
    }


def repair_one_by_one(tokens: Tensor, anomalous: Tensor, grid: tuple[int, int]) -> Tensor:
    """`repair_anomalies` as a loop over the anomalous positions, as in the published code."""
    repaired, (rows, cols) = tokens.clone(), grid
    for b, n in anomalous.nonzero().tolist():
        row, col = divmod(n, cols)
        near = [
            r * cols + c
            for r in range(max(row - 1, 0), min(row + 2, rows))
            for c in range(max(col - 1, 0), min(col + 2, cols))
            if (r, c) != (row, col)
        ]
        repaired[b, n] = tokens[b, near].mean(0)
    return repaired


@torch.no_grad()
def time_ideas(model: FrozenCLIP, batch: int, repeats: int = 10) -> pd.DataFrame:
    """Milliseconds before and after each idea, their ratio, and the saving in % of vanilla."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    vanilla = make_method("vanilla", model)
    whole = compare({"vanilla": lambda: vanilla.features(images)}, repeats)["milliseconds"][0]
    rows = []
    for name, (before, after) in ideas(model, batch).items():
        table = compare({"before": before, "after": after}, repeats)
        old, new = table["milliseconds"]
        saved = 100 * (old - new) / whole
        rows.append((name, old, new, *table.loc[1, RATIOS], saved))
    columns = ["idea", "before (ms)", "after (ms)", *RATIOS, "saved (% of vanilla)"]
    table = pd.DataFrame(rows, columns=columns)
    kept = ["yes" if IN_CORE[name] else "no" for name in table["idea"]]
    return table.assign(kept=kept, model=model.name, batch=batch, **machine())


@figure("07_ideas")
def draw_ideas(table: pd.DataFrame) -> Figure:
    """What every idea saves, in % of vanilla's time; bars of ideas in the core are filled.

    Error bars are from the quartiles of the ratio of the times after and before.
    """
    # Windows are timed on a larger picture, so that their saving is a share of another whole.
    shown = table[table["idea"] != "windows in batches"]
    count = shown["batch"].nunique()
    drawn, axes = plt.subplots(1, count, figsize=(14, 4.4), sharey=True, squeeze=False)
    for axis, (batch, part) in zip(axes[0], shown.groupby("batch"), strict=True):
        colours = ["#0072B2" if kept == "yes" else "white" for kept in part["kept"]]
        before, after = part["before (ms)"], part["after (ms)"]
        # The time before, in % of vanilla's; the quartiles are those of the ratio of the two.
        whole = part["saved (% of vanilla)"] * before / (before - after)
        ends = np.stack([part["ratio_high"] - part["ratio"], part["ratio"] - part["ratio_low"]])
        look = {"color": colours, "edgecolor": "#0072B2", "linewidth": 0.6}
        look |= {"capsize": 3, "ecolor": "0.3"}
        error = (ends * whole.abs().to_numpy()).clip(0)
        axis.barh(part["idea"], part["saved (% of vanilla)"], xerr=error, **look)
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set(title=f"B = {batch}", xlabel="saved (% of vanilla's time)")
    axes[0, 0].invert_yaxis()
    kinds = {"in the core": "#0072B2", "tried, left out": "white"}
    handles = [Patch(fc=fc, ec="#0072B2", label=label) for label, fc in kinds.items()]
    axes[0, -1].legend(handles=handles, frameon=False, fontsize=12, loc="center right")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


def agreement(count: int = 100, precision: str = "bf16", seed: int = 3) -> float:
    """The share of pixels that the bundled model labels alike in a precision and in float32.

    It is measured on `count` validation scenes.
    """
    exact, low = SCCLIP(load_clip("mini")), SCCLIP(load_clip("mini", precision=precision))
    same = []
    for i in range(count):
        scene = evaluation_scene(VALIDATION, seed, i)
        a, b = (s.segment(stack_images(s.model, [scene]), WORDS) for s in (exact, low))
        same.append((a == b).float().mean())
    return float(torch.stack(same).mean())


def images_per_second(batch: int = 32, side: int = 112, runs: int = 20) -> float:
    """The number of images whose features the bundled model computes in a second, by the median."""
    segmenter = SCCLIP(load_clip("mini"))
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    spent = compare({"features": lambda: segmenter.features(images)}, runs)["milliseconds"][0]
    return 1000 * batch / spent


def cached_embedding_seconds(names: int = 1000) -> float:
    """Seconds that a new model takes to read the embeddings of `names` names from disk.

    Each name has 80 sentences.
    """
    templates = imagenet_templates()
    words = [f"thing number {i}" for i in range(names)]
    prompts = [template.format(word) for word in words for template in templates]
    if not text_cache.file_for(load_clip("mini"), prompts).is_file():
        embed_names(load_clip("mini"), words, templates)
    model = load_clip("mini")
    began = time.perf_counter()
    embed_names(model, words, templates)
    return time.perf_counter() - began


def process_seconds(*arguments: str, runs: int = 5) -> float:
    """Seconds that a new Python process takes with these arguments, the fastest of `runs`."""
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        spent.append(time.perf_counter() - began)
    return min(spent)


def limits(folder: Path) -> pd.DataFrame:
    """Every limit set for the project's speed, what was measured, and whether the limit holds.

    Times are read from what `make bench` has stored in `folder`; they are ratios to vanilla unless
    the row says otherwise.
    """
    bench, memory, profile, growth, worth = (
        pd.read_csv(folder / f"{name}.csv")
        for name in ("bench", "07_memory", "07_profile", "07_growth", "07_ideas")
    )
    base = "ViT-B-16"
    timed = bench[(bench["model"] == base) & (bench["what"] != "vanilla")]
    rows = [(f"time, {r.what}, B = {r.batch}", r.ratio, "<=", 1.05) for r in timed.itertuples()]
    part = profile[(profile["model"] == base) & (profile["batch"] == 8)]
    added = part["stage"].isin((3, 4, 6)) | part["tensor"].isin(ADDED)
    share = float(part[added]["share"].sum())
    rows.append(("time outside transformer blocks, share, B = 8", share, "<=", 0.04))
    windows = worth[(worth["idea"] == "windows in batches") & (worth["batch"] == 1)]
    ratio = windows["ratio"].iloc[0]
    rows.append(("windows of 448 x 672 in batches, to one by one", ratio, "<=", 0.9))
    large = memory[(memory["model"] == base) & (memory["side"] == 1024)]
    peaks = large.set_index("what")["MiB"]
    rows.append(("peak memory at 1024 x 1024", peaks["scclip"] / peaks["vanilla"], "<=", 1.3))
    fitted = fit_exponents(growth).set_index(["model", "what"])["exponent"][base]
    steeper = fitted["scclip"] - fitted["vanilla"]
    rows.append(("exponent of growth to N = 4,096, less vanilla's", steeper, "<=", 0.1))
    rows.append(("pixels labelled alike in bfloat16", agreement(), ">=", 0.99))
    rows.append(("1,000 x 80 prompts, second call (s)", cached_embedding_seconds(), "<=", 0.1))
    ours = process_seconds("-c", "import torch, scclip_core")
    torchs = process_seconds("-c", "import torch")
    rows.append(("import beyond torch (s)", max(0.0, ours - torchs), "<=", 0.3))
    rows.append(("--help (s)", process_seconds("-m", "scclip_core", "--help"), "<=", 1.0))
    rows.append(("mini, scenes a second at 112", images_per_second(), ">=", 150))
    table = pd.DataFrame(rows, columns=["what", "measured", "must be", "limit"])
    at_most, at_least = table["measured"] <= table["limit"], table["measured"] >= table["limit"]
    holds = at_most.where(table["must be"] == "<=", at_least)
    return table.assign(holds=holds.map({True: "yes", False: "no"}), **machine())
