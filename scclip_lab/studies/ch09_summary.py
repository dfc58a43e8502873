"""Chapter 9, the end: which differences are more than noise, and claims beside results."""

import pandas as pd

from scclip_lab.datasets.scenes import STYLES
from scclip_lab.studies import METHOD_NAMES
from scclip_lab.studies.tables import STYLE_NAMES, best_row, in_percent, row_where

# SC-CLIP itself, which is not among the other methods.
OWN = ("scclip", "scclip-published")


def against_scclip(table: pd.DataFrame) -> pd.DataFrame:
    """Whether each method is above or below SC-CLIP in mIoU, or within noise, in each style.

    Takes the table of `compare_methods`. A method is above or below where the 95 % interval of the
    paired difference does not contain zero.
    """
    part = table[(table["measure"] == "mIoU minus scclip") & (table["method"] != "scclip")]
    verdict = pd.Series("not told apart", index=part.index)
    verdict[part["low"] > 0], verdict[part["high"] < 0] = "above SC-CLIP", "below SC-CLIP"
    text = [
        f"{word}: {in_percent(row)}"
        for word, (_, row) in zip(verdict, part.iterrows(), strict=True)
    ]
    shown = part.assign(points=text, method=part["method"].map(METHOD_NAMES))
    return shown.pivot_table(
        index="method", columns="styles", values="points", aggfunc="first", sort=False
    )


def summarise(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """Claims of papers and of the article beside what this chapter's tables say.

    Takes the tables of `compare_methods` and of `time_methods`.
    """
    claims = {
        "SC-CLIP is 9.5 % above earlier training-free methods (its abstract, eight benchmarks)": (
            _best_other
        ),
        "residual and MLP of the last block do harm (ClearCLIP)": _without_residual,
        "near patches matter more (NACLIP)": _with_window,
    }
    rows = [
        (claim, *("; ".join(say(table[table["styles"] == style])) for style in STYLES))
        for claim, say in claims.items()
    ]
    ratio = row_where(times, what="scclip", model="ViT-B-16")
    low, middle, high = ratio[["ratio_low", "ratio", "ratio_high"]]
    text = f"{middle:.2f} times ({low:.2f} to {high:.2f}), ViT-B/16 shapes, B = 1"
    rows.append(("SC-CLIP takes 1.2 times as long (article)", text, "the same"))
    return pd.DataFrame(rows, columns=["claim", *(f"{STYLE_NAMES[style]}" for style in STYLES)])


def _score(table: pd.DataFrame, method: str) -> str:
    """A method's mIoU as text."""
    row = row_where(table, measure="mIoU", method=method)
    return f"{METHOD_NAMES[method]} {in_percent(row)}"


def _best_other(table: pd.DataFrame) -> list[str]:
    """SC-CLIP, and the best of the other methods."""
    others = table[(table["measure"] == "mIoU") & ~table["method"].isin(OWN)]
    return [_score(table, "scclip"), f"best other: {_score(table, best_row(others)['method'])}"]


def _without_residual(table: pd.DataFrame) -> list[str]:
    """The two methods that differ in residual and MLP alone."""
    return [_score(table, "maskclip"), f"without both: {_score(table, 'values')}"]


def _with_window(table: pd.DataFrame) -> list[str]:
    """NACLIP, and object pixels right beside ClearCLIP's."""
    objects = [row_where(table, measure="objects right", method=m) for m in ("clearclip", "naclip")]
    shares = " to ".join(f"{100 * row['value']:.1f}" for row in objects)
    scores = [_score(table, "clearclip"), _score(table, "naclip")]
    return [*scores, f"objects right from {shares} %"]
