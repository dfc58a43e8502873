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
from scclip_lab.evaluation.metrics import GAINED, interval, interval_and_gain, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import CLAIM_STYLE, draw_bars, draw_gains, draw_interval_bars

SEED = 7
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
    "mix": (0.0, 0.25, 0.5, 0.75, 1.0),
    "multi_start_idx": (0, 2, 3, 5, 7, 9),
    "multi_end_idx": (4, 6, 8, 10, 11),
}


# How modules are judged: alone, added in the article's order, left out of the whole.
ABLATIONS = {
    "alone": "alone",
    "added": "added in the article's order",
    "left out": "left out of the whole",
}


def ablation_configs() -> dict[str, SCCLIPConfig]:
    """No module; each alone; the modules added one at a time in the article's order; each left out.

    With no module, SC-CLIP is the baseline `values`.
    """
    config = _change(SCCLIPConfig(), **dict.fromkeys(SWITCHES, False))
    configs = {"all off": config}
    for name in SWITCHES:
        configs[f"only {name}"] = _change(config, **{name: True})
    for name in SWITCHES:
        config = _change(config, **{name: True})
        configs[f"add {name}"] = config
    for name in SWITCHES:
        configs[f"without {name}"] = _change(SCCLIPConfig(), **{name: False})
    return configs


def _change(config: SCCLIPConfig, **values: Any) -> SCCLIPConfig:
    return replace(config, **values)


def ablate(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """The gain of each module in every measure: alone, added, and left out of the whole.

    The measures are mIoU and the shares of object and background pixels that are right. A gain is
    the paired difference of the result with the module and without it, on the same `count` test
    scenes, with its 95 % bootstrap interval. Returns the columns measure, ablation (one of
    `ABLATIONS`, or "total"), module, value, low, high.
    """
    methods = {name: SCCLIP(model, config) for name, config in ablation_configs().items()}
    counted = score_methods(methods, "training", count, seed, TEST)
    whole, rows = f"add {SWITCHES[-1]}", []
    for measure, statistic in MEAN_AND_PARTS.items():
        before = "all off"
        for name in SWITCHES:
            pairs = {
                "alone": (f"only {name}", "all off"),
                "added": (f"add {name}", before),
                "left out": (whole, f"without {name}"),
            }
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

    Gains of modules added one after the other sum to the total by construction; gains of modules
    alone, and of leaving them out, need not. Where modules do the same work, each alone gains much
    and each left out costs little.
    """
    rows = [("the article's claim", "mIoU", sum(CLAIMED.values()), CLAIMED_TOTAL)]
    for measure in MEAN_AND_PARTS:
        part = table[table["measure"] == measure]
        total = 100 * float(part[part["ablation"] == "total"]["value"].iloc[0])
        for ablation in ABLATIONS:
            summed = 100 * part[part["ablation"] == ablation]["value"].sum()
            rows.append((f"here, {ablation}", measure, summed, total))
    return pd.DataFrame(rows, columns=["whose", "measure", "sum of gains", "total gain"])


def sweep(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """Scores with one parameter changed at a time, and the paired gain over the article's value.

    The measures are those of `ablate`. All other values are the article's; `count` validation
    scenes.
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
            counts = counted.get((name, value), own)
            for measure, statistic in MEAN_AND_PARTS.items():
                scored = interval_and_gain(counts, own, statistic, seed)
                rows.append((measure, name, value, *scored))
    table = pd.DataFrame(rows, columns=["measure", "parameter", "setting", *GAINED])
    return table.assign(scenes=count, seed=seed)


def best_of_sweeps(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a sweep in which each parameter has its highest mIoU, one for each parameter."""
    part = table[table["measure"] == "mIoU"]
    return part.loc[part.groupby("parameter", sort=False)["value"].idxmax()]


def best_settings(table: pd.DataFrame) -> SCCLIPConfig:
    """The article's configuration with the best setting of each parameter in a sweep, by mIoU.

    Where the best two ends of the fusion's range leave no layer between them, the end with the
    higher mIoU is taken, and the other one stays the article's.
    """
    best: dict[str, Any] = {}
    reached: dict[str, float] = {}
    for _, row in best_of_sweeps(table).iterrows():
        name = str(row["parameter"])
        best[name] = type(getattr(SCCLIPConfig(), name))(row["setting"])
        reached[name] = row["value"]
    ends = ("multi_start_idx", "multi_end_idx")
    if set(ends) <= set(best) and best[ends[0]] >= best[ends[1]]:
        del best[min(ends, key=reached.__getitem__)]
    return _change(SCCLIPConfig(), **best)


def confirm_on_test_scenes(
    model: FrozenCLIP, table: pd.DataFrame, count: int, seed: int = SEED
) -> pd.DataFrame:
    """Each parameter's best setting of a sweep against the article's, on scenes no choice has seen.

    Returns the columns parameter, setting, claimed (the article's), and the paired gain in mIoU on
    `count` test scenes: value, low, high.
    """
    best = best_of_sweeps(table).set_index("parameter")["setting"]
    default = SCCLIPConfig()
    methods = {"default": SCCLIP(model, default)}
    for name, setting in best.items():
        kind = type(getattr(default, str(name)))
        methods[str(name)] = SCCLIP(model, _change(default, **{str(name): kind(setting)}))
    counted = score_methods(methods, "training", count, seed, TEST)
    statistic, rows = MEAN_AND_PARTS["mIoU"], []
    for name, setting in best.items():
        gain = paired_interval(counted[str(name)], counted["default"], statistic, seed)
        rows.append((name, setting, getattr(default, str(name)), *gain))
    columns = ["parameter", "setting", "claimed", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def compare_on_test_scenes(
    model: FrozenCLIP, config: SCCLIPConfig, count: int, seed: int = SEED
) -> pd.DataFrame:
    """Scores of the configuration that was chosen on validation scenes, and of the article's.

    Both are measured on `count` test scenes; the last row of each measure is their paired
    difference.
    """
    methods = {"article's values": SCCLIP(model), "chosen on validation": SCCLIP(model, config)}
    counted = score_methods(methods, "training", count, seed, TEST)
    pair = counted["chosen on validation"], counted["article's values"]
    rows: list[tuple[object, ...]] = []
    for measure, statistic in MEAN_AND_PARTS.items():
        for name, counts in counted.items():
            rows.append((measure, name, *interval(counts, statistic, seed)))
        rows.append((measure, "difference, paired", *paired_interval(*pair, statistic, seed)))
    table = pd.DataFrame(rows, columns=["measure", "what", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


@figure("05_modules")
def draw_modules(table: pd.DataFrame) -> Figure:
    """Gains of every module, objects and background apart; the article's claims are diamonds."""
    shape = (len(MEAN_AND_PARTS), len(ABLATIONS))
    drawn, axes = plt.subplots(*shape, figsize=(17, 12.5), sharex="row", sharey=True)
    for line, measure in zip(axes, MEAN_AND_PARTS, strict=True):
        for axis, ablation in zip(line, ABLATIONS, strict=True):
            part = table[(table["measure"] == measure) & (table["ablation"] == ablation)].copy()
            part["name"] = part["module"].map(MODULES)
            draw_bars(axis, part, "name")
            # The article states the gains of adding its modules, in mIoU.
            if ablation == "added" and measure == "mIoU":
                places = [MODULES[name] for name in CLAIMED]
                look = {"color": CLAIM_STYLE["color"], "label": "article's claim, VOC"}
                axis.plot(list(CLAIMED.values()), places, "D", **look)
                axis.legend(frameon=False, fontsize=11)
            axis.set(xlabel=f"gain in {measure} (points)")
            if measure == "mIoU":
                axis.set_title(ABLATIONS[ablation])
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_sweeps")
def draw_sweeps(table: pd.DataFrame) -> Figure:
    """Paired gains over the article's value of each hyper-parameter, in every measure."""
    names = list(table["parameter"].unique())
    drawn, axes = plt.subplots(3, 3, figsize=(16, 11), sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        part = table[table["parameter"] == name]
        for measure, rows in part.groupby("measure", sort=False):
            draw_gains(axis, rows, "setting", str(measure))
        axis.axvline(getattr(SCCLIPConfig(), name), **CLAIM_STYLE)
        axis.set(xlabel=name)
    axes[0, 0].plot([], [], **CLAIM_STYLE, label="the article's value")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    look = {"frameon": False, "fontsize": 12, "bbox_to_anchor": (0.5, 1.06)}
    drawn.legend(handles, labels, loc="upper center", ncols=len(labels), **look)
    for axis in axes[:, 0]:
        axis.set_ylabel("against the article's value (points)")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_winner")
def draw_test_comparison(table: pd.DataFrame) -> Figure:
    """What the settings chosen on validation scenes gain on test scenes, in every measure."""
    part = table[table["what"] == "difference, paired"]
    count = table["scenes"].iloc[0]
    label = f"chosen settings minus the article's, {count} test scenes (points)"
    return draw_interval_bars(part, "measure", label)
