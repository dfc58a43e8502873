"""What the figures of chapters past the article show, in sentences made of their own numbers."""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies.regret import CHANCE, CONSTANTS, ORACLE, winner
from scclip_lab.studies.tables import STYLE_NAMES, best_row, change_in_points, in_points, row_where

MIDDLE = "layer 8"


def _gain(table: pd.DataFrame, **where: object) -> str:
    """The difference of a row to its base, with its interval."""
    return change_in_points(row_where(table, **where), "gain")


def detection(table: pd.DataFrame) -> str:
    """10_detection: SC-CLIP against the values at both overlaps, and what components cost."""
    style = {"styles": "training", "method": "scclip"}
    bound = row_where(table, measure="AP50", styles="training", method="true labels")
    return (
        "SC-CLIP minus the values in training styles:"
        f" {_gain(table, measure='AP50', **style)} points of AP50,"
        f" {_gain(table, measure='AP75', **style)} of AP75. Components of the true labels reach"
        f" AP50 {100 * bound['value']:.1f} %."
    )


def by_example(table: pd.DataFrame) -> str:
    """10_example: SC-CLIP and the middle layer against the values, for both kinds of target."""
    parts = []
    for style in table["styles"].unique():
        where = {"measure": "IoU by example", "styles": style}
        parts.append(
            f"{STYLE_NAMES[style]}: SC-CLIP {_gain(table, method='scclip', **where)} points against"
            f" the values, {MIDDLE} {_gain(table, method=MIDDLE, **where)}"
        )
    return f"IoU by example, {'; '.join(parts)}."


def pck(table: pd.DataFrame) -> str:
    """10_pck: the best layer for every change, and SC-CLIP."""
    parts = []
    for change, part in table.groupby("styles", sort=False):
        best = best_row(part[part["method"].str.startswith("layer ")])
        own = row_where(part, method="scclip")["value"]
        parts.append(f"{change}: {best['method']}, {best['value']:.0%}, SC-CLIP {own:.0%}")
    return f"Best layer. {'; '.join(parts)}."


def video(table: pd.DataFrame) -> str:
    """10_video: J of the values, SC-CLIP and both layers, and of the true masks of patches."""
    part = table[(table["measure"] == "J") & (table["styles"] == "training")]
    bound = row_where(part, method="true masks of patches")["value"]
    best = best_row(part[part["base"].eq("values") & ~part["method"].str.contains("mask|kept")])
    return (
        f"J in training styles: SC-CLIP {_gain(part, method='scclip')} points against the values,"
        f" {MIDDLE} {_gain(part, method=MIDDLE)}; best features: {best['method']},"
        f" {100 * best['value']:.1f} % of at most {100 * bound:.1f} % on this grid."
    )


def retrieval(table: pd.DataFrame) -> str:
    """10_retrieval: pooled SC-CLIP against the class token of the box, and against the values."""
    parts = []
    measure = "text to region, average precision"
    for style, part in table[table["measure"] == measure].groupby("styles", sort=False):
        own, box, base = (
            100 * row_where(part, method=name)["value"]
            for name in ("scclip", "class token, box", "values")
        )
        parts.append(
            f"{STYLE_NAMES[style]}: SC-CLIP {own:.1f} %, values {base:.1f} %, class token of the"
            f" box {box:.1f} %"
        )
    return f"Average precision from text to region, {'; '.join(parts)}."


def modules(table: pd.DataFrame) -> str:
    """10_modules: the module that gains and the one that costs most in each task."""
    parts = []
    for task, part in table.groupby("task", sort=False):
        best, worst = best_row(part), part.iloc[int(part["value"].to_numpy().argmin())]
        parts.append(
            f"{task}: most from {best['module']} ({in_points(best['value'])}), least from"
            f" {worst['module']} ({in_points(worst['value'])})"
        )
    return f"Points that each module adds. {'; '.join(parts)}."


def verdicts(table: pd.DataFrame) -> str:
    """10_verdicts: how many comparisons got which verdict, and the largest difference."""
    counts = table["verdict"].value_counts(sort=False)
    found = [f"{verdict}: {count}" for verdict, count in counts.items()]
    largest = table.iloc[int(table["value"].abs().to_numpy().argmax())]
    return (
        f"Of {len(table)} comparisons, {'; '.join(found)}. The largest difference:"
        f" {largest['task']}, {largest['styles']}, {change_in_points(largest)} points."
    )


def found_planted(table: pd.DataFrame) -> str:
    """11_detectors: exact LOF against the best other detector, by the mean over all cases."""
    part = table[(table["measure"] == "ROC AUC") & (table["case"] == "mean of all")]
    exact, other = row_where(part, detector="lof"), best_row(part[part["detector"] != "lof"])
    return (
        f"Mean ROC AUC of all cases: exact LOF {exact['value']:.2f}; the best other detector,"
        f" {other['detector']}, {other['value']:.2f} (difference {other['gain']:+.3f}"
        f" [{other['gain_low']:+.3f}, {other['gain_high']:+.3f}])."
    )


def repair_effects(table: pd.DataFrame) -> str:
    """11_effects: what no repair at all changes, at its worst, and the range of all detectors."""
    part = table[(table["measure"] == "mIoU") & (table["repaired"] != "lof")]
    nothing = part[part["repaired"] == "no repair"]
    least = best_row(nothing.assign(loss=-nothing["gain"]), "loss")
    return (
        f"Without any repair, mIoU changes by {in_points(least['gain'])} points at worst"
        f" ({least['origin']}); all the changes shown lie between {in_points(part['gain'].min())}"
        f" and {in_points(part['gain'].max())}."
    )


def detector_times(table: pd.DataFrame) -> str:
    """11_times: the two cheaper choices of the configuration, at every number of patches."""
    named = {"landmarks": "landmarks", "grid": "grid window"}
    told = []
    for what, name in named.items():
        part = table[table["what"] == what]
        ratios = [f"{r['ratio']:.2f} at N = {r['patches']:,}" for _, r in part.iterrows()]
        told.append(f"{name} {', '.join(ratios)}")
    return f"Time as a ratio to exact LOF: {'; '.join(told)}."


def flags(table: pd.DataFrame) -> str:
    """11_flags: what the rules flag where nothing is planted."""
    part = table[(table["measure"] == "flagged") & (table["case"] == "nothing")]
    told = [f"{row['rule']}: {row['value']:.1f}" for _, row in part.iterrows()]
    return f"Patches flagged where nothing is planted: {'; '.join(told)}."


def regret(table: pd.DataFrame) -> str:
    """12_regret: the rule chosen on validation scenes, beside the constants and chance."""
    part = table[(table["measure"] == "mIoU") & (table["data"] == "all")]
    tested = part[part["split"] == "test"]
    best = row_where(tested, rule=winner(table))
    own = 100 * best["value"]
    constants, chance = (
        100 * row_where(tested, rule=rule)["value"] for rule in (CONSTANTS, CHANCE)
    )
    return (
        "Regret in points of mIoU, all models and data sets: the rule with the least on validation"
        f" scenes, {best['rule']}, has {own:.1f} on test scenes, the article's constants"
        f" {constants:.1f}, a random candidate {chance:.1f}. The rule minus the constants:"
        f" {change_in_points(best, 'gain')}."
    )


def criteria(table: pd.DataFrame) -> str:
    """12_criteria: the mean correlation of every rule, and in how many cells it is positive."""
    told = []
    for rule, part in table.groupby("rule", sort=False):
        known = part["spearman"].dropna()
        told.append(f"{rule} {known.mean():+.2f} ({(known > 0).sum()} of {len(known)} positive)")
    return f"Mean of Spearman's correlation with test mIoU: {'; '.join(told)}."


def adapted_models(table: pd.DataFrame) -> str:
    """12_models: in how many cells each rule of the core is above and below the constants."""
    part = table[table["measure"] == "mIoU"]
    part = part[~part["setting"].isin((ORACLE, CONSTANTS, CHANCE))]
    told = []
    for rule, rows in part.groupby("setting", sort=False):
        above, below = (rows["gain"] > 0).sum(), (rows["gain"] < 0).sum()
        worst, best = in_points(rows["gain"].min()), in_points(rows["gain"].max())
        told.append(
            f"{rule} is above the constants in {above} and below them in {below} of {len(rows)}"
            f" cells (from {worst} to {best} points)"
        )
    return f"Rules of the core: {'; '.join(told)}."


CAPTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
    "10_detection": detection,
    "10_example": by_example,
    "10_pck": pck,
    "10_video": video,
    "10_retrieval": retrieval,
    "10_modules": modules,
    "10_verdicts": verdicts,
    "11_detectors": found_planted,
    "11_effects": repair_effects,
    "11_times": detector_times,
    "11_flags": flags,
    "12_regret": regret,
    "12_criteria": criteria,
    "12_models": adapted_models,
}
