"""Chapter 5: what each module adds, whether gains overlap, and how modules work in pairs."""

from itertools import combinations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_lab.datasets.scenes import STYLES, TEST
from scclip_lab.evaluation.metrics import Statistic, interval, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods
from scclip_lab.plots import error_bars

# The chapter's other modules, whose figures are drawn again with those of this one.
from scclip_lab.studies import cases_fusion, ch05_settings, figure  # noqa: F401
from scclip_lab.studies.drawing import CLAIM_STYLE
from scclip_lab.studies.shared import changed, no_module, segmenters
from scclip_lab.studies.tables import STYLE_NAMES

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
# How modules are judged: alone, added in the article's order, left out of the whole.
ABLATIONS = {
    "alone": "alone",
    "added": "added in the article's order",
    "left out": "left out of the whole",
}
INTERVAL = ["value", "low", "high"]


def ablation_configs() -> dict[str, SCCLIPConfig]:
    """No module; each alone; the modules added one at a time in the article's order; each left out.

    With no module, SC-CLIP is the baseline `values`.
    """
    config = no_module()
    configs = {"all off": config}
    for name in SWITCHES:
        configs[f"only {name}"] = changed(config, **{name: True})
    for name in SWITCHES:
        config = changed(config, **{name: True})
        configs[f"add {name}"] = config
    for name in SWITCHES:
        configs[f"without {name}"] = changed(SCCLIPConfig(), **{name: False})
    return configs


def ablate(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """The gain of each module in every measure: alone, added, and left out of the whole.

    The measures are mIoU and the shares of object and background pixels that are right. A gain is
    the paired difference of the result with the module and without it, on the same `count` test
    scenes, with its 95 % bootstrap interval. Returns the columns styles ("training" or
    "held-out"), measure, ablation (one of `ABLATIONS`, "total", or "total minus left out", what is
    left of the total gain when the gains of leaving modules out are subtracted), module, value,
    low, high.
    """
    whole, parts = f"add {SWITCHES[-1]}", []
    for style in STYLES:
        methods, rows = segmenters(model, ablation_configs()), []
        counted = score_methods(methods, style, count, seed, TEST)
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
            names = (whole, "all off", *(f"without {name}" for name in SWITCHES))
            stacked = np.stack([counted[name] for name in names], 1)  # [I, 2 + modules, 3, C]
            shared = interval(stacked, shared_of(statistic), seed)
            rows.append((measure, "total minus left out", "all modules", *shared))
        table = pd.DataFrame(rows, columns=["measure", "ablation", "module", *INTERVAL])
        parts.append(table.assign(scenes=count, seed=seed))
        parts[-1].insert(0, "styles", style)
    return pd.concat(parts, ignore_index=True)


def shared_of(statistic: Statistic) -> Statistic:
    """The total gain minus the gains of leaving out each module.

    Of class counts [..., 2 + n, 3, C]: with all modules, with none, and without each of the n.
    """

    def shared(counts: np.ndarray) -> np.ndarray:
        whole, none, *without = np.moveaxis(statistic(counts), -1, 0)
        found: np.ndarray = whole - none - sum(whole - score for score in without)
        return found

    return shared


def sum_gains(table: pd.DataFrame) -> pd.DataFrame:
    """The sum of the gains beside the total gain, in points: the article's claim (5.2), and here.

    Gains of modules added one after the other sum to the total by construction; gains of modules
    alone, and of leaving them out, need not. Where modules do the same work, each alone gains much
    and each left out costs little.
    """
    rows = [("the article's claim", "", "mIoU", sum(CLAIMED.values()), CLAIMED_TOTAL)]
    for (style, measure), part in table.groupby(["styles", "measure"], sort=False):
        total = 100 * float(part[part["ablation"] == "total"]["value"].iloc[0])
        for ablation in ABLATIONS:
            summed = 100 * part[part["ablation"] == ablation]["value"].sum()
            rows.append((f"here, {ablation}", str(style), str(measure), summed, total))
    columns = ["whose", "styles", "measure", "sum of gains", "total gain"]
    return pd.DataFrame(rows, columns=columns)


def interact(model: FrozenCLIP, count: int, seed: int = SEED) -> pd.DataFrame:
    """The interaction of every two of the article's five modules, on `count` test scenes.

    I(a, b) = s(a and b) - s(a) - s(b) + s(none), the gain of both minus the two gains alone: zero
    where gains add up; of the sign opposite to the gains where both do the same work; otherwise
    above zero where one makes the other worth more, below where they get in each other's way.

    Returns the columns styles, measure, first, second, value, low, high.
    """
    pairs = list(combinations(CLAIMED, 2))
    chosen = [(), *((name,) for name in CLAIMED), *pairs]
    rows = []
    for style in STYLES:
        configs = {on: changed(no_module(), **dict.fromkeys(on, True)) for on in chosen}
        counted = score_methods(segmenters(model, configs), style, count, seed, TEST)
        for measure, statistic in MEAN_AND_PARTS.items():
            for a, b in pairs:
                four = np.stack([counted[on] for on in ((a, b), (a,), (b,), ())], 1)
                found = interval(four, interaction_of(statistic), seed)
                rows.append((style, measure, a, b, *found))
    table = pd.DataFrame(rows, columns=["styles", "measure", "first", "second", *INTERVAL])
    return table.assign(scenes=count, seed=seed)


def interaction_of(statistic: Statistic) -> Statistic:
    """The interaction in a score, of class counts [..., 4, 3, C]: both, a alone, b alone, none."""

    def interaction(counts: np.ndarray) -> np.ndarray:
        both, first, second, none = np.moveaxis(statistic(counts), -1, 0)
        found: np.ndarray = both - first - second + none
        return found

    return interaction


@figure("05_modules")
def draw_modules(table: pd.DataFrame) -> Figure:
    """Gains of every module in both groups of styles; the article's claims are diamonds."""
    shape = (len(MEAN_AND_PARTS), len(ABLATIONS))
    drawn, axes = plt.subplots(*shape, figsize=(17, 14.5), sharex="row", sharey=True)
    place = np.arange(len(MODULES))
    for line, measure in zip(axes, MEAN_AND_PARTS, strict=True):
        for axis, ablation in zip(line, ABLATIONS, strict=True):
            part = table[(table["measure"] == measure) & (table["ablation"] == ablation)]
            for i, (style, name) in enumerate(STYLE_NAMES.items()):
                rows = part[part["styles"] == style].set_index("module").loc[list(MODULES)]
                look = {"capsize": 3, "label": name, "error_kw": {"elinewidth": 1.5}}
                at = place + 0.38 * (i - 0.5)
                axis.barh(at, 100 * rows["value"], 0.36, xerr=100 * error_bars(rows), **look)
            # The article states the gains of adding its modules, in mIoU.
            if ablation == "added" and measure == "mIoU":
                look = {"color": CLAIM_STYLE["color"], "label": "article's claim (VOC)"}
                axis.plot(list(CLAIMED.values()), place[: len(CLAIMED)], "D", **look)
                handles, labels = axis.get_legend_handles_labels()
            axis.axvline(0, color="0.3", linewidth=1)
            axis.set(xlabel=f"gain in {measure} (points)")
            if measure == "mIoU":
                axis.set_title(ABLATIONS[ablation])
    axes[0, 0].set_yticks(place, list(MODULES.values()))
    axes[0, 0].set_ylim(len(place) - 0.4, -0.6)
    look = {"frameon": False, "fontsize": 14, "ncols": 3, "bbox_to_anchor": (0.5, 1.03)}
    drawn.legend(handles, labels, loc="upper center", **look)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("05_interaction")
def draw_interaction(table: pd.DataFrame) -> Figure:
    """How the mIoU of every two modules together differs from their gains alone, in points."""
    part, names = table[table["measure"] == "mIoU"], list(CLAIMED)
    limit = 100 * part["value"].abs().max()
    styles = part["styles"].unique()
    drawn, axes = plt.subplots(1, len(styles), figsize=(14, 5.6), sharey=True, layout="constrained")
    for axis, style in zip(axes, styles, strict=True):
        grid = np.full((len(names) - 1, len(names) - 1), np.nan)
        for _, row in part[part["styles"] == style].iterrows():
            line, column = names.index(row["first"]), names.index(row["second"]) - 1
            grid[line, column] = value = 100 * row["value"]
            clear = row["low"] > 0 or row["high"] < 0
            look = {"ha": "center", "va": "center", "fontsize": 14}
            colour = "white" if abs(value) > 0.6 * limit else "black"
            text = f"{value:+.1f}" + ("" if clear else "\n(0 inside)")
            axis.text(column, line, text, color=colour, **look)
        shown = axis.imshow(grid, cmap="PuOr", vmin=-limit, vmax=limit)
        titles = [MODULES[name].replace(" ", "\n", 1) for name in names]
        axis.set_xticks(range(len(names) - 1), titles[1:], fontsize=12)
        axis.set_yticks(range(len(names) - 1), titles[:-1], fontsize=12)
        axis.set_title(STYLE_NAMES[style])
        axis.tick_params(length=0)
    sns.despine(drawn, left=True, bottom=True)
    drawn.colorbar(shown, ax=axes, label="interaction in mIoU (points)", fraction=0.03, pad=0.01)
    return drawn
