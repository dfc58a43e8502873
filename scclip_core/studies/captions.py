"""What each figure shows, in a sentence made of its own numbers: no finding is typed.

Pictures of one scene (grids, maps, galleries) have none: what they show is told beside them in the chapter.
"""

from collections.abc import Callable

import pandas as pd

from scclip_core.studies.peers import NAMES
from scclip_core.studies.timing import fit_exponents
from scclip_core.studies.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED, row_where


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * value:+.1f}"


def histogram(table: pd.DataFrame) -> str:
    scores = table[table["panel"] == "LOF score"]["value"]
    limit = scores.quantile(0.95)
    return f"{(scores > limit).sum()} of {len(scores)} patches score above the 95 % quantile, {limit:.2f}."


def detectors(table: pd.DataFrame) -> str:
    mean = table[table["measure"] == "ROC AUC"].groupby("detector")["value"].mean()
    own = mean["local outlier factor"]
    return (
        f"Best over the four sources: {mean.idxmax()}, mean ROC AUC {mean.max():.2f};"
        f" the local outlier factor reaches {own:.2f}."
    )


def kept(table: pd.DataFrame) -> str:
    told = [
        f"{row_where(table, layer=layer, what='0.4')['value']:.0%} at layer {layer}"
        f" (median {row_where(table, layer=layer, what='median')['value']:.2f})"
        for layer in (3, 8)
    ]
    return f"beta = 0.4 keeps {' and '.join(told)}."


def smoothing(table: pd.DataFrame) -> str:
    first, last = table.iloc[1], table.iloc[-1]
    return (
        f"One step changes mIoU by {points(first['gain'])} points, {last['steps']:.0f} steps by"
        f" {points(last['gain'])}; the mean similarity grows from"
        f" {table['mean similarity'].iloc[0]:.2f} to {last['mean similarity']:.2f}."
    )


def purity(table: pd.DataFrame) -> str:
    mean = table[table["measure"] == "share on the same label"].groupby("kind")["value"].mean()
    return (
        f"Content attention keeps {mean['content']:.0%} of its weight on the same label, qk {mean['qk']:.0%}."
    )


def residual(table: pd.DataFrame) -> str:
    part = table[table["measure"] == "mIoU"].set_index("res_cls")["gain"]
    return (
        f"Against the seed's 0.3, mIoU changes by {points(part[0.0])} points at 0"
        f" and by {points(part[1.0])} at 1."
    )


def modules(table: pd.DataFrame) -> str:
    added = table[(table["measure"] == "mIoU") & (table["way"] == "added")]
    best = added.loc[added["value"].idxmax()]
    totals = table[table["way"] == "total"].set_index("measure")["value"]
    return (
        f"Added in order, {best['module'].replace('_', ' ')} gains most mIoU, {points(best['value'])} points."
        f" All modules: {points(totals['mIoU'])} points of mIoU,"
        f" {points(totals['pixel accuracy'])} of pixel accuracy."
    )


def sweeps(table: pd.DataFrame) -> str:
    best = table.loc[table["gain"].idxmax()]
    return (
        f"Furthest above the seed's values: {best['parameter']} = {best['setting']:g},"
        f" {points(best['gain'])} points on the scenes on which it was picked."
    )


def winner(table: pd.DataFrame) -> str:
    gain = row_where(table, what="difference, paired")
    return (
        f"On test scenes the settings picked on validation scenes gain {points(gain['value'])}"
        f" [{points(gain['low'])}, {points(gain['high'])}] points."
    )


def prompts(table: pd.DataFrame) -> str:
    return (
        f"The wording moves mIoU by {100 * (table['value'].max() - table['value'].min()):.1f} points at most."
    )


def absent(table: pd.DataFrame) -> str:
    first, last = table.iloc[0], table.iloc[-1]
    count, change = last["words that are not there"], last["value"] - first["value"]
    return f"{count:.0f} words that are not there change pixel accuracy by {points(change)} points."


def windows(table: pd.DataFrame) -> str:
    best, whole = table.loc[table["value"].idxmax()], table.iloc[0]
    return (
        f"{best['way'].capitalize()}: {best['value']:.0%} of pixels right;"
        f" {whole['way']}: {whole['value']:.0%}."
    )


def ratio(table: pd.DataFrame) -> str:
    part = table[table["what"] != "vanilla"].groupby("model", sort=False)["ratio"]
    told = [f"{model} {ratios.min():.2f} to {ratios.max():.2f}" for model, ratios in part]
    return f"Time as a ratio to vanilla: {', '.join(told)}."


def growth(table: pd.DataFrame) -> str:
    fitted = fit_exponents(table).set_index(["model", "what"])["exponent"]["ViT-B-16"]
    return (
        f"ViT-B-16 from N = 196 on: SC-CLIP's time grows as N^{fitted['SC-CLIP (seed)']:.2f},"
        f" vanilla's as N^{fitted['vanilla CLIP']:.2f}."
    )


def profile(table: pd.DataFrame) -> str:
    part = table[(table["batch"] == 8) & (table["stage"] == 2)].groupby("model", sort=False)["share"].sum()
    told = [f"{share:.0%} of the time of {model}" for model, share in part.items()]
    return f"At B = 8 the blocks that plain CLIP runs too take {' and '.join(told)}."


def ideas(table: pd.DataFrame) -> str:
    part = table[(table["batch"] == 8) & (table["idea"] != "windows in batches")]
    first, second = part.nlargest(2, "saved (% of vanilla)").to_dict("records")
    return (
        f"At B = 8, {first['idea']} saves {first['saved (% of vanilla)']:.1f} % of vanilla's time;"
        f" the next, {second['idea']}, {second['saved (% of vanilla)']:.1f} %."
    )


def ledger(table: pd.DataFrame) -> str:
    told = [
        f"{verdict}: {table['verdict'].str.startswith(verdict).sum()}"
        for verdict in (HOLDS, FAILS, UNDECIDED, UNTESTED)
    ]
    return f"Verdicts on {len(table)} claims. {'; '.join(told)}."


def finetuned(table: pd.DataFrame) -> str:
    part = table[(table["measure"] == "mIoU") & (table["styles"] == "training")]
    tower = row_where(part, way="whole image tower", **{"labelled scenes": 1000})["value"]
    free = row_where(part, way="seed")["value"]
    return (
        f"Training styles: {100 * tower:.1f} % mIoU with 1,000 labelled scenes (whole image tower),"
        f" {100 * free:.1f} % without a label (SC-CLIP, seed)."
    )


def peers(table: pd.DataFrame) -> str:
    told = []
    for measure in ("mIoU", "pixel accuracy"):
        part = table[(table["measure"] == measure) & (table["styles"] == "training")]
        best = part.loc[part["value"].idxmax()]
        told.append(f"highest {measure}: {NAMES[best['method']]}, {100 * best['value']:.1f} %")
    return f"Training styles, {'; '.join(told)}."


CAPTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
    "02_histogram": histogram,
    "02_detectors": detectors,
    "03_kept": kept,
    "03_smoothing": smoothing,
    "04_purity": purity,
    "04_residual": residual,
    "05_modules": modules,
    "05_sweeps": sweeps,
    "05_winner": winner,
    "06_prompts": prompts,
    "06_absent": absent,
    "06_windows": windows,
    "07_ratio": ratio,
    "07_growth": growth,
    "07_profile": profile,
    "07_ideas": ideas,
    "08_ledger": ledger,
    "09_finetuned": finetuned,
    "09_peers": peers,
}
