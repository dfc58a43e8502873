"""What each figure shows, in a sentence made of its own numbers, so that no finding is typed.

Figures of a single scene (grids, maps, galleries) have no caption: the chapter describes them.
"""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies import captions_beyond, captions_models, captions_results
from scclip_lab.studies.tables import STYLE_NAMES, best_row, change_in_points, in_points, row_where


def histogram(table: pd.DataFrame) -> str:
    """02_histogram: how many patches are flagged, and above which score."""
    scores = table[table["panel"] == "LOF score"]["value"]
    limit = scores.quantile(0.95)
    count = (scores > limit).sum()
    return f"{count} of {len(scores)} patches score above the 95 % quantile, {limit:.2f}."


def detectors(table: pd.DataFrame) -> str:
    """02_detectors: the best detector, and where the local outlier factor is best and worst."""
    part = table[table["measure"] == "ROC AUC"]
    mean = part.groupby("detector")["value"].mean()
    own = part[part["detector"] == "local outlier factor"].set_index("source")["value"]
    return (
        f"Best over the four sources: {mean.idxmax()}, mean ROC AUC {mean.max():.2f}; the local"
        f" outlier factor reaches {own.mean():.2f}, from {own.min():.2f} ({own.idxmin()}) to"
        f" {own.max():.2f} ({own.idxmax()})."
    )


def outlier_limits(table: pd.DataFrame) -> str:
    """02_limits: identical outliers just before and after k of them, and a block of four."""
    flagged = table[(table["panel"] == "flagged") & (table["curve"] == "all alike")]
    shares = flagged.set_index("outliers")["value"]
    block = table[(table["panel"] == "objects right") & (table["outliers"] == 4)]
    named = block.set_index("curve")["value"]
    return (
        f"Outliers that are all alike: {shares[28]:.0%} of 28 are flagged, {shares[32]:.0%} of 32."
        f" A block of 2 x 2 repaired from all eight neighbours leaves"
        f" {named['a block, mean of all 8']:.0%} of the object patches right, from those that are"
        f" not flagged {named['a block, mean of those not flagged']:.0%}."
    )


def flags(table: pd.DataFrame) -> str:
    """02_flags: the share of flags at outlines, and what repair does there."""
    outlines = table[table["place"].str.startswith("outline")]
    share = outlines.groupby("what")["value"].sum()
    ground = outlines[outlines["place"].str.contains("background")].set_index("what")["value"]
    return (
        f"Outlines of objects are {share['patches']:.0%} of all patches and get"
        f" {share['flags']:.0%} of the flags. Where the centre of such a flagged patch is"
        f" background, {ground['before repair']:.0%} have the right word before repair and"
        f" {ground['after repair']:.0%} after it."
    )


def kept(table: pd.DataFrame) -> str:
    """03_kept: the share that beta = 0.4 keeps at layers 3 and 8."""
    shares = [
        f"{row_where(table, layer=layer, what='0.4')['value']:.0%} at layer {layer}"
        f" (median {row_where(table, layer=layer, what='median')['value']:.2f})"
        for layer in (3, 8)
    ]
    return f"beta = 0.4 keeps {' and '.join(shares)}."


def averaging_limits(table: pd.DataFrame) -> str:
    """03_limits: what is left of errors, and the words right at the article's beta."""
    lines = table.set_index(["part", "x", "line"])["value"].sort_index()
    count = lines["neighbours"].index.get_level_values("x").max()
    left, right = lines["neighbours", count], lines["beta", 0.4]
    return (
        f"Averaging {count:.0f} like tokens leaves {left['own errors']:.0%} of errors of their own"
        f" and {left['all shared']:.0%} of an error that all share. At"
        f" beta = 0.4, {right['disc']:.0%} of the disc and {right['bar']:.0%} of the bar are right."
    )


def places(table: pd.DataFrame) -> str:
    """03_where and 04_where: where most is gained and most is lost, by style."""
    found = []
    for style, rows in table.groupby("styles", sort=False):
        gains = rows.set_index("place")["gain"]
        found.append(
            f"{STYLE_NAMES[style]}: most at {gains.idxmax()}, {in_points(gains.max())} points,"
            f" least at {gains.idxmin()}, {in_points(gains.min())}"
        )
    return f"{'; '.join(found)}.".capitalize()


def smoothing(table: pd.DataFrame) -> str:
    """03_smoothing: the gain of one step and of all steps."""
    one, last = row_where(table, steps=1), table.iloc[-1]
    return (
        f"One step changes mIoU by {in_points(one['gain'])} points"
        f" [{in_points(one['gain_low'])}, {in_points(one['gain_high'])}], {last['steps']:.0f} steps"
        f" by {in_points(last['gain'])} [{in_points(last['gain_low'])},"
        f" {in_points(last['gain_high'])}]; the mean cosine of patches with different labels goes"
        f" from {table['different labels'].iloc[0]:.2f} to {last['different labels']:.2f}."
    )


def likeness(table: pd.DataFrame) -> str:
    """04_likeness: object patches right where the objects differ in content and where not."""
    right = table.set_index(["kind", "cosine"])["value"]
    ends = table["cosine"].min(), table["cosine"].max()
    found = [
        f"{kind} {right[kind, ends[0]]:.0%} and {right[kind, ends[1]]:.0%}"
        for kind in ("content", "mix", "qk", "itself")
    ]
    return f"Right at cosine {ends[0]:g} and at {ends[1]:g}: {', '.join(found)}."


def purity(table: pd.DataFrame) -> str:
    """04_purity: the share on the same label, content against query-key."""
    part = table[table["measure"] == "share on the same label"]
    mean = part.groupby("kind")["value"].mean()
    return (
        f"Content attention keeps {mean['content']:.0%} of its weight on the same label,"
        f" qk {mean['qk']:.0%}."
    )


def residual(table: pd.DataFrame) -> str:
    """04_residual: the changes at both ends of the sweep."""
    gains = table.set_index(["measure", "res_cls"])["gain"]
    found = [
        f"{measure} changes by {in_points(gains[measure, 0.0])} points at 0 and by"
        f" {in_points(gains[measure, 1.0])} at 1"
        for measure in table["measure"].unique()
    ]
    return f"Against the article's 0.3, {'; '.join(found)}."


def modules(table: pd.DataFrame) -> str:
    """05_modules: the module that gains most, and all modules, in both groups of styles."""
    found = []
    for style, name in STYLE_NAMES.items():
        part = table[table["styles"] == style]
        best = best_row(part[(part["measure"] == "mIoU") & (part["ablation"] == "added")])
        totals = part[part["ablation"] == "total"].set_index("measure")["value"]
        found.append(
            f"{name.capitalize()}: added in order, {best['module'].replace('_', ' ')} gains most"
            f" mIoU, {in_points(best['value'])} points; all modules"
            f" {in_points(totals['mIoU'])} of mIoU, {in_points(totals['objects right'])} of object"
            " pixels,"
            f" {in_points(totals['background right'])} of background pixels."
        )
    return " ".join(found)


def interactions(table: pd.DataFrame) -> str:
    """05_interaction: the pairs that help each other most and least, in both groups of styles."""
    found = []
    for style, name in STYLE_NAMES.items():
        part = table[(table["measure"] == "mIoU") & (table["styles"] == style)]
        ordered = part.sort_values("value")
        told = [
            f"{in_points(row['value'])} points for {row['first']} with {row['second']}"
            for row in (ordered.iloc[0], ordered.iloc[-1])
        ]
        found.append(f"{name.capitalize()}: from {' to '.join(told)}.".replace("_", " "))
    return " ".join(found)


def errors(table: pd.DataFrame) -> str:
    """05_errors: the share of wrong object pixels with no module and with all, by what they are."""
    found = []
    for style, name in STYLE_NAMES.items():
        part = table[(table["styles"] == style) & (table["pixels"] == "object pixels")]
        mixed = part[part["taken for"] == "another object of the scene"].set_index("method")
        absent = part[part["taken for"] == "an absent word"].set_index("method")
        before, after = "values (no module)", "SC-CLIP"
        found.append(
            f"{name.capitalize()}: another object of the scene"
            f" {mixed['value'][before]:.1%} with the values, {mixed['value'][after]:.1%} with"
            f" SC-CLIP; an absent word {absent['value'][before]:.1%} and"
            f" {absent['value'][after]:.1%} of object pixels."
        )
    return " ".join(found)


def fusion_limits(table: pd.DataFrame) -> str:
    """05_limits: what fusion saves and costs where one branch is wrong altogether."""
    found = []
    for part, name in (("last", "layer 10"), ("sum", "the sum")):
        rows = table[(table["part"] == part) & (table["x"] == 1)].set_index("branch")["value"]
        main, _, both = rows
        found.append(f"{name} wholly exchanged: main branch {main:.0%}, both branches {both:.0%}")
    return f"Exchanged patches right, {'; '.join(found)}."


def sweeps(table: pd.DataFrame) -> str:
    """05_sweeps: the setting that gains most."""
    best = best_row(table[table["measure"] == "mIoU"], "gain")
    return (
        f"Furthest above the article's values in mIoU: {best['parameter']} = {best['setting']:g},"
        f" {in_points(best['gain'])} points on the scenes on which it was picked."
    )


def chosen_settings(table: pd.DataFrame) -> str:
    """05_winner: what the settings chosen on validation scenes gain on test scenes."""
    differences = table[table["what"] == "difference, paired"]
    gain = row_where(differences, measure="mIoU")
    objects = row_where(differences, measure="objects right")
    return (
        "On test scenes the settings picked on validation scenes change mIoU by"
        f" {change_in_points(gain)} points and object pixels by {in_points(objects['value'])}."
    )


CAPTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
    "02_histogram": histogram,
    "02_detectors": detectors,
    "02_limits": outlier_limits,
    "02_flags": flags,
    "03_kept": kept,
    "03_limits": averaging_limits,
    "03_where": places,
    "03_smoothing": smoothing,
    "04_likeness": likeness,
    "04_where": places,
    "04_purity": purity,
    "04_residual": residual,
    "05_modules": modules,
    "05_interaction": interactions,
    "05_errors": errors,
    "05_limits": fusion_limits,
    "05_sweeps": sweeps,
    "05_winner": chosen_settings,
    **captions_results.CAPTIONS,
    **captions_beyond.CAPTIONS,
    **captions_models.CAPTIONS,
}
