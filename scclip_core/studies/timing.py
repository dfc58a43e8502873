"""Chapter 7: operations counted, time and memory measured, growth with the number of patches.

What is timed is stored by `make bench` and read by the chapter, since no two runs take the same time.
"""

import subprocess
import sys
import time
from pathlib import Path

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
from scclip_core.clip import FrozenCLIP, load_clip, untrained
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import save_table
from scclip_core.similarity import patch_similarity
from scclip_core.studies import FIGURES, figure
from scclip_core.studies.drawing import CLAIM
from scclip_core.studies.ideas import limits, time_ideas
from scclip_core.studies.outliers import time_detectors
from scclip_core.studies.peers import time_methods
from scclip_core.timing import compare, machine

SIDES = (112, 160, 224, 320, 448, 512, 768, 1024)  # pixels: 7 x 7 to 64 x 64 patches of 16
WHAT = ("vanilla CLIP", "SC-CLIP (seed)", "LOF alone", "similarity alone")


def count_operations(names: tuple[str, ...] = ("ViT-B-16", "ViT-L-14"), side: int = 224) -> pd.DataFrame:
    """Multiply-adds of one image, vanilla against SC-CLIP, by torch's own counter on the meta device.

    Products of matrices and convolutions are counted; sums, sorting and softmax are not. Columns model,
    vanilla and scclip (in 1e9 multiply-adds), ratio.
    """
    rows = []
    for name in names:
        with torch.device("meta"):
            model = FrozenCLIP(untrained(name, device="meta"), name)
            images = torch.empty(1, 3, side, side)
            counted = []
            for config in (SCCLIPConfig.vanilla(), SCCLIPConfig.for_depth(model.depth)):
                with FlopCounterMode(display=False) as counter:
                    SCCLIP(model, config).features(images)
                counted.append(counter.get_total_flops() / 2e9)
        rows.append((name, side, *counted, counted[1] / counted[0]))
    return pd.DataFrame(rows, columns=["model", "side", "vanilla", "scclip", "ratio"])


def operations_by_formula(n: int, width: int, depth: int, k: int = 30) -> pd.DataFrame:
    """Multiply-adds of each part of SC-CLIP for one image of `n` patches, counted by hand, in 1e6.

    Of a block: 12 n C^2 for its matrices and 2 n^2 C for its attention. Class token, patch embedding and
    projection are left out on both sides.
    """
    block = 12 * n * width**2 + 2 * n**2 * width
    last = 4 * n * width**2 + 2 * n**2 * width  # no MLP
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


@torch.no_grad()
def time_growth(model: FrozenCLIP, sides: tuple[int, ...] = SIDES, repeats: int = 7) -> pd.DataFrame:
    """Milliseconds of one image at several sizes: vanilla, SC-CLIP, and two of its parts alone."""
    vanilla, scclip = SCCLIP(model, SCCLIPConfig.vanilla()), SCCLIP(model)
    tables = []
    for side in tqdm(sides, desc=f"growth, {model.name}"):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(1, 3, side, side, generator=generator)
        n = (side // model.patch_size) ** 2
        tokens = torch.randn(1, n, model.width, generator=generator)
        neighbours = min(30, n - 1)
        calls = (
            lambda i=images: vanilla.features(i),
            lambda i=images: scclip.features(i),
            lambda t=tokens, k=neighbours: local_outlier_factor(t, k),
            lambda t=tokens: patch_similarity(t),
        )
        runs = dict(zip(WHAT, calls, strict=True))
        rounds = repeats if n <= 1024 else min(repeats, 3)  # a large picture takes long, and varies little
        tables.append(compare(runs, rounds, 1).assign(model=model.name, side=side, patches=n))
    return pd.concat(tables, ignore_index=True).assign(**machine())


def fit_exponents(table: pd.DataFrame, value: str = "milliseconds", least: int = 196) -> pd.DataFrame:
    """p of value ~ patches^p for every model and part: least squares on logarithms, from `least` patches."""
    rows = []
    for (model, what), part in table[table["patches"] >= least].groupby(["model", "what"], sort=False):
        slope = np.polyfit(np.log(part["patches"]), np.log(part[value]), 1)[0]
        rows.append((model, what, float(slope)))
    return pd.DataFrame(rows, columns=["model", "what", "exponent"])


def profile_stages(model: FrozenCLIP, batch: int, repeats: int = 10) -> pd.DataFrame:
    """Share of the time that each tensor of a run takes, by the moments at which they appear, and its stage.

    Medians over `repeats` runs after one that is not counted; stage 2 is the blocks, the rest is what SC-CLIP
    adds or replaces.
    """
    segmenter = SCCLIP(model)
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    runs = []
    for _ in range(repeats + 1):
        spent: dict[tuple[int, str], float] = {}
        last = time.perf_counter()

        def stamp(stage: int, name: str, tensor: Tensor, note: str) -> None:
            nonlocal last
            now = time.perf_counter()
            spent[stage, name] = now - last  # noqa: B023
            last = now

        with torch.no_grad():
            segmenter._features(images, True, stamp)
        runs.append([part / sum(spent.values()) for part in spent.values()])
    shares = np.median(runs[1:], axis=0)
    table = pd.DataFrame(spent.keys(), columns=["stage", "tensor"])
    return table.assign(share=shares / shares.sum(), model=model.name, batch=batch, **machine())


def peak_memory(name: str, sides: tuple[int, ...] = (224, 448, 1024)) -> pd.DataFrame:
    """Peak memory of one run above that of the loaded model, MiB, each in a process of its own
    (Linux).
    """
    rows = []
    for side in tqdm(sides, desc=f"memory, {name}"):
        for what in WHAT[:2]:
            command = [sys.executable, "-m", "scclip_core.studies.timing", name, str(side), what]
            spent = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            rows.append((name, side, (side // 16) ** 2, what, spent))
    return pd.DataFrame(rows, columns=["model", "side", "patches", "what", "MiB"])


def _one_run(name: str, side: int, what: str) -> None:
    model = load_clip(name, None if name == "mini" else "random")
    config = SCCLIPConfig.vanilla() if what == WHAT[0] else SCCLIPConfig.for_depth(model.depth)
    segmenter = SCCLIP(model, config)
    segmenter.features(torch.zeros(1, 3, 64, 64))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _peak()
    segmenter.features(torch.zeros(1, 3, side, side))
    print((_peak() - before) / 1024)


def _peak() -> int:
    """Peak resident memory of this process so far, KiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@figure("07_ratio")
def draw_ratio(table: pd.DataFrame) -> Figure:
    """Time ratios to open_clip's vanilla forward pass, with quartiles; the seed's 1.2x dashed."""
    part = table[table["what"] != "vanilla"].copy()
    part["name"] = part["model"] + ", B = " + part["batch"].astype(str) + ", " + part["what"].str[9:-1]
    drawn, axis = plt.subplots(figsize=(10, 4.4))
    spread = np.stack([part["ratio"] - part["ratio_low"], part["ratio_high"] - part["ratio"]])
    axis.barh(part["name"], part["ratio"], xerr=spread.clip(0), capsize=4, color="#56B4E9")
    axis.axvline(1, color="0.3", linewidth=1)
    axis.axvline(1.2, **CLAIM, label="seed's claim: 1.2x")
    axis.set(xlim=(0.8, 1.35), xlabel="time, as a ratio to vanilla CLIP in the same round")
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


@figure("07_ideas")
def draw_ideas(table: pd.DataFrame) -> Figure:
    """What every idea saves, percent of vanilla's time; those that the core follows are filled."""
    drawn, axes = plt.subplots(1, table["batch"].nunique(), figsize=(14, 4.4), sharey=True, squeeze=False)
    shown = table[table["idea"] != "windows in batches"]  # of another picture, so of another whole
    for axis, (batch, part) in zip(axes[0], shown.groupby("batch"), strict=True):
        colours = ["#0072B2" if kept == "yes" else "white" for kept in part["kept"]]
        axis.barh(part["idea"], part["saved (% of vanilla)"], color=colours, edgecolor="#0072B2")
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set(title=f"B = {batch}", xlabel="saved (% of vanilla's time)")
    axes[0, 0].invert_yaxis()
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("07_growth")
def draw_growth(table: pd.DataFrame) -> Figure:
    """Time over the number of patches, both axes logarithmic, exponents in the legend."""
    models = table["model"].unique()
    drawn, axes = plt.subplots(1, len(models), figsize=(7 * len(models), 4.8), squeeze=False)
    fitted = fit_exponents(table).set_index(["model", "what"])["exponent"]
    for axis, model in zip(axes[0], models, strict=True):
        for what, part in table[table["model"] == model].groupby("what", sort=False):
            label = f"{what}: N^{fitted[model, what]:.2f}"
            axis.loglog(part["patches"], part["milliseconds"], marker="o", markersize=5, label=label)
        axis.set(title=model, xlabel="patches N", ylabel="milliseconds")
        axis.set_xticks([49, 196, 784, 4096], ["49", "196", "784", "4,096"])
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("07_profile")
def draw_profile(table: pd.DataFrame) -> Figure:
    """Share of the time by stage."""
    shown = table.assign(what=table["model"] + ", B = " + table["batch"].astype(str))
    drawn, axis = plt.subplots(figsize=(10, 3.8))
    shares = 100 * shown.pivot_table(index="what", columns="stage", values="share", aggfunc="sum", sort=False)
    left = np.zeros(len(shares))
    for stage in shares:
        axis.barh(shares.index, shares[stage], left=left, label=f"stage {stage}")
        left = left + shares[stage].to_numpy()
    axis.set(xlabel="share of the time (%)", xlim=(0, 100))
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


def measure(repeats: int = 7) -> None:
    """Take all times anew and store them in `figures/`: what `make bench` does after `bench`."""
    models = (load_clip("mini"), load_clip("ViT-B-16", "random"))
    tables = {
        "02_detector_times": [time_detectors(models[0])],
        "09_times": [time_methods(model) for model in models],
        "07_profile": [profile_stages(model, batch) for model in models for batch in (1, 8)],
        "07_growth": [time_growth(model, repeats=repeats) for model in models],
        "07_memory": [peak_memory(model.name) for model in models],
        "07_ideas": [time_ideas(models[1], batch, repeats) for batch in (1, 8)],
    }
    for name, parts in tables.items():
        save_table(pd.concat(parts), name, FIGURES)
    save_table(limits(FIGURES), "07_limits", FIGURES)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _one_run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        measure()
