"""What each figure shows, in a sentence made of its own numbers, so that no finding is typed.

Figures of a single scene (grids, maps, galleries) have no caption: the chapter describes them.
"""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies import METHOD_NAMES, captions_tasks
from scclip_lab.studies.tables import best_row, fit_exponents, in_points, row_where


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
            f"{style} style: most at {gains.idxmax()}, {in_points(gains.max())} points, least at"
            f" {gains.idxmin()}, {in_points(gains.min())}"
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
    """05_modules: the module that gains most, and all modules together."""
    added = table[(table["measure"] == "mIoU") & (table["ablation"] == "added")]
    best = best_row(added)
    totals = table[table["ablation"] == "total"].set_index("measure")["value"]
    return (
        f"Added in order, {best['module'].replace('_', ' ')} gains most mIoU,"
        f" {in_points(best['value'])} points. All modules: {in_points(totals['mIoU'])} points of"
        f" mIoU; {in_points(totals['objects right'])} of object pixels,"
        f" {in_points(totals['background right'])} of background pixels."
    )


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
        f"On test scenes the settings picked on validation scenes gain {in_points(gain['value'])}"
        f" [{in_points(gain['low'])}, {in_points(gain['high'])}] points of mIoU and"
        f" {in_points(objects['value'])} of object pixels."
    )


def prompts(table: pd.DataFrame) -> str:
    """06_prompts: how far mIoU moves with the wording, in each style."""
    part = table[(table["measure"] == "mIoU") & (table["gain"] != 0)]
    found = []
    for style, rows in part.groupby("styles", sort=False):
        most = rows.iloc[int(rows["gain"].abs().to_numpy().argmax())]
        found.append(
            f"{style} style {in_points(most['gain'])} points"
            f" [{in_points(most['gain_low'])}, {in_points(most['gain_high'])}] ({most['prompt']})"
        )
    return f"Largest change of mIoU against the article's sentence, paired: {'; '.join(found)}."


def absent_words(table: pd.DataFrame) -> str:
    """06_absent: what the largest number of absent words changes, objects and background apart."""
    most = table["words that are not there"].max()
    found = []
    for style, rows in table.groupby("styles", sort=False):
        changes = []
        for measure in ("objects", "background"):
            part = rows[rows["measure"] == f"{measure} right"]
            change = part["value"].iloc[-1] - part["value"].iloc[0]
            changes.append(f"{in_points(change)} points of {measure.removesuffix('s')} pixels")
        found.append(f"{style} style {' and '.join(changes)}")
    return f"What {most} words that are not there change: {'; '.join(found)}."


def windows(table: pd.DataFrame) -> str:
    """06_windows: the best inference on large pictures, and the whole picture at once."""
    found = []
    for seams, rows in table[table["measure"] == "mIoU"].groupby("seams", sort=False):
        best, whole = best_row(rows), rows.iloc[0]
        found.append(
            f"seams {seams}: {whole['inference']} {100 * whole['value']:.1f} %,"
            f" best {100 * best['value']:.1f} % ({best['inference']})"
        )
    return f"mIoU on {table['pictures'].iloc[0]} pictures of 448 x 672; {'; '.join(found)}."


def ratio(table: pd.DataFrame) -> str:
    """07_ratio: the range of the ratios of each model."""
    part = table[table["what"] != "vanilla"].groupby("model", sort=False)["ratio"]
    ranges = [f"{model} {ratios.min():.2f} to {ratios.max():.2f}" for model, ratios in part]
    return f"Time as a ratio to vanilla: {', '.join(ranges)}."


def growth(table: pd.DataFrame) -> str:
    """07_growth: the exponents of SC-CLIP and of vanilla CLIP."""
    fitted = fit_exponents(table).set_index(["model", "what"])["exponent"]["ViT-B-16"]
    return (
        f"ViT-B-16 from N = 196 on: SC-CLIP's time grows as N^{fitted['scclip']:.2f},"
        f" vanilla's as N^{fitted['vanilla']:.2f}."
    )


def profile(table: pd.DataFrame) -> str:
    """07_profile: the share of the first eleven blocks, which plain CLIP runs too."""
    blocks = table[(table["batch"] == 8) & (table["stage"] == 2)]
    shares = blocks.groupby("model", sort=False)["share"].sum()
    found = [f"{share:.0%} of the time of {model}" for model, share in shares.items()]
    return (
        f"At B = 8 the first eleven blocks, which plain CLIP runs too, take {' and '.join(found)}."
    )


def ideas(table: pd.DataFrame) -> str:
    """07_ideas: the two ideas that save most."""
    part = table[(table["batch"] == 8) & (table["idea"] != "windows in batches")]
    first, second = part.nlargest(2, "saved (% of vanilla)").to_dict("records")
    return (
        f"At B = 8, {first['idea']} saves {first['saved (% of vanilla)']:.1f} % of vanilla's time;"
        f" the next, {second['idea']}, {second['saved (% of vanilla)']:.1f} %."
    )


def ledger(table: pd.DataFrame) -> str:
    """08_ledger: how many claims got which verdict."""
    # A verdict may have a remark in brackets.
    verdicts = table["verdict"].str.partition(" (")[0]
    counts = verdicts.value_counts(sort=False)
    found = [f"{verdict}: {count}" for verdict, count in counts.items()]
    return f"Verdicts on {len(table)} claims. {'; '.join(found)}."


def finetuned(table: pd.DataFrame) -> str:
    """09_finetuned: the tower with the most labels, and SC-CLIP without any."""
    part = table[(table["measure"] == "mIoU") & (table["styles"] == "training")]
    most = {"labelled scenes": 1000}
    tower = row_where(part, trained="whole image tower", **most)["value"]
    free = row_where(part, trained="scclip")["value"]
    return (
        f"Training styles: {100 * tower:.1f} % mIoU with 1,000 labelled scenes (whole image tower),"
        f" {100 * free:.1f} % without a label (SC-CLIP)."
    )


def baselines(table: pd.DataFrame) -> str:
    """09_baselines: the best method by every measure."""
    found = []
    for measure in ("mIoU", "objects right", "background right"):
        part = table[(table["measure"] == measure) & (table["styles"] == "training")]
        best = best_row(part)
        found.append(
            f"highest {measure}: {METHOD_NAMES[best['method']]}, {100 * best['value']:.1f} %"
        )
    return f"Training styles, {'; '.join(found)}."


def words(table: pd.DataFrame) -> str:
    """14_words: what other names change, and both names together."""
    other = row_where(table, measure="mIoU", names="16 objects under another name")
    both = row_where(table, measure="mIoU", names="these 16 under both names")
    return (
        f"Sixteen of 56 words exchanged for other names change mIoU by {in_points(other['change'])}"
        f" [{in_points(other['change_low'])}, {in_points(other['change_high'])}] points; offered"
        f" together with the trained names, by {in_points(both['change'])}."
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
    "05_sweeps": sweeps,
    "05_winner": chosen_settings,
    "06_prompts": prompts,
    "06_absent": absent_words,
    "06_windows": windows,
    "07_ratio": ratio,
    "07_growth": growth,
    "07_profile": profile,
    "07_ideas": ideas,
    "08_ledger": ledger,
    "09_finetuned": finetuned,
    "09_baselines": baselines,
    **captions_tasks.CAPTIONS,
    "14_words": words,
}
