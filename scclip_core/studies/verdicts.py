"""The rules of the ledger: how a stored table becomes a result and a verdict."""

from collections.abc import Callable

import pandas as pd

from scclip_core.studies.ablation import overlap as overlap_table
from scclip_core.studies.timing import fit_exponents

HOLDS, FAILS, UNDECIDED = "holds", "does not hold here", "undecided here"
UNTESTED = "cannot be tested without real weights"
Finding = tuple[str, str]  # result as text, verdict
Rule = Callable[[pd.DataFrame], Finding]


def percent(row: pd.Series) -> str:
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def by_sign(row: pd.Series) -> str:
    """A gain is judged by its interval."""
    return HOLDS if row["low"] > 0 else FAILS if row["high"] < 0 else UNDECIDED


def paired_gain(row: pd.Series) -> pd.Series:
    """The paired gain of a row of a sweep, as a row of its own."""
    return pd.Series({"value": row["gain"], "low": row["gain_low"], "high": row["gain_high"]})


def negated(row: pd.Series) -> pd.Series:
    """A difference seen from the other side."""
    return pd.Series({"value": -row["value"], "low": -row["high"], "high": -row["low"]})


def best_setting(part: pd.DataFrame, setting: str, claimed: float) -> Finding:
    """Whether the seed's setting is the best of a sweep: refuted where another has a paired gain above 0."""
    best, own = part.loc[part["value"].idxmax()], row_where(part, **{setting: claimed})
    if best[setting] == claimed:
        return f"best {claimed:g} ({percent(own)})", HOLDS
    gain = paired_gain(best)
    text = f"best {best[setting]:g}, {percent(gain)} points above the seed's {claimed:g} ({percent(own)})"
    return text, FAILS if gain["low"] > 0 else UNDECIDED


def row_where(table: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    if len(table) != 1:
        raise ValueError(f"exactly one row must match {where}, got {len(table)}")
    return table.iloc[0]


def by_intervals(better: pd.Series, worse: pd.Series, text: str) -> Finding:
    """Whether one value lies above another, their intervals apart."""
    verdict = (
        HOLDS if better["low"] > worse["high"] else FAILS if better["high"] < worse["low"] else UNDECIDED
    )
    return text, verdict


def shape(tensor: str, expected: str) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        shape = row_where(table, tensor=tensor)["ViT-B-16"]
        return shape, HOLDS if shape == expected else FAILS

    return judge


def flags(table: pd.DataFrame) -> Finding:
    count = int(table[table["panel"] == "flagged"]["value"].sum())
    return f"{count} of 196", HOLDS if abs(count - 10) <= 1 else FAILS


def found(source: str) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, source=source, detector="local outlier factor", measure="ROC AUC")
        text = f"ROC AUC {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        return text, HOLDS if row["low"] > 0.5 else FAILS if row["high"] < 0.5 else UNDECIDED

    return judge


def best_detector(table: pd.DataFrame) -> Finding:
    mean = table[table["measure"] == "ROC AUC"].groupby("detector")["value"].mean()
    best, own = mean.idxmax(), mean["local outlier factor"]
    text = f"LOF {own:.2f}, best: {best} {mean.max():.2f} (mean ROC AUC)"
    return text, HOLDS if best == "local outlier factor" else FAILS


def median(table: pd.DataFrame) -> Finding:
    row = row_where(table, layer=8, what="median")
    return f"median {row['value']:.2f} at layer 8", HOLDS if abs(row["value"] - 0.4) <= 0.1 else FAILS


def kept(layer: int) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, layer=layer, what="0.4")
        outside = row["high"] < 0.3 or row["low"] > 0.4
        verdict = FAILS if outside else HOLDS if 0.3 <= row["value"] <= 0.4 else UNDECIDED
        return f"{percent(row)} % kept", verdict

    return judge


def first_step(table: pd.DataFrame) -> Finding:
    none, gain = row_where(table, steps=0), paired_gain(row_where(table, steps=1))
    return f"mIoU {percent(none)} before, {percent(gain)} points more after one step", by_sign(gain)


def attention(measure: str, more: bool) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure].groupby("kind")[["value", "low", "high"]].mean()
        content, own = part.loc["content"], part.loc["qk"]
        text = f"content {content['value']:.2f}, qk {own['value']:.2f}"
        return by_intervals(*((content, own) if more else (own, content)), text)

    return judge


def residual_best(table: pd.DataFrame) -> Finding:
    return best_setting(table[table["measure"] == "mIoU"], "res_cls", 0.3)


def residual(measure: str, weight: float) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure]
        gain, claimed = paired_gain(row_where(part, res_cls=weight)), row_where(part, res_cls=0.3)
        lost = negated(gain)
        text = f"{measure}: {percent(claimed)} at 0.3, {percent(lost)} points lost at {weight:g}"
        return text, by_sign(lost)

    return judge


def gain(module: str) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, measure="mIoU", way="added", module=module)
        return f"{percent(row)} points when added", by_sign(row)

    return judge


def overlap(table: pd.DataFrame) -> Finding:
    row = row_where(overlap_table(table), whose="here, left out", measure="mIoU")
    text = f"left-out gains sum to {row['sum of gains']:.1f}, the total is {row['total gain']:.1f}"
    return text, HOLDS if row["sum of gains"] > row["total gain"] else FAILS


def swept(name: str, claimed: float) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        return best_setting(table[table["parameter"] == name], "setting", claimed)

    return judge


def untested(method: str) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, measure="mIoU", method=method, styles="training")
        return f"here, on emoji scenes: {percent(row)} mIoU", UNTESTED

    return judge


def no_row(table: pd.DataFrame) -> Finding:
    return "not measured here", UNTESTED


def fine_tuned(table: pd.DataFrame) -> Finding:
    below = row_where(
        table,
        measure="SC-CLIP (seed) minus this",
        way="whole image tower",
        styles="training",
        **{"labelled scenes": 1000},
    )
    above = negated(below)
    return f"+{percent(above)} points", by_sign(above)


def over_vanilla(table: pd.DataFrame) -> Finding:
    row = row_where(table, measure="mIoU minus vanilla", method="seed", styles="training")
    return f"{percent(row)} points of mIoU", by_sign(row)


def ratio(table: pd.DataFrame) -> Finding:
    row = row_where(table, model="ViT-B-16", batch=1, what="SC-CLIP (seed)")
    text = f"{row['ratio']:.2f}x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), ViT-B/16 shapes"
    return text, HOLDS if abs(row["ratio"] - 1.2) <= 0.05 else FAILS + (
        " (it costs less)" if row["ratio"] < 1.2 else " (it costs more)"
    )


def operations(table: pd.DataFrame) -> Finding:
    row = row_where(table, model="ViT-B-16")
    more = 100 * (row["ratio"] - 1)
    return f"{more:+.1f} % multiply-adds", HOLDS if 15 <= more <= 25 else FAILS


def growth(what: str) -> Rule:
    def judge(table: pd.DataFrame) -> Finding:
        exponent = row_where(fit_exponents(table), model="ViT-B-16", what=what)["exponent"]
        return f"time ~ N^{exponent:.2f}, from N = 196", HOLDS if 1.5 <= exponent <= 2.5 else FAILS

    return judge


def potential(table: pd.DataFrame) -> Finding:
    seed, vanilla = (
        row_where(table, measure="mIoU", method=name, styles="training")["value"]
        for name in ("seed", "vanilla")
    )
    text = f"{seed / vanilla:.1f} times vanilla (partly made by this model's training)"
    return text, HOLDS if seed >= 1.3 * vanilla else FAILS
