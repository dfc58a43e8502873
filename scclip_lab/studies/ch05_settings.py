"""Chapter 5: sweeps of the hyper-parameters, and what the settings they prefer are worth."""

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_lab.datasets.scenes import TEST, VALIDATION
from scclip_lab.evaluation.metrics import GAINED, interval, interval_and_gain, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import CLAIM_STYLE, draw_gains, draw_interval_bars
from scclip_lab.studies.shared import changed, segmenters

SEED = 7
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


def sweep(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """Scores with one parameter changed at a time, and the paired gain over the article's value.

    The measures are those of `ablate`. All other values are the article's; `count` validation
    scenes.
    """
    default = SCCLIPConfig()
    configs: dict[tuple[str, float], SCCLIPConfig] = {("default", 0): default}
    for name, values in SWEEPS.items():
        for value in values:
            if value != getattr(default, name):
                configs[name, value] = _change(default, name, value)
    counted = score_methods(segmenters(model, configs), "training", count, seed, VALIDATION)
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
        best[name] = _of_its_kind(name, row["setting"])
        reached[name] = row["value"]
    ends = ("multi_start_idx", "multi_end_idx")
    if set(ends) <= set(best) and best[ends[0]] >= best[ends[1]]:
        del best[min(ends, key=reached.__getitem__)]
    return changed(SCCLIPConfig(), **best)


def _of_its_kind(name: str, setting: float) -> int | float:
    """A setting out of a table as a whole number where the parameter is one."""
    found: int | float = type(getattr(SCCLIPConfig(), name))(setting)
    return found


def _change(config: SCCLIPConfig, name: str, setting: float) -> SCCLIPConfig:
    return changed(config, **{name: _of_its_kind(name, setting)})


def confirm_on_test_scenes(
    model: FrozenCLIP, table: pd.DataFrame, count: int, seed: int = SEED
) -> pd.DataFrame:
    """Each parameter's best setting of a sweep against the article's, on scenes no choice has seen.

    Returns the columns parameter, setting, claimed (the article's), and the paired gain in mIoU on
    `count` test scenes: value, low, high.
    """
    best = best_of_sweeps(table).set_index("parameter")["setting"]
    default = SCCLIPConfig()
    configs = {"default": default}
    for name, setting in best.items():
        configs[str(name)] = _change(default, str(name), setting)
    counted = score_methods(segmenters(model, configs), "training", count, seed, TEST)
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
    configs = {"article's values": SCCLIPConfig(), "chosen on validation": config}
    counted = score_methods(segmenters(model, configs), "training", count, seed, TEST)
    pair = counted["chosen on validation"], counted["article's values"]
    rows: list[tuple[object, ...]] = []
    for measure, statistic in MEAN_AND_PARTS.items():
        for name, counts in counted.items():
            rows.append((measure, name, *interval(counts, statistic, seed)))
        rows.append((measure, "difference, paired", *paired_interval(*pair, statistic, seed)))
    table = pd.DataFrame(rows, columns=["measure", "what", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


def restore_each(
    model: FrozenCLIP, config: SCCLIPConfig, count: int, seed: int = SEED
) -> pd.DataFrame:
    """The configuration with one of its changed parameters back at the article's value, each once.

    It shows which of several changes do harm together. Returns the columns what, and
    the mIoU on `count` test scenes with its 95 % bootstrap interval: value, low, high. The first
    two rows are the article's configuration and the chosen one.
    """
    default, statistic = SCCLIPConfig(), MEAN_AND_PARTS["mIoU"]
    moved = [n for n in SWEEPS if getattr(config, n) != getattr(default, n)]
    configs = {"all at the article's values": default, "all as chosen": config}
    configs |= {f"{n} back": _change(config, n, getattr(default, n)) for n in moved}
    counted = score_methods(segmenters(model, configs), "training", count, seed, TEST)
    rows = [(what, *interval(counts, statistic, seed)) for what, counts in counted.items()]
    table = pd.DataFrame(rows, columns=["what", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


@figure("05_sweeps")
def draw_sweeps(table: pd.DataFrame) -> Figure:
    """Paired gains over the article's value of each hyper-parameter, in every measure."""
    names = list(table["parameter"].unique())
    drawn, axes = plt.subplots(3, 3, figsize=(16, 11), sharey="row")
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
