"""Rules of the ledger on what the method achieves: gains, settings, scores, time.

A rule takes a stored table and returns a finding: the result as a text, and a verdict. The
functions that take something else return a rule.
"""

import pandas as pd

from scclip_lab.studies.tables import STYLE_NAMES, fit_exponents, in_percent, in_points, row_where
from scclip_lab.studies.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    UNTESTED,
    Finding,
    Rule,
    agreed,
    by_sign,
    negated,
    paired_gain,
)


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
    """Chapter 5: a module gains mIoU when it is added in the article's order, in all styles."""

    def judge(table: pd.DataFrame) -> Finding:
        texts, verdicts = [], []
        for style, name in STYLE_NAMES.items():
            part = table[table["styles"] == style]
            found = {"ablation": "added", "module": module}
            row = row_where(part, measure="mIoU", **found)
            objects = row_where(part, measure="objects right", **found)
            background = row_where(part, measure="background right", **found)
            texts.append(
                f"{name}: {in_percent(row)} points of mIoU (objects"
                f" {in_points(objects['value'])}, background {in_points(background['value'])})"
            )
            verdicts.append(by_sign(row))
        return "; ".join(texts), agreed(verdicts)

    return judge


def overlapping_gains(table: pd.DataFrame) -> Finding:
    """Chapter 5: the gains of leaving modules out sum to less than the total gain.

    Where modules do the same work, each can be spared, since the others still do it. It is judged
    in both groups of styles, where there is a total gain for modules to share.
    """
    texts, verdicts = [], []
    for style, name in STYLE_NAMES.items():
        part = table[(table["styles"] == style) & (table["measure"] == "mIoU")]
        total = row_where(part, ablation="total")
        left = row_where(part, ablation="total minus left out")
        texts.append(
            f"{name}: the total is {in_percent(total)}; the total minus the gains of leaving out is"
            f" {in_percent(left)}"
        )
        verdicts.append(by_sign(left) if total["low"] > 0 else UNDECIDED)
    return "; ".join(texts), agreed(verdicts)


def best_in_sweep(name: str) -> Rule:
    """Chapter 5: no setting that a sweep prefers to the article's gains on fresh test scenes."""

    def judge(table: pd.DataFrame) -> Finding:
        row = row_where(table, parameter=name)
        if row["setting"] == row["claimed"]:
            return f"best of the sweep: {row['claimed']:g}", HOLDS
        gain, low, high = (f"{100 * row[end]:+.2f}" for end in ("value", "low", "high"))
        text = (
            f"the sweep prefers {name} = {row['setting']:g} to {row['claimed']:g}:"
            f" {gain} [{low}, {high}] points on test scenes"
        )
        return text, by_sign(negated(row))

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
    """Chapter 9: the tower tuned on 1,000 labelled scenes has a higher mIoU, in all styles."""
    where = {"trained": "whole image tower", "labelled scenes": 1000}
    texts, verdicts = [], []
    for style, name in STYLE_NAMES.items():
        row = row_where(table, measure="SC-CLIP minus this", styles=style, **where)
        texts.append(f"{name}: {in_percent(negated(row))} points more than SC-CLIP")
        verdicts.append(by_sign(negated(row)))
    return "; ".join(texts), agreed(verdicts)


def better_than_vanilla(table: pd.DataFrame) -> Finding:
    """The main table: SC-CLIP's gain in mIoU over vanilla CLIP.

    No verdict: the training of the bundled model puts vanilla CLIP at a disadvantage.
    """
    where = {"method": "scclip", "styles": "training", "objects": "all"}
    row = row_where(table, measure="mIoU minus vanilla", **where)
    shares = []
    for method in ("scclip", "vanilla"):
        where["method"] = method
        objects = row_where(table, measure="objects right", **where)["value"]
        background = row_where(table, measure="background right", **where)["value"]
        shares.append(f"{100 * objects:.0f} / {100 * background:.0f} %")
    text = (
        f"{in_percent(row)} points of mIoU (objects / background right: {' against '.join(shares)})"
    )
    return text, UNTESTED


def time_ratio(table: pd.DataFrame) -> Finding:
    """Chapter 7: SC-CLIP takes 1.2 times as long as vanilla, within 0.05, at B = 1 and at B = 8."""
    rows = {b: row_where(table, model="ViT-B-16", batch=b, what="scclip") for b in (1, 8)}
    found = [
        f"{row['ratio']:.2f}x ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}) at B = {batch}"
        for batch, row in rows.items()
    ]
    text = f"{', '.join(found)}, ViT-B/16 shapes"
    ratios = [row["ratio"] for row in rows.values()]
    if all(abs(ratio - 1.2) <= 0.05 for ratio in ratios):
        return text, HOLDS
    if max(ratios) < 1.15:
        return text, f"{FAILS} (it costs less)"
    return text, f"{FAILS} (it costs more)" if min(ratios) > 1.25 else FAILS


def grows_as(what: str, power: float) -> Rule:
    """Chapter 7: the time of a part grows as the number of patches to a power, within 0.5."""

    def judge(table: pd.DataFrame) -> Finding:
        exponent = row_where(fit_exponents(table), model="ViT-B-16", what=what)["exponent"]
        text = f"time ~ N^{exponent:.2f}, from N = 196"
        return text, HOLDS if abs(exponent - power) <= 0.5 else FAILS

    return judge


def room_for_gain(table: pd.DataFrame) -> Finding:
    """The main table: SC-CLIP's mIoU as a ratio to that of vanilla CLIP.

    No verdict: the training of the bundled model puts vanilla CLIP at a disadvantage.
    """
    where = {"measure": "mIoU", "styles": "training", "objects": "all"}
    scclip, vanilla = (
        row_where(table, method=name, **where)["value"] for name in ("scclip", "vanilla")
    )
    text = f"{scclip / vanilla:.1f} times vanilla (partly made by this model's training)"
    return text, UNTESTED


def nothing_is_trained(table: pd.DataFrame) -> Finding:
    """Chapter 8: no parameter changes in a forward pass, and none requires a gradient."""
    changed = row_where(table, what="parameters changed by a forward pass")["value"]
    trained = row_where(table, what="parameters that require a gradient")["value"]
    text = f"{changed:.0f} changed, {trained:.0f} require a gradient"
    return text, HOLDS if changed == trained == 0 else FAILS


def more_alike(table: pd.DataFrame) -> Finding:
    """Chapter 8: one step of aggregation raises the cosine of two patches of one label."""
    row = row_where(table, what="cosine of two patches of one label, aggregated minus not")
    return f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] of cosine", by_sign(row)


def first_step(table: pd.DataFrame) -> Finding:
    """Chapter 3: one step of aggregation gains mIoU."""
    none, gain = row_where(table, steps=0), paired_gain(row_where(table, steps=1))
    text = f"mIoU {in_percent(none)} before, a change of {in_percent(gain)} points by one step"
    return text, by_sign(gain)
