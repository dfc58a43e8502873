"""Rules of the ledger on how the method works: shapes, anomalies, similarity, attention, fusion.

A rule takes a stored table and returns a finding: the result as a text, and a verdict. The
functions that take something else return a rule.
"""

import pandas as pd

from scclip_lab.studies.tables import change_in_points, in_percent, row_where
from scclip_lab.studies.verdicts import (
    FAILS,
    HOLDS,
    MEANINGLESS,
    UNDECIDED,
    Finding,
    Rule,
    by_intervals,
    by_sign,
    negated,
)


def lies(direction: str, bound: float, **where: object) -> Rule:
    """A measured value lies above a bound, or below it, with its whole interval.

    Args:
        direction: "above" or "below".
        bound: what the value is compared with.
        where: which row of the table holds it, by the values of its columns.

    Raises ValueError for another direction.
    """
    if direction not in ("above", "below"):
        raise ValueError(f"direction must be above or below, got {direction!r}")

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, **where)
        apart = row[["value", "low", "high"]] - bound
        text = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        return text, by_sign(apart if direction == "above" else negated(apart))

    return judge


def gains(what: str) -> Rule:
    """A difference lies above zero with its whole interval; told in points."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, what=what)
        return f"{change_in_points(row)} points", by_sign(row)

    return judge


def found_when_planted(source: str) -> Rule:
    """Chapter 2: planted anomalies have larger LOF than other patches; ROC AUC above 0.5.

    Beside it stands the share of the flags that are right, and that of the patches themselves.
    """

    def judge(table: pd.DataFrame) -> Finding:
        part = table[(table["detector"] == "local outlier factor") & (table["source"] == source)]
        row, flags = (row_where(part, measure=name) for name in ("ROC AUC", "precision"))
        text = f"ROC AUC {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        chance = f"{flags['value']:.2f} of the flags are right, by chance {10 / 196:.2f}"
        return f"{text}; {chance}", by_sign(row[["value", "low", "high"]] - 0.5)

    return judge


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


def best_detector(table: pd.DataFrame) -> Finding:
    """Chapter 2: the local outlier factor has the highest mean ROC AUC."""
    mean = table[table["measure"] == "ROC AUC"].groupby("detector")["value"].mean()
    best, own = mean.idxmax(), mean["local outlier factor"]
    text = f"LOF {own:.2f}, best: {best} {mean.max():.2f} (mean ROC AUC)"
    return text, HOLDS if best == "local outlier factor" else FAILS


def median_similarity(layer: int) -> Rule:
    """Chapter 3: the median similarity of a layer is within 0.1 of 0.4."""

    def judge(table: pd.DataFrame) -> Finding:
        value = row_where(table, layer=layer, what="median")["value"]
        return f"median {value:.2f} at layer {layer}", HOLDS if abs(value - 0.4) <= 0.1 else FAILS

    return judge


def share_kept(layer: int) -> Rule:
    """Chapter 3: beta = 0.4 keeps 30 to 40 % of the similarities of a layer."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, layer=layer, what="0.4")
        outside = row["high"] < 0.3 or row["low"] > 0.4
        verdict = FAILS if outside else HOLDS if 0.3 <= row["value"] <= 0.4 else UNDECIDED
        return f"{in_percent(row)} % kept", verdict

    return judge


def content_against_qk(measure: str, more: bool) -> Rule:
    """Chapter 4: content attention has more (or less) of a measure than query-key attention."""

    def judge(table: pd.DataFrame) -> Finding:
        part = table[table["measure"] == measure].groupby("kind", as_index=False)
        means = part[["value", "low", "high"]].mean()
        content, own = row_where(means, kind="content"), row_where(means, kind="qk")
        mixed = row_where(means, kind="mix")["value"]
        text = f"content {content['value']:.2f}, qk {own['value']:.2f}, their mix {mixed:.2f}"
        return by_intervals(*((content, own) if more else (own, content)), text)

    return judge


def layers_kept(table: pd.DataFrame) -> Finding:
    """Chapter 1: the outputs of twelve blocks are among the tensors of a run."""
    count = int(table["tensor"].str.fullmatch(r"blocks\.\d+\.hook_resid_post").sum())
    text = f"{count}: the last block is the rearranged one"
    return text, HOLDS if count == 12 else FAILS


def ninth_layer(table: pd.DataFrame) -> Finding:
    """Chapter 1: which block's output has the index 8."""
    note = row_where(table, tensor="blocks.8.hook_resid_post")["what happened"]
    return f"the {note}, counted from 1", FAILS


def mask_after_softmax(table: pd.DataFrame) -> Finding:
    """Chapter 8: a mask of negative entries removes something after the softmax."""
    after = row_where(table, what="negative entries after the softmax")
    before = row_where(table, what="negative entries before the softmax")
    text = f"{in_percent(after)} % of entries after it, {in_percent(before)} % before it"
    return text, HOLDS if after["value"] > 0 else FAILS + " (masked before it, as published)"


def flagged_more_often(where: str) -> Rule:
    """Chapter 8: patches of a kind are flagged more often than others."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, what=f"more flags than patches: {where}")
        return f"{change_in_points(row)} points", by_sign(row)

    return judge


def no_lighting(table: pd.DataFrame) -> Finding:
    """A source of anomalies that the test scenes do not have."""
    return "not measured: the scenes are drawn without lighting", UNDECIDED


def one_number_of_flags(table: pd.DataFrame) -> Finding:
    """Chapter 8: the number of flagged patches differs from scene to scene."""
    numbers = row_where(table, what="numbers of flagged patches that occur")["value"]
    scenes = table["scenes"].iloc[0]
    text = f"{numbers:.0f} numbers of flags over {scenes} scenes"
    text = f"the same number of flags in all {scenes} scenes" if numbers == 1 else text
    return text, HOLDS if numbers > 1 else FAILS


def graph_operation(table: pd.DataFrame) -> Finding:
    """Chapter 8: the aggregation is D^-1 S F; what the normalisation of GCN would change."""
    apart = row_where(table, what="aggregation and graph operation, largest difference")["value"]
    change = row_where(table, what="mIoU, symmetric normalisation minus that of rows")
    text = (
        f"largest difference {apart:.0e}; GCN's normalisation changes mIoU by"
        f" {change_in_points(change)} points"
    )
    return text, HOLDS if apart < 1e-3 else FAILS


def readable_by_depth(table: pd.DataFrame) -> Finding:
    """The phenomena: objects are more readable at layer 8 than at layer 3.

    Edges and the scene are not measured, so the claim can only fail or stay undecided.
    """
    part = table[table["what"] == "objects right, values of the layer"].set_index("place")["value"]
    found = [f"{100 * part[layer]:.0f} % at layer {layer}" for layer in (3, 8, 10)]
    return ", ".join(found), UNDECIDED if part[3] < part[8] else FAILS


def needs_training(table: pd.DataFrame) -> Finding:
    """A claim about gradients, of which a frozen model has none."""
    return "no gradient is computed", MEANINGLESS
