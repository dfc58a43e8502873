"""What the figures of chapters 6 to 9 and 14 show, in a sentence made of their own numbers."""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies import METHOD_NAMES
from scclip_lab.studies.tables import (
    STYLE_NAMES,
    best_row,
    change_in_points,
    fit_exponents,
    in_points,
    row_where,
)


def prompts(table: pd.DataFrame) -> str:
    """06_prompts: how far mIoU moves with the wording, in each style."""
    part = table[(table["measure"] == "mIoU") & (table["gain"] != 0)]
    found = []
    for style, rows in part.groupby("styles", sort=False):
        most = rows.iloc[int(rows["gain"].abs().to_numpy().argmax())]
        found.append(
            f"{STYLE_NAMES[style]} {change_in_points(most, 'gain')} points ({most['prompt']})"
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
        found.append(f"{STYLE_NAMES[style]} {' and '.join(changes)}")
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
        "Sixteen of 56 words exchanged for other names change mIoU by"
        f" {change_in_points(other, 'change')} points; offered"
        f" together with the trained names, by {in_points(both['change'])}."
    )


CAPTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
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
