"""Chapter 12: hyper-parameters chosen from unlabelled pictures, beside the article's and chance."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from tqdm import tqdm

from scclip_core.adapt import PREDICTIONS, RULES, WITH_WORDS, WITHOUT_WORDS, scores_of
from scclip_core.clip import FrozenCLIP
from scclip_core.loading import load_clip
from scclip_lab.datasets.scenes import TEST, VALIDATION
from scclip_lab.evaluation.metrics import QUANTILES, mean_iou, resample
from scclip_lab.evaluation.mini import MEAN_AND_PARTS
from scclip_lab.plots import error_bars
from scclip_lab.studies import figure, is_fast
from scclip_lab.studies.ch12_cells import GIVEN, SCORING, SETTING, Cell, data_sets, measure_cell
from scclip_lab.studies.drawing import CLAIM_STYLE, draw_numbers
from scclip_lab.studies.regret import ALL, CHANCE, CONSTANTS, ORACLE, winner
from scclip_lab.studies.tables import change_in_points, row_where
from scclip_lab.training.distil import load_student

SEED = 7
STUDENTS = ("slim", "shallow", "short")
CHOSEN = (*SCORING, *SETTING)
# The random seed of the bootstrap for each data set: one for those with the same scenes.
DRAWN_BY = {"training styles": 0, "style never seen": 1, "336 pixels": 2, "weathered": 0}
# The rules that the core follows unless it is told another one.
OFFERED = (WITH_WORDS, WITHOUT_WORDS)
# A rule is safe where the interval of its gain over the constants ends above this, a point.
MARGIN = -0.01


def load_models() -> list[FrozenCLIP]:
    """The bundled model and its students; in fast mode without them."""
    names = () if is_fast() else STUDENTS
    return [load_clip("mini"), *map(load_student, names)]


def measure_cells(models: Sequence[FrozenCLIP], tests: int, pictures: int) -> list[Cell]:
    """Every model on every data set; fast mode has two scenes of each split."""
    pairs = list(product(models, data_sets()))
    numbers = (2, 2) if is_fast() else (tests, pictures)
    return [
        measure_cell(model, data, *numbers, SEED)
        for model, data in tqdm(pairs, desc="models and data sets")
    ]


class Draws:
    """Bootstrap draws of every measure, cells and settings at once, each computed once.

    The same scenes are drawn for all models and settings of a data set. Weathered pictures are
    those of the training styles, damaged, and are drawn with them.
    """

    def __init__(self, cells: Sequence[Cell], split: int):
        self.cells, self.split = list(cells), split
        self._known: dict[tuple[int, str, str], tuple[float, np.ndarray]] = {}

    def of(self, cell: int, setting: str, measure: str = "mIoU") -> tuple[float, np.ndarray]:
        """The value of a setting in a cell, and its bootstrap values [draws]."""
        key = (cell, setting, measure)
        if key not in self._known:
            if setting == CHANCE:
                each = [self.of(cell, name, measure) for name in self.cells[cell].evidence]
                value = float(np.mean([value for value, _ in each]))
                self._known[key] = value, np.mean([drawn for _, drawn in each], 0)
            else:
                counts = self.cells[cell].counts[self.split][self.named(cell, setting)]
                statistic = MEAN_AND_PARTS[measure]
                seed = DRAWN_BY[self.cells[cell].data]
                drawn = resample(counts, statistic, seed, draws=400)
                self._known[key] = float(statistic(counts.sum(0))), drawn
        return self._known[key]

    def named(self, cell: int, setting: str) -> str:
        """The candidate, or rule that sets beta, that a setting stands for in a cell."""
        if setting == CONSTANTS:
            return GIVEN
        if setting == ORACLE:
            counted = self.cells[cell].counts[self.split]
            scored = {name: mean_iou(counted[name].sum(0)) for name in self.cells[cell].evidence}
            return max(scored, key=scored.__getitem__)
        return setting if setting in self.cells[cell].evidence else self.cells[cell].choice(setting)

    def difference(
        self, cells: Sequence[int], a: str, b: str, measure: str = "mIoU"
    ) -> tuple[float, float, float]:
        """(mean over cells of a minus b, low, high), with its 95 % interval over scenes."""
        pairs = [(self.of(i, a, measure), self.of(i, b, measure)) for i in cells]
        value = float(np.mean([first[0] - second[0] for first, second in pairs]))
        drawn = np.mean([first[1] - second[1] for first, second in pairs], 0)
        low, high = np.nanquantile(drawn, QUANTILES)
        return value, float(low), float(high)


def regrets(cells: Sequence[Cell]) -> pd.DataFrame:
    """What every rule loses to the oracle and gains over constants and chance, on both splits.

    A row is a measure of a rule on a data set, or all of them, as means over the cells: regret is
    the oracle minus the rule, gain the rule minus the constants, chance the rule minus the mean of
    all candidates. The oracle is the candidate with the highest mIoU on the same scenes.
    """
    rows = []
    for split, title in ((VALIDATION, "validation"), (TEST, "test")):
        draws = Draws(cells, split)
        for data in (ALL, *data_sets()):
            inside = [i for i, cell in enumerate(cells) if data in (ALL, cell.data)]
            if not inside:
                continue
            for rule, measure in product((CONSTANTS, CHANCE, *CHOSEN), MEAN_AND_PARTS):
                if split == VALIDATION and measure != "mIoU":
                    continue
                regret = draws.difference(inside, ORACLE, rule, measure)
                gain = draws.difference(inside, rule, CONSTANTS, measure)
                chance = draws.difference(inside, rule, CHANCE, measure)
                gains = [draws.difference([i], rule, CONSTANTS, measure)[0] for i in inside]
                each = (sum(one > 0 for one in gains), min(gains), len(inside))
                found = (*regret, *gain, *chance, *each)
                rows.append((title, measure, data, rule, *found))
    columns = ["split", "measure", "data", "rule", "value", "low", "high"]
    columns += [f"{what}{end}" for what in ("gain", "chance") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*columns, "cells better", "worst gain", "cells"])


def correlations(cells: Sequence[Cell]) -> pd.DataFrame:
    """Spearman's correlation of every rule's score and test mIoU, over candidates.

    Rules that look at layers or beta alone are correlated over the candidates that they tell
    apart: the first of those with equal scores.
    """
    rows = []
    for cell, rule in product(cells, SCORING):
        first = {score: name for name, score in reversed(list(cell.scores[rule].items()))}
        names = list(cell.evidence) if rule in cell_rules() else list(first.values())
        scored = [cell.scores[rule][name] for name in names]
        truth = [float(mean_iou(cell.counts[TEST][name].sum(0))) for name in names]
        # Where a rule or the truth tells no candidates apart there is no correlation.
        apart = min(len(set(scored)), len(set(truth))) > 1
        value = float(spearmanr(scored, truth).statistic) if apart else float("nan")
        rows.append((cell.model, cell.data, rule, value, len(names)))
    return pd.DataFrame(rows, columns=["model", "data", "rule", "spearman", "candidates"])


def cell_rules() -> tuple[str, ...]:
    """The rules that tell all candidates apart."""
    return (*PREDICTIONS, "consensus")


def model_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Test scores of the oracle, the constants, a random candidate and `OFFERED`, cell by cell.

    `chosen` names the candidate, "as given" for the constants.
    """
    draws, rows = Draws(cells, TEST), []
    for i, cell in enumerate(cells):
        for setting, measure in product((ORACLE, CONSTANTS, CHANCE, *OFFERED), MEAN_AND_PARTS):
            value, drawn = draws.of(i, setting, measure)
            chosen = "" if setting == CHANCE else draws.named(i, setting)
            bounds = np.nanquantile(drawn, QUANTILES)
            gain = draws.difference([i], setting, CONSTANTS, measure)
            row = (measure, cell.model, cell.data, setting, chosen, value, *bounds, *gain)
            rows.append((*row, len(cell.counts[TEST][GIVEN])))
    columns = ["measure", "model", "data", "setting", "chosen", "value", "low", "high"]
    columns += ["gain", "gain_low", "gain_high", "scenes"]
    return pd.DataFrame(rows, columns=columns)


def each_picture(cells: Sequence[Cell]) -> pd.DataFrame:
    """Rules of the core applied picture by picture, against once for the data set.

    Measured on the unlabelled pictures, where both were chosen; the mean over cells of mIoU.
    Returns for every rule the columns each picture, data set, constants.
    """
    rows = []
    for rule in RULES:
        found = []
        for cell in cells:
            counts = cell.counts[VALIDATION]
            single = []
            for i in range(len(counts[GIVEN])):
                own = {
                    name: {what: values[i : i + 1] for what, values in evidence.items()}
                    for name, evidence in cell.evidence.items()
                }
                scores = scores_of(own, rule)
                single.append(counts[max(scores, key=scores.__getitem__)][i])
            whole = (counts[cell.choice(rule)], counts[GIVEN])
            found.append([float(mean_iou(np.sum(part, 0))) for part in (single, *whole)])
        rows.append((rule, *np.mean(found, 0)))
    return pd.DataFrame(rows, columns=["rule", "each picture", "data set", "constants"])


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """What each rule is worth on test scenes, over all cells, from the table of `regrets`.

    "better": the interval of its gain over the constants lies above zero. "safe": it lies above
    `MARGIN`. "knows": the interval of its difference to a random candidate lies above zero. The
    first row is the rule with the least regret on validation scenes.
    """
    part = table[(table["split"] == "test") & (table["measure"] == "mIoU") & (table["data"] == ALL)]
    best, rows = winner(table), []
    for rule in (best, *(name for name in CHOSEN if name != best)):
        row = row_where(part, rule=rule)
        verdicts = {
            "better than the constants": row["gain_low"] > 0,
            "safe": row["gain_low"] > MARGIN,
            "better than chance": row["chance_low"] > 0,
        }
        told = {what: "yes" if holds else "no" for what, holds in verdicts.items()}
        rows.append({"rule": rule, "gain (points)": change_in_points(row, "gain"), **told})
    return pd.DataFrame(rows)


@figure("12_regret")
def draw_regret(table: pd.DataFrame) -> Figure:
    """Regret of every rule on test scenes, with the constants and chance as lines: by data set."""
    part = table.query("split == 'test' and measure == 'mIoU'")
    order = part[(part["data"] == ALL) & part["rule"].isin(CHOSEN)].sort_values("value")
    names = list(order["rule"])
    sets = list(part["data"].unique())
    drawn, axes = plt.subplots(1, len(sets), figsize=(18, 5.6), sharey=True)
    for axis, data in zip(axes, sets, strict=True):
        rows = part[part["data"] == data].set_index("rule")
        shown = rows.loc[names]
        look: dict[str, Any] = {"fmt": "o", "markersize": 7, "capsize": 3, "color": "#0072B2"}
        axis.errorbar(100 * shown["value"], range(len(names)), xerr=100 * error_bars(shown), **look)
        lines = rows["value"].to_dict()
        axis.axvline(100 * lines[CONSTANTS], **CLAIM_STYLE, label=CONSTANTS)
        chance: dict[str, Any] = {"color": "0.4", "linestyle": ":", "linewidth": 2, "label": CHANCE}
        axis.axvline(100 * lines[CHANCE], **chance)
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set_title("all data sets" if data == ALL else data, fontsize=14)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.06), "ncols": 2}
    drawn.legend(handles[:2], labels[:2], frameon=False, fontsize=12, **place)
    drawn.supxlabel("mIoU of the oracle minus that of the rule (points)", fontsize=14)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("12_criteria")
def draw_correlations(table: pd.DataFrame) -> Figure:
    """Spearman's correlation of every rule's score with test mIoU, for every model and data set."""
    cell = table["model"] + ", " + table["data"]
    values = table.assign(cell=cell).pivot(index="cell", columns="rule", values="spearman")
    values = values.loc[cell.unique(), table["rule"].unique()]
    return draw_numbers(values, (-1, 1), "Spearman's correlation")[0]


@figure("12_models")
def draw_models(table: pd.DataFrame) -> Figure:
    """Test mIoU of oracle, constants, a random candidate and both rules of the core, by cell."""
    part = table[table["measure"] == "mIoU"]
    cells = part[["model", "data"]].drop_duplicates()
    drawn, axis = plt.subplots(figsize=(13, 0.48 * len(cells) + 1.6))
    looks = {
        ORACLE: ("*", "#E69F00", 15),
        CONSTANTS: ("D", "#CC79A7", 9),
        CHANCE: ("|", "0.4", 16),
        WITH_WORDS: ("o", "#0072B2", 9),
        WITHOUT_WORDS: ("x", "#009E73", 9),
    }
    for setting, rows in part.groupby("setting", sort=False):
        marker, colour, size = looks[str(setting)]
        look: dict[str, Any] = {"marker": marker, "color": colour, "markersize": size}
        look |= {"linestyle": "none", "markeredgewidth": 2}
        axis.plot(100 * rows["value"], range(len(rows)), label=str(setting), **look)
    names = [f"{row['model']}, {row['data']}" for _, row in cells.iterrows()]
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="mIoU on test scenes (%)")
    axis.grid(axis="y", alpha=0.4)
    axis.legend(frameon=False, fontsize=12, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn
