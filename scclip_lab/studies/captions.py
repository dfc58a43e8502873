"""What each figure shows, in a sentence made of its own numbers, so that no finding is typed.

Figures of a single scene (grids, maps, galleries) have no caption: the chapter describes them.
"""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies import METHOD_NAMES
from scclip_lab.studies.tables import best_row, fit_exponents, in_points, row_where

# How captions call the groups of styles.
STYLES_TOLD = (("training", "Training styles"), ("held-out", "Style never seen"))


def histogram(table: pd.DataFrame) -> str:
    """02_histogram: how many patches are flagged, and above which score."""
    scores = table[table["panel"] == "LOF score"]["value"]
    limit = scores.quantile(0.95)
    count = (scores > limit).sum()
    return f"{count} of {len(scores)} patches score above the 95 % quantile, {limit:.2f}."


def detectors(table: pd.DataFrame) -> str:
    """02_detectors: the best detector, and the local outlier factor."""
    mean = table[table["measure"] == "ROC AUC"].groupby("detector")["value"].mean()
    own = mean["local outlier factor"]
    return (
        f"Best over the four sources: {mean.idxmax()}, mean ROC AUC {mean.max():.2f};"
        f" the local outlier factor reaches {own:.2f}."
    )


def kept(table: pd.DataFrame) -> str:
    """03_kept: the share that beta = 0.4 keeps at layers 3 and 8."""
    shares = [
        f"{row_where(table, layer=layer, what='0.4')['value']:.0%} at layer {layer}"
        f" (median {row_where(table, layer=layer, what='median')['value']:.2f})"
        for layer in (3, 8)
    ]
    return f"beta = 0.4 keeps {' and '.join(shares)}."


def smoothing(table: pd.DataFrame) -> str:
    """03_smoothing: the gain of one step and of all steps."""
    first, last = table.iloc[1], table.iloc[-1]
    return (
        f"One step changes mIoU by {in_points(first['gain'])} points, {last['steps']:.0f} steps by"
        f" {in_points(last['gain'])}; the mean similarity grows from"
        f" {table['mean similarity'].iloc[0]:.2f} to {last['mean similarity']:.2f}."
    )


def purity(table: pd.DataFrame) -> str:
    """04_purity: the share on the same label, content against query-key."""
    part = table[table["measure"] == "share on the same label"]
    mean = part.groupby("kind")["value"].mean()
    return (
        f"Content attention keeps {mean['content']:.0%} of its weight on the same label,"
        f" qk {mean['qk']:.0%}."
    )


def residual(table: pd.DataFrame) -> str:
    """04_residual: the change of mIoU at both ends of the sweep."""
    part = table[table["measure"] == "mIoU"].set_index("res_cls")["gain"]
    return (
        f"Against the article's 0.3, mIoU changes by {in_points(part[0.0])} points at 0"
        f" and by {in_points(part[1.0])} at 1."
    )


def modules(table: pd.DataFrame) -> str:
    """05_modules: the module that gains most, and all modules, in both groups of styles."""
    found = []
    for style, name in STYLES_TOLD:
        part = table[table["styles"] == style]
        best = best_row(part[(part["measure"] == "mIoU") & (part["ablation"] == "added")])
        totals = part[part["ablation"] == "total"].set_index("measure")["value"]
        found.append(
            f"{name}: added in order, {best['module'].replace('_', ' ')} gains most mIoU,"
            f" {in_points(best['value'])} points; all modules {in_points(totals['mIoU'])} of mIoU,"
            f" {in_points(totals['objects right'])} of object pixels,"
            f" {in_points(totals['background right'])} of background pixels."
        )
    return " ".join(found)


def interactions(table: pd.DataFrame) -> str:
    """05_interaction: the pairs that help each other most and least, in both groups of styles."""
    found = []
    for style, name in STYLES_TOLD:
        part = table[(table["measure"] == "mIoU") & (table["styles"] == style)]
        ordered = part.sort_values("value")
        told = [
            f"{in_points(row['value'])} points for {row['first']} with {row['second']}"
            for row in (ordered.iloc[0], ordered.iloc[-1])
        ]
        found.append(f"{name}: from {' to '.join(told)}.".replace("_", " "))
    return " ".join(found)


def errors(table: pd.DataFrame) -> str:
    """05_errors: the share of wrong object pixels with no module and with all, by what they are."""
    found = []
    for style, name in STYLES_TOLD:
        part = table[(table["styles"] == style) & (table["pixels"] == "object pixels")]
        mixed = part[part["taken for"] == "another object of the scene"].set_index("method")
        absent = part[part["taken for"] == "an absent word"].set_index("method")
        before, after = "values (no module)", "SC-CLIP"
        found.append(
            f"{name}: another object of the scene {mixed['value'][before]:.1%} with the values,"
            f" {mixed['value'][after]:.1%} with SC-CLIP; an absent word"
            f" {absent['value'][before]:.1%} and {absent['value'][after]:.1%} of object pixels."
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
        f"On test scenes the settings picked on validation scenes gain {in_points(gain['value'])}"
        f" [{in_points(gain['low'])}, {in_points(gain['high'])}] points of mIoU and"
        f" {in_points(objects['value'])} of object pixels."
    )


def prompts(table: pd.DataFrame) -> str:
    """06_prompts: how far the prompts lie apart."""
    apart = table["value"].max() - table["value"].min()
    return f"The wording moves mIoU by {100 * apart:.1f} points at most."


def absent_words(table: pd.DataFrame) -> str:
    """06_absent: what the largest number of absent words changes, objects and background apart."""
    most = table["words that are not there"].max()
    changes = []
    for measure in ("objects", "background"):
        part = table[table["measure"] == f"{measure} right"]
        change = part["value"].iloc[-1] - part["value"].iloc[0]
        changes.append(f"{in_points(change)} points of {measure} pixels")
    return f"{most} words that are not there change {' and '.join(changes)}."


def windows(table: pd.DataFrame) -> str:
    """06_windows: the best inference on large pictures, and the whole picture at once."""
    objects = table[table["measure"] == "objects right"]
    best, whole = best_row(objects), objects.iloc[0]
    return (
        f"{best['inference'].capitalize()}: {best['value']:.0%} of object pixels right;"
        f" {whole['inference']}: {whole['value']:.0%}."
    )


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
    """07_profile: the share of the blocks that plain CLIP runs too."""
    blocks = table[(table["batch"] == 8) & (table["stage"] == 2)]
    shares = blocks.groupby("model", sort=False)["share"].sum()
    found = [f"{share:.0%} of the time of {model}" for model, share in shares.items()]
    return f"At B = 8 the blocks that plain CLIP runs too take {' and '.join(found)}."


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
    "03_kept": kept,
    "03_smoothing": smoothing,
    "04_purity": purity,
    "04_residual": residual,
    "05_modules": modules,
    "05_interaction": interactions,
    "05_errors": errors,
    "05_limits": fusion_limits,
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
    "14_words": words,
}
