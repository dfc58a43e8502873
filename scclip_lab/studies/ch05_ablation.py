"""Chapter 5: what each module adds, whether gains overlap, and sweeps of hyper-parameters."""

from dataclasses import replace
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import TEST, VALIDATION
from scclip_lab.evaluation.metrics import (
    GAINED,
    interval,
    interval_and_gain,
    mean_iou,
    paired_interval,
    pixel_accuracy,
)
from scclip_lab.evaluation.mini import score_methods
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import CLAIM_STYLE, draw_band, draw_bars, draw_interval_bars
from scclip_lab.studies.tables import best_row

SEED = 2
MODULES = {
    "repair": "anomaly repair",
    "first_aggregation": "first aggregation",
    "calibrated_attention": "calibrated attention",
    "second_aggregation": "second aggregation",
    "fusion": "multi-level fusion",
    "class_residual": "class-token residual",
}
# The article's gains in mIoU points on PASCAL VOC (section 5.2); it gives none for the residual.
CLAIMED = {
    "repair": 5.2,
    "first_aggregation": 3.8,
    "calibrated_attention": 2.1,
    "second_aggregation": 1.5,
    "fusion": 2.2,
}
# The article's total gain there, from 52.1 to 64.7.
CLAIMED_TOTAL = 64.7 - 52.1
SWEEPS = {
    "pre_adjust_idx": (0, 2, 4, 6, 8, 10),
    "post_adjust_idx": (0, 1, 3, 5, 7, 9),
    "beta": (-1.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "res_cls": (0.0, 0.1, 0.3, 0.5, 1.0),
    "lof_neighbors": (5, 10, 30, 60, 120),
    "contamination": (0.01, 0.05, 0.1, 0.2, 0.4),
    "multi_start_idx": (0, 2, 3, 5, 7, 9),
    "multi_end_idx": (4, 6, 8, 10, 11),
}


def ablation_configs() -> dict[str, SCCLIPConfig]:
    """No module, then the modules added one at a time in the article's order, and each left out.

    With no module, SC-CLIP is the baseline `values`.
    """
    config = _change(SCCLIPConfig(), **dict.fromkeys(SWITCHES, False))
    configs = {"all off": config}
    for name in SWITCHES:
        config = _change(config, **{name: True})
        configs[f"add {name}"] = config
    for name in SWITCHES:
        configs[f"without {name}"] = _change(SCCLIPConfig(), **{name: False})
    return configs


def _change(config: SCCLIPConfig, **values: Any) -> SCCLIPConfig:
    return replace(config, **values)


def ablate(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """The gain of each module in mIoU and pixel accuracy, when it is added and when it is left out.

    A gain is the paired difference of the result with the module and without it, on the same
    `count` test scenes, with its 95 % bootstrap interval. Returns the columns measure, ablation
    ("added", in the article's order; "left out", of the whole; "total"), module, value, low, high.
    """
    methods = {name: SCCLIP(model, config) for name, config in ablation_configs().items()}
    counted = score_methods(methods, "training", count, seed, TEST)
    whole, rows = f"add {SWITCHES[-1]}", []
    for measure, statistic in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy)):
        before = "all off"
        for name in SWITCHES:
            pairs = {"added": (f"add {name}", before), "left out": (whole, f"without {name}")}
            for ablation, (with_it, without) in pairs.items():
                gain = paired_interval(counted[with_it], counted[without], statistic, seed)
                rows.append((measure, ablation, name, *gain))
            before = f"add {name}"
        total = paired_interval(counted[whole], counted["all off"], statistic, seed)
        rows.append((measure, "total", "all modules", *total))
    table = pd.DataFrame(rows, columns=["measure", "ablation", "module", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


def sum_gains(table: pd.DataFrame) -> pd.DataFrame:
    """The sum of the gains beside the total gain, in points: the article's claim (5.2), and here.

    Gains of modules added one after the other sum to the total by construction; gains of leaving
    modules out need not.
    """
    rows = [("the article's claim", "mIoU", sum(CLAIMED.values()), CLAIMED_TOTAL)]
    for measure in ("mIoU", "pixel accuracy"):
        part = table[table["measure"] == measure]
        total = 100 * float(part[part["ablation"] == "total"]["value"].iloc[0])
        for ablation in ("added", "left out"):
            summed = 100 * part[part["ablation"] == ablation]["value"].sum()
            rows.append((f"here, {ablation}", measure, summed, total))
    return pd.DataFrame(rows, columns=["whose", "measure", "sum of gains", "total gain"])


def sweep(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """mIoU with one parameter changed at a time, and the paired gain over the article's value.

    All other values are the article's; `count` validation scenes.
    """
    default, methods = SCCLIPConfig(), {}
    for name, values in SWEEPS.items():
        for value in values:
            if value != getattr(default, name):
                methods[name, value] = SCCLIP(model, _change(default, **{name: value}))
    methods["default", 0] = SCCLIP(model, default)
    counted = score_methods(methods, "training", count, seed, VALIDATION)
    own, rows = counted["default", 0], []
    for name, values in SWEEPS.items():
        for value in values:
            scored = interval_and_gain(counted.get((name, value), own), own, mean_iou, seed)
            rows.append((name, value, *scored, count, seed))
    return pd.DataFrame(rows, columns=["parameter", "setting", *GAINED, "scenes", "seed"])


def best_settings(table: pd.DataFrame) -> SCCLIPConfig:
    """The article's configuration with the best setting of each parameter in a sweep.

    Where the best two ends of the fusion's range leave no layer between them, the end with the
    higher mIoU is taken, and the other one stays the article's.
    """
    best: dict[str, Any] = {}
    reached: dict[str, float] = {}
    for parameter, part in table.groupby("parameter", sort=False):
        name, row = str(parameter), best_row(part)
        best[name] = type(getattr(SCCLIPConfig(), name))(row["setting"])
        reached[name] = row["value"]
    ends = ("multi_start_idx", "multi_end_idx")
    if set(ends) <= set(best) and best[ends[0]] >= best[ends[1]]:
        del best[min(ends, key=reached.__getitem__)]
    return _change(SCCLIPConfig(), **best)


def compare_on_test_scenes(
    model: FrozenCLIP, config: SCCLIPConfig, count: int, seed: int = SEED
) -> pd.DataFrame:
    """mIoU of the configuration that was chosen on validation scenes, and of the article's.

    Both are measured on `count` test scenes; the last row is their paired difference.
    """
    methods = {"article's values": SCCLIP(model), "chosen on validation": SCCLIP(model, config)}
    counted = score_methods(methods, "training", count, seed, TEST)
    rows = [(name, *interval(counts, mean_iou, seed)) for name, counts in counted.items()]
    pair = counted["chosen on validation"], counted["article's values"]
    rows.append(("difference, paired", *paired_interval(*pair, mean_iou, seed)))
    table = pd.DataFrame(rows, columns=["what", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


@figure("05_modules")
def draw_modules(table: pd.DataFrame) -> Figure:
    """Gains of every module in mIoU and pixel accuracy; the article's claims are diamonds."""
    drawn, axes = plt.subplots(2, 2, figsize=(14, 9), sharey=True)
    for line, measure in zip(axes, ("mIoU", "pixel accuracy"), strict=True):
        for axis, ablation in zip(line, ("added", "left out"), strict=True):
            part = table[(table["measure"] == measure) & (table["ablation"] == ablation)].copy()
            part["name"] = part["module"].map(MODULES)
            draw_bars(axis, part, "name")
            if measure == "mIoU":
                places = [MODULES[name] for name in CLAIMED]
                look = {"color": CLAIM_STYLE["color"], "label": "article's claim, VOC"}
                axis.plot(list(CLAIMED.values()), places, "D", **look)
            axis.set(xlabel=f"gain in {measure} (points)")
            added = ablation == "added"
            axis.set_title("added in the article's order" if added else "left out of the whole")
    axes[0, 1].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_sweeps")
def draw_sweeps(table: pd.DataFrame) -> Figure:
    """A curve with its band for each hyper-parameter, and the article's value."""
    names = list(table["parameter"].unique())
    drawn, axes = plt.subplots(2, 4, figsize=(17, 7.5), sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        draw_band(axis, table[table["parameter"] == name], "setting")
        axis.axvline(getattr(SCCLIPConfig(), name), **CLAIM_STYLE)
        axis.set(xlabel=name)
    axes[0, 0].plot([], [], **CLAIM_STYLE, label="the article's value")
    axes[0, 0].legend(frameon=False, fontsize=11, loc="lower left")
    for axis in axes[:, 0]:
        axis.set_ylabel("mIoU (%)")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_winner")
def draw_test_comparison(table: pd.DataFrame) -> Figure:
    """mIoU of the article's values and of those chosen on validation scenes, on test scenes."""
    return draw_interval_bars(
        table, "what", f"mIoU on {table['scenes'].iloc[0]} test scenes (points)"
    )
