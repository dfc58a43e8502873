"""Chapter 7: operations counted, time and memory measured, growth with the number of patches.

Times are stored by `make bench` and read by the chapter, since no two runs take the same time.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from scclip_core.anomaly import local_outlier_factor
from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.loading import load_clip, untrained
from scclip_core.pipeline import SCCLIP
from scclip_core.similarity import patch_similarity
from scclip_lab.evaluation.memory import numbers_of, peak_of
from scclip_lab.evaluation.timing import compare, machine
from scclip_lab.plots import save_table
from scclip_lab.studies import FIGURES, METHOD_NAMES, figure
from scclip_lab.studies.ch02_outliers import time_detectors
from scclip_lab.studies.ch07_ideas import limits, time_ideas
from scclip_lab.studies.ch09_baselines import time_methods
from scclip_lab.studies.ch11_times import measure_times
from scclip_lab.studies.ch13_cost import measure_memory, measure_throughput
from scclip_lab.studies.ch13_cost import measure_times as time_models
from scclip_lab.studies.ch13_precision import time_precisions
from scclip_lab.studies.drawing import CLAIM_STYLE
from scclip_lab.studies.tables import fit_exponents

# Sides of square images in pixels: 7 x 7 to 64 x 64 patches of 16.
SIDES = (112, 160, 224, 320, 448, 512, 768, 1024)
METHODS = ("vanilla", "scclip")


def count_operations(
    names: tuple[str, ...] = ("ViT-B-16", "ViT-L-14"), side: int = 224
) -> pd.DataFrame:
    """Multiply-adds of one image, vanilla and SC-CLIP, by torch's counter on the meta device.

    Products of matrices and convolutions are counted; sums, sorting and softmax are not. Returns
    the columns model, side, vanilla and scclip (in 1e9 multiply-adds), and ratio.
    """
    rows = []
    for name in names:
        with torch.device("meta"):
            model = FrozenCLIP(untrained(name, device="meta"), name)
            images = torch.empty(1, 3, side, side)
            counted = []
            for method in METHODS:
                with FlopCounterMode(display=False) as counter:
                    make_method(method, model).features(images)
                counted.append(counter.get_total_flops() / 2e9)
        rows.append((name, side, *counted, counted[1] / counted[0]))
    return pd.DataFrame(rows, columns=["model", "side", *METHODS, "ratio"])


def operations_by_formula(n: int, width: int, depth: int, k: int = 30) -> pd.DataFrame:
    """Multiply-adds of each part of SC-CLIP for one image, counted by hand.

    A block takes 12 n C^2 for its matrices and 2 n^2 C for its attention. Class token, patch
    embedding and projection are left out of SC-CLIP and of vanilla alike.

    Args:
        n: number of patches.
        width: C.
        depth: number of blocks.
        k: neighbours of the local outlier factor.

    Returns the columns part, millions, and share of vanilla (%).
    """
    block = 12 * n * width**2 + 2 * n**2 * width
    # The last block has no MLP.
    last = 4 * n * width**2 + 2 * n**2 * width
    parts = {
        "blocks before the last": (depth - 1) * block,
        "LOF: distances": n**2 * width,
        "LOF: gathers": 3 * n * k,
        "similarities, layers 8 and 3": 2 * n**2 * width,
        "aggregations, three": 3 * n**2 * width,
        "last block's attention, main and auxiliary": 2 * (last + n**2 * width),
        "sum of seven layers": 7 * n * width,
    }
    table = pd.DataFrame({"part": list(parts), "millions": [v / 1e6 for v in parts.values()]})
    return table.assign(**{"share of vanilla (%)": 100 * table["millions"] * 1e6 / (depth * block)})


def memory_in_matrices(table: pd.DataFrame) -> pd.DataFrame:
    """Peak memory of SC-CLIP and vanilla CLIP, their ratio, and the difference in matrices N x N.

    Takes the table of `peak_memory`; an N x N matrix of float32 numbers has 4 N^2 bytes.
    """
    wide = table.pivot(index=["model", "side", "patches"], columns="what", values="MiB")
    wide = wide.reset_index(["patches"]).rename_axis(columns=None)
    matrix = 4 * wide["patches"] ** 2 / 2**20
    return wide.assign(
        **{
            "ratio": wide["scclip"] / wide["vanilla"],
            "one N x N matrix": matrix,
            "difference, in such matrices": (wide["scclip"] - wide["vanilla"]) / matrix,
        }
    )


@torch.no_grad()
def time_growth(
    model: FrozenCLIP, sides: tuple[int, ...] = SIDES, repeats: int = 7
) -> pd.DataFrame:
    """Milliseconds for one image of several sizes: vanilla, SC-CLIP, three of its parts alone."""
    vanilla, scclip = (make_method(name, model) for name in METHODS)
    tables = []
    for side in tqdm(sides, desc=f"growth, {model.name}"):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(1, 3, side, side, generator=generator)
        n = (side // model.patch_size) ** 2
        tokens = torch.randn(1, n, model.width, generator=generator)
        runs: dict[str, Callable[[], object]] = {
            "vanilla": partial(vanilla.features, images),
            "scclip": partial(scclip.features, images),
            "LOF alone": partial(local_outlier_factor, tokens, min(30, n - 1)),
            "similarity alone": partial(patch_similarity, tokens),
            "sum of layers alone": partial(sum, [tokens] * 7),
        }
        # A large image takes long, and its time varies little.
        rounds = repeats if n <= 1024 else min(repeats, 3)
        tables.append(compare(runs, rounds, 1).assign(model=model.name, side=side, patches=n))
    return pd.concat(tables, ignore_index=True).assign(**machine())


@torch.no_grad()
def profile_stages(model: FrozenCLIP, batch: int, repeats: int = 10) -> pd.DataFrame:
    """The share of the time that each named tensor of SC-CLIP takes, by when it appears.

    Medians over `repeats` runs, after one that is not counted. Stage 2 is the blocks; the rest is
    what SC-CLIP adds or replaces.
    """
    segmenter = SCCLIP(model)
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    table = pd.DataFrame(segmenter.trace(images))[["stage", "tensor"]].iloc[1:]
    moments: dict[str, float] = {}

    def note_time(name: str, tensor: Tensor) -> None:
        moments[name] = time.perf_counter()

    hooks = {name: partial(note_time, name) for name in table["tensor"]}
    runs = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        segmenter.run_with_hooks(images, hooks)
        spent = np.diff([began, *(moments[name] for name in table["tensor"])])
        runs.append(spent / spent.sum())
    shares = np.median(runs[1:], axis=0)
    return table.assign(share=shares / shares.sum(), model=model.name, batch=batch, **machine())


def peak_memory(name: str, sides: tuple[int, ...] = (224, 448, 1024)) -> pd.DataFrame:
    """Peak memory of one forward pass above that of the loaded model, in MiB (Linux).

    Each pass is measured in a process of its own.
    """
    rows = []
    for side in tqdm(sides, desc=f"memory, {name}"):
        for method in METHODS:
            [peak] = numbers_of("scclip_lab.studies.ch07_timing", name, side, method)
            rows.append((name, side, (side // 16) ** 2, method, peak))
    return pd.DataFrame(rows, columns=["model", "side", "patches", "what", "MiB"])


def _print_peak(name: str, side: int, method: str) -> None:
    model = load_clip(name, None if name == "mini" else "random")
    segmenter = make_method(method, model)
    segmenter.features(torch.zeros(1, 3, 64, 64))
    images = torch.zeros(1, 3, side, side)
    print(peak_of(lambda: segmenter.features(images)))


@figure("07_ratio")
def draw_ratio(table: pd.DataFrame) -> Figure:
    """Time as a ratio to open_clip's own forward pass, with quartiles; the article's 1.2 dashed."""
    part = table[table["what"] != "vanilla"].copy()
    names = part["what"].map(METHOD_NAMES)
    part["name"] = part["model"] + ", B = " + part["batch"].astype(str) + ", " + names
    drawn, axis = plt.subplots(figsize=(10, 4.4))
    error = np.stack([part["ratio"] - part["ratio_low"], part["ratio_high"] - part["ratio"]])
    axis.errorbar(part["ratio"], part["name"], xerr=error.clip(0), fmt="o", markersize=9, capsize=5)
    axis.axvline(1, color="0.3", linewidth=2, label="vanilla CLIP")
    axis.axvline(1.2, **CLAIM_STYLE, label="article's claim: 1.2x")
    ends = min(0.95, part["ratio_low"].min() - 0.02), max(1.25, part["ratio_high"].max() + 0.02)
    axis.set(xlabel="time, as a ratio to vanilla CLIP in the same round (quartiles)", xlim=ends)
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


@figure("07_growth")
def draw_growth(table: pd.DataFrame) -> Figure:
    """Time over the number of patches, both axes logarithmic, with exponents in the legend."""
    models = table["model"].unique()
    drawn, axes = plt.subplots(1, len(models), figsize=(7 * len(models), 4.8), squeeze=False)
    fitted = fit_exponents(table).set_index(["model", "what"])["exponent"]
    for axis, model in zip(axes[0], models, strict=True):
        for what, part in table[table["model"] == model].groupby("what", sort=False):
            label = f"{METHOD_NAMES.get(str(what), what)}: N^{fitted[model, what]:.2f}"
            look = {"marker": "o", "markersize": 5, "label": label}
            axis.loglog(part["patches"], part["milliseconds"], **look)
        axis.set(title=model, xlabel="patches N", ylabel="milliseconds")
        axis.set_xticks([49, 196, 784, 4096], ["49", "196", "784", "4,096"])
        axis.minorticks_off()
        axis.set_ylim(top=30 * axis.get_ylim()[1])  # room for the legend
        axis.legend(frameon=False, fontsize=11, loc="upper left")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("07_profile")
def draw_profile(table: pd.DataFrame) -> Figure:
    """The share of the time of every stage."""
    shown = table.assign(what=table["model"] + ", B = " + table["batch"].astype(str))
    shares = 100 * shown.pivot_table(
        index="what", columns="stage", values="share", aggfunc="sum", sort=False
    )
    drawn, axis = plt.subplots(figsize=(12, 4.2))
    left = np.zeros(len(shares))
    for stage, name in STAGES.items():
        bars = axis.barh(shares.index, shares[stage], left=left, label=f"stage {stage}: {name}")
        texts = [f"{share:.0f}" if share >= 3 else "" for share in shares[stage]]
        axis.bar_label(bars, texts, label_type="center", fontsize=11)
        left = left + shares[stage].to_numpy()
    axis.set(xlabel="share of the time (%)", xlim=(0, 100))
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


# What the stages of the forward pass do.
STAGES = {
    1: "patch embedding",
    2: "the first eleven blocks",
    3: "local outlier factor, repair",
    4: "similarity of layer 8, aggregation",
    5: "attention of the last block",
    6: "similarity of layer 3, aggregation",
    7: "auxiliary branch, fusion",
    8: "layer norm, projection",
}


def measure(repeats: int = 7) -> None:
    """Take all times of the chapters anew and store them in `figures/`, where `bench.csv` is."""
    models = (load_clip("mini"), load_clip("ViT-B-16", "random"))
    tables = {
        "02_detector_times": [time_detectors(models[0])],
        "09_times": [time_methods(model) for model in models],
        "07_profile": [profile_stages(model, batch) for model in models for batch in (1, 8)],
        "07_growth": [time_growth(model, repeats=repeats) for model in models],
        "07_memory": [peak_memory(model.name) for model in models],
        "07_ideas": [time_ideas(models[1], batch, repeats) for batch in (1, 8)],
        "11_times": [measure_times(models[0])],
        "13_memory": [measure_memory()],
        "13_precision_times": [time_precisions()],
        "13_throughput": [measure_throughput()],
        "13_times": [time_models()],
    }
    for name, parts in tables.items():
        save_table(pd.concat(parts), name, FIGURES)
    save_table(limits(FIGURES), "07_limits", FIGURES)


# The process that `peak_memory` starts.
if __name__ == "__main__":
    _print_peak(sys.argv[1], int(sys.argv[2]), sys.argv[3])
