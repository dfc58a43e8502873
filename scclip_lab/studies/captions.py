"""What each figure shows, in a sentence made of its own numbers, so that no finding is typed.

Figures of a single scene (grids, maps, galleries) have no caption: the chapter describes them.
"""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies import METHOD_NAMES
from scclip_lab.studies.tables import best_row, fit_exponents, in_points, row_where


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


def found_planted(table: pd.DataFrame) -> str:
    """11_detectors: exact LOF against the best other detector, by the mean over all cases."""
    part = table[(table["measure"] == "ROC AUC") & (table["case"] == "mean of all")]
    exact, other = row_where(part, detector="lof"), best_row(part[part["detector"] != "lof"])
    return (
        f"Mean ROC AUC of all cases: exact LOF {exact['value']:.2f}; of the others the detector"
        f" {other['detector']} has most, {other['value']:.2f} (difference {other['gain']:+.3f}"
        f" [{other['gain_low']:+.3f}, {other['gain_high']:+.3f}])."
    )


def repair_effects(table: pd.DataFrame) -> str:
    """11_effects: what no repair at all changes, at its worst, and the range of all detectors."""
    part = table[(table["measure"] == "mIoU") & (table["repaired"] != "lof")]
    nothing = part[part["repaired"] == "no repair"]
    least = best_row(nothing.assign(loss=-nothing["gain"]), "loss")
    return (
        f"Without any repair mIoU changes by {in_points(least['gain'])} points at the worst"
        f" ({least['origin']}); all that is compared here lies between"
        f" {in_points(part['gain'].min())} and {in_points(part['gain'].max())}."
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
    told = [f"{row['rule']} {row['value']:.1f}" for _, row in part.iterrows()]
    return f"Patches flagged where nothing is planted: {'; '.join(told)}."


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
    "11_detectors": found_planted,
    "11_effects": repair_effects,
    "11_times": detector_times,
    "11_flags": flags,
    "14_words": words,
}
