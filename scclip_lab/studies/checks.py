"""The rules of the ledger: how a stored table becomes a result and a verdict.

A rule takes a table and returns a finding: the result as a text, and one of the verdicts below. The
functions that take something else return a rule.
"""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies.ch05_ablation import sum_gains
from scclip_lab.studies.tables import best_row, fit_exponents, in_percent, row_where

HOLDS, FAILS, UNDECIDED = "holds", "does not hold here", "undecided here"
UNTESTED = "cannot be tested without real weights"
# The result, and the verdict.
Finding = tuple[str, str]
Rule = Callable[[pd.DataFrame], Finding]


def by_sign(row: pd.Series) -> str:
    """The verdict on a gain, by the sign of both ends of its interval."""
    return HOLDS if row["low"] > 0 else FAILS if row["high"] < 0 else UNDECIDED


def paired_gain(row: pd.Series) -> pd.Series:
    """The paired gain of a row of a sweep, as a row of its own."""
    return pd.Series({"value": row["gain"], "low": row["gain_low"], "high": row["gain_high"]})


def negated(row: pd.Series) -> pd.Series:
    """The same difference, taken the other way round."""
    return pd.Series({"value": -row["value"], "low": -row["high"], "high": -row["low"]})


def best_setting(part: pd.DataFrame, setting: str, claimed: float) -> Finding:
    """Whether the claimed setting is the best of a sweep.

    It is refuted where the best setting has a paired gain over it whose interval lies above 0.
    """
    best, own = best_row(part), row_where(part, **{setting: claimed})
    if best[setting] == claimed:
        return f"best {claimed:g} ({in_percent(own)})", HOLDS
    gain = paired_gain(best)
    text = (
        f"best {best[setting]:g}, {in_percent(gain)} points above the article's {claimed:g}"
        f" ({in_percent(own)})"
    )
    return text, FAILS if gain["low"] > 0 else UNDECIDED


def by_intervals(better: pd.Series, worse: pd.Series, text: str) -> Finding:
    """Whether one value lies above another, with intervals that do not overlap."""
    above, below = better["low"] > worse["high"], better["high"] < worse["low"]
    return text, HOLDS if above else FAILS if below else UNDECIDED


def shape(tensor: str, expected: str) -> Rule:
    """Chapter 1: a tensor of ViT-B/16 has the expected shape."""

    def judge(table: pd.DataFrame) -> Finding:
        found = row_where(table, tensor=tensor)["ViT-B-16"]
        return found, HOLDS if found == expected else FAILS

    return judge


def flagged_patches(table: pd.DataFrame) -> Finding:
    """Chapter 2: about 10 of 196 patches are flagged."""
    count = int(table[table["panel"] == "flagged"]["value"].sum())
    return f"{count} of 196", HOLDS if abs(count - 10) <= 1 else FAILS


def planted_found(source: str) -> Rule:
    """Chapter 2: the local outlier factor finds planted anomalies of this source above chance."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, source=source, detector="local outlier factor", measure="ROC AUC")
        text = f"ROC AUC {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        return text, HOLDS if row["low"] > 0.5 else FAILS if row["high"] < 0.5 else UNDECIDED

    return judge


def best_detector(table: pd.DataFrame) -> Finding:
    """Chapter 2: the local outlier factor has the highest mean ROC AUC."""
    mean = table[table["measure"] == "ROC AUC"].groupby("detector")["value"].mean()
    best, own = mean.idxmax(), mean["local outlier factor"]
    text = f"LOF {own:.2f}, best: {best} {mean.max():.2f} (mean ROC AUC)"
    return text, HOLDS if best == "local outlier factor" else FAILS


def median_similarity(table: pd.DataFrame) -> Finding:
    """Chapter 3: the median similarity at layer 8 is within 0.1 of 0.4."""
    value = row_where(table, layer=8, what="median")["value"]
    return f"median {value:.2f} at layer 8", HOLDS if abs(value - 0.4) <= 0.1 else FAILS


def share_kept(layer: int) -> Rule:
    """Chapter 3: beta = 0.4 keeps 30 to 40 % of the similarities of a layer."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, layer=layer, what="0.4")
        outside = row["high"] < 0.3 or row["low"] > 0.4
        verdict = FAILS if outside else HOLDS if 0.3 <= row["value"] <= 0.4 else UNDECIDED
        return f"{in_percent(row)} % kept", verdict

    return judge


def first_step(table: pd.DataFrame) -> Finding:
    """Chapter 3: one step of aggregation gains mIoU."""
    none, gain = row_where(table, steps=0), paired_gain(row_where(table, steps=1))
    text = f"mIoU {in_percent(none)} before, {in_percent(gain)} points more after one step"
    return text, by_sign(gain)


def content_against_qk(measure: str, more: bool) -> Rule:
    """Chapter 4: content attention has more (or less) of a measure than query-key attention."""

    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure].groupby("kind", as_index=False)
        means = part[["value", "low", "high"]].mean()
        content, own = row_where(means, kind="content"), row_where(means, kind="qk")
        text = f"content {content['value']:.2f}, qk {own['value']:.2f}"
        return by_intervals(*((content, own) if more else (own, content)), text)

    return judge


def best_residual(table: pd.DataFrame) -> Finding:
    """Chapter 4: res_cls = 0.3 has the highest mIoU."""
    return best_setting(table[table["measure"] == "mIoU"], "res_cls", 0.3)


def lost_by_residual(measure: str, weight: float) -> Rule:
    """Chapter 4: a measure is lower at this weight of the class token than at 0.3."""

    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure]
        claimed = row_where(part, res_cls=0.3)
        lost = negated(paired_gain(row_where(part, res_cls=weight)))
        text = (
            f"{measure}: {in_percent(claimed)} at 0.3, {in_percent(lost)} points lost at {weight:g}"
        )
        return text, by_sign(lost)

    return judge


def added_gain(module: str) -> Rule:
    """Chapter 5: a module gains mIoU when it is added in the article's order."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, measure="mIoU", ablation="added", module=module)
        return f"{in_percent(row)} points when added", by_sign(row)

    return judge


def overlapping_gains(table: pd.DataFrame) -> Finding:
    """Chapter 5: the gains of leaving modules out sum to more than the total gain."""
    row = row_where(sum_gains(table), whose="here, left out", measure="mIoU")
    summed, total = row["sum of gains"], row["total gain"]
    text = f"left-out gains sum to {summed:.1f}, the total is {total:.1f}"
    return text, HOLDS if summed > total else FAILS


def best_in_sweep(name: str, claimed: float) -> Rule:
    """Chapter 5: a parameter's claimed setting is the best of its sweep."""

    def judge(table: pd.DataFrame) -> Finding:
        return best_setting(table[table["parameter"] == name], "setting", claimed)

    return judge


def needs_real_weights(method: str) -> Rule:
    """The score of a method on PASCAL VOC, beside its score on emoji scenes."""

    def judge(table: pd.DataFrame) -> Finding:
        where = {"method": method, "styles": "training", "objects": "all"}
        row = row_where(table, measure="mIoU", **where)
        return f"here, on emoji scenes: {in_percent(row)} mIoU", UNTESTED

    return judge


def not_measured(table: pd.DataFrame) -> Finding:
    """A claim beside which no measured number stands."""
    return "not measured here", UNTESTED


def fine_tuned_is_better(table: pd.DataFrame) -> Finding:
    """Chapter 9: the tower fine-tuned on 1,000 labelled scenes has a higher mIoU than SC-CLIP."""
    where = {"trained": "whole image tower", "styles": "training", "labelled scenes": 1000}
    above = negated(row_where(table, measure="SC-CLIP minus this", **where))
    return f"+{in_percent(above)} points", by_sign(above)


def better_than_vanilla(table: pd.DataFrame) -> Finding:
    """The main table: SC-CLIP gains mIoU over vanilla CLIP."""
    where = {"method": "scclip", "styles": "training", "objects": "all"}
    row = row_where(table, measure="mIoU minus vanilla", **where)
    return f"{in_percent(row)} points of mIoU", by_sign(row)


def time_ratio(table: pd.DataFrame) -> Finding:
    """Chapter 7: SC-CLIP takes 1.2 times as long as vanilla CLIP, within 0.05."""
    row = row_where(table, model="ViT-B-16", batch=1, what="scclip")
    ratio, low, high = row[["ratio", "ratio_low", "ratio_high"]]
    text = f"{ratio:.2f}x ({low:.2f} to {high:.2f}), ViT-B/16 shapes"
    if abs(ratio - 1.2) <= 0.05:
        return text, HOLDS
    return text, FAILS + (" (it costs less)" if ratio < 1.2 else " (it costs more)")


def more_operations(table: pd.DataFrame) -> Finding:
    """Chapter 7: SC-CLIP needs 15 to 25 % more multiply-adds than vanilla CLIP."""
    more = 100 * (row_where(table, model="ViT-B-16")["ratio"] - 1)
    return f"{more:+.1f} % multiply-adds", HOLDS if 15 <= more <= 25 else FAILS


def quadratic_growth(what: str) -> Rule:
    """Chapter 7: the time of a part grows as the number of patches to the power of 1.5 to 2.5."""

    def judge(table: pd.DataFrame) -> Finding:
        exponent = row_where(fit_exponents(table), model="ViT-B-16", what=what)["exponent"]
        text = f"time ~ N^{exponent:.2f}, from N = 196"
        return text, HOLDS if 1.5 <= exponent <= 2.5 else FAILS

    return judge


def room_for_gain(table: pd.DataFrame) -> Finding:
    """The main table: SC-CLIP's mIoU is at least 1.3 times that of vanilla CLIP."""
    where = {"measure": "mIoU", "styles": "training", "objects": "all"}
    scclip, vanilla = (
        row_where(table, method=name, **where)["value"] for name in ("scclip", "vanilla")
    )
    text = f"{scclip / vanilla:.1f} times vanilla (partly made by this model's training)"
    return text, HOLDS if scclip >= 1.3 * vanilla else FAILS
