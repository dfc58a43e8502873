"""Chapter 5: what each module adds, alone and last; how the gains overlap; sweeps of every
hyper-parameter.
"""

from dataclasses import replace

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.evaluation import dense
from scclip_core.metrics import (
    GAINED,
    interval,
    interval_and_gain,
    mean_iou,
    paired_interval,
    pixel_accuracy,
)
from scclip_core.pipeline import SCCLIP
from scclip_core.scenes import TEST, VALIDATION
from scclip_core.studies import figure
from scclip_core.studies.drawing import CLAIM, draw_band, draw_bars, draw_interval_bars

SEED = 2
MODULES = {
    "repair": "anomaly repair",
    "first_aggregation": "first aggregation",
    "calibrated_attention": "calibrated attention",
    "second_aggregation": "second aggregation",
    "fusion": "multi-level fusion",
    "class_residual": "class-token residual",
}
# the seed's own gains in mIoU points, section 5.2: claims for PASCAL VOC; the residual has none
CLAIMED = {
    "repair": 5.2,
    "first_aggregation": 3.8,
    "calibrated_attention": 2.1,
    "second_aggregation": 1.5,
    "fusion": 2.2,
}
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
    """The modules added one at a time in the seed's order, and each left out of the whole."""
    config = SCCLIPConfig.maskclip()
    found = {"all off": config}
    for name in SWITCHES:
        config = replace(config, **{name: True})
        found[f"add {name}"] = config
    return found | {f"without {name}": replace(SCCLIPConfig(), **{name: False}) for name in SWITCHES}


def ablate(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """Gain of each module in mIoU and pixel accuracy: when added in the seed's order, and when left out.

    A gain is a paired difference on the same `count` test scenes, with its 95 % bootstrap interval: with the
    module minus without it.
    """
    methods = {name: SCCLIP(model, config) for name, config in ablation_configs().items()}
    counted = dense(methods, "training", count, seed, TEST)
    whole, rows = f"add {SWITCHES[-1]}", []
    for measure, statistic in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy)):
        before = "all off"
        for name in SWITCHES:
            pairs = {"added": (f"add {name}", before), "left out": (whole, f"without {name}")}
            for way, (with_it, without) in pairs.items():
                gain = paired_interval(counted[with_it], counted[without], statistic, seed)
                rows.append((measure, way, name, *gain))
            before = f"add {name}"
        total = paired_interval(counted[whole], counted["all off"], statistic, seed)
        rows.append((measure, "total", "all modules", *total))
    table = pd.DataFrame(rows, columns=["measure", "way", "module", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


def overlap(table: pd.DataFrame) -> pd.DataFrame:
    """Sum of the gains against the total, in points, as the seed compares them (5.2): its claim, and here.

    Gains added one after the other sum to the total by construction; gains of leaving out need not.
    """
    rows = [("the seed's claim", "mIoU", sum(CLAIMED.values()), 64.7 - 52.1)]
    for measure in ("mIoU", "pixel accuracy"):
        part = table[table["measure"] == measure]
        total = 100 * float(part[part["way"] == "total"]["value"].iloc[0])
        for way in ("added", "left out"):
            rows.append((f"here, {way}", measure, 100 * part[part["way"] == way]["value"].sum(), total))
    return pd.DataFrame(rows, columns=["whose", "measure", "sum of gains", "total gain"])


def sweep(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """mIoU of the seed's configuration with one value changed at a time, on `count` validation scenes, and
    the paired gain over the seed's value.
    """
    default, methods = SCCLIPConfig(), {}
    for name, values in SWEEPS.items():
        for value in values:
            if value != getattr(default, name):
                methods[name, value] = SCCLIP(model, replace(default, **{name: value}))
    methods["default", 0] = SCCLIP(model, default)
    counted = dense(methods, "training", count, seed, VALIDATION)
    own, rows = counted["default", 0], []
    for name, values in SWEEPS.items():
        for value in values:
            scored = interval_and_gain(counted.get((name, value), own), own, mean_iou, seed)
            rows.append((name, value, *scored, count, seed))
    return pd.DataFrame(rows, columns=["parameter", "setting", *GAINED, "scenes", "seed"])


def winner(table: pd.DataFrame) -> SCCLIPConfig:
    """The seed's configuration with the setting of each parameter that did best in the sweep.

    Where the best two ends of the fusion range leave no layer between them, the end that did better is taken
    and the other stays the seed's.
    """
    best, reached = {}, {}
    for name, part in table.groupby("parameter", sort=False):
        row = part.loc[part["value"].idxmax()]
        best[name] = type(getattr(SCCLIPConfig(), name))(row["setting"])
        reached[name] = row["value"]
    ends = ("multi_start_idx", "multi_end_idx")
    if set(ends) <= set(best) and best[ends[0]] >= best[ends[1]]:
        del best[min(ends, key=reached.__getitem__)]
    return replace(SCCLIPConfig(), **best)


def report_winner(model: FrozenCLIP, config: SCCLIPConfig, count: int, seed: int = SEED) -> pd.DataFrame:
    """The configuration chosen on validation scenes beside the seed's, on `count` test scenes."""
    methods = {"seed": SCCLIP(model), "chosen on validation": SCCLIP(model, config)}
    counted = dense(methods, "training", count, seed, TEST)
    rows = [(name, *interval(counts, mean_iou, seed)) for name, counts in counted.items()]
    difference = paired_interval(counted["chosen on validation"], counted["seed"], mean_iou, seed)
    rows.append(("difference, paired", *difference))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high"]).assign(scenes=count, seed=seed)


@figure("05_modules")
def draw_modules(table: pd.DataFrame) -> Figure:
    """Gains of every module, added and left out, in mIoU and in pixel accuracy; the seed's claims as
    diamonds.
    """
    drawn, axes = plt.subplots(2, 2, figsize=(14, 9), sharey=True)
    for line, measure in zip(axes, ("mIoU", "pixel accuracy"), strict=True):
        for axis, way in zip(line, ("added", "left out"), strict=True):
            part = table[(table["measure"] == measure) & (table["way"] == way)].copy()
            part["name"] = part["module"].map(MODULES)
            draw_bars(axis, part, "name")
            if measure == "mIoU":
                places = [MODULES[name] for name in CLAIMED]
                axis.plot(
                    list(CLAIMED.values()), places, "D", color=CLAIM["color"], label="seed's claim, VOC"
                )
            axis.set(xlabel=f"gain in {measure} (points)")
            axis.set_title("added in the seed's order" if way == "added" else "left out of the whole")
    axes[0, 1].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_sweeps")
def draw_sweeps(table: pd.DataFrame) -> Figure:
    """One curve a hyper-parameter, its band, and the seed's value marked."""
    names = list(table["parameter"].unique())
    drawn, axes = plt.subplots(2, 4, figsize=(17, 7.5), sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        draw_band(axis, table[table["parameter"] == name], "setting")
        axis.axvline(getattr(SCCLIPConfig(), name), **CLAIM)
        axis.set(xlabel=name)
    axes[0, 0].plot([], [], **CLAIM, label="the seed's value")
    axes[0, 0].legend(frameon=False, fontsize=11, loc="lower left")
    for axis in axes[:, 0]:
        axis.set_ylabel("mIoU (%)")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_winner")
def draw_winner(table: pd.DataFrame) -> Figure:
    """mIoU of the seed's values and of those chosen on validation scenes, on test scenes."""
    return draw_interval_bars(table, "what", f"mIoU on {table['scenes'].iloc[0]} test scenes (points)")
