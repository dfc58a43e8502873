"""Chapter 8, the ledger: every claim of the article beside what the stored numbers say of it.

No result is typed here: each row reads a stored table, and its rule derives the verdict.
"""

from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas.io.formats.style import Styler

from scclip_lab.studies import figure, load_table, verdicts
from scclip_lab.studies.claims_beyond import BEYOND
from scclip_lab.studies.claims_mechanism import MECHANISM
from scclip_lab.studies.claims_results import RESULTS

# The parts of the article, by the first character of a section.
PARTS = {
    "o": "overview",
    "2": "2: the eight stages",
    "3": "3: anomalies, attention",
    "4": "4: parameters",
    "5": "5: quality and cost",
    "6": "6: potential, directions",
}
# In the order of the article's parts; the number of a claim is its place, from 1 on.
CLAIMS = tuple(
    claim for part in PARTS for claim in (*MECHANISM, *RESULTS, *BEYOND) if claim.section[0] == part
)


def list_claims() -> Markdown:
    """All claims of the article, numbered as in the ledger, part by part."""
    lines: list[str] = []
    for part, title in PARTS.items():
        lines += ["", f"**{title}**", ""]
        lines += [
            f"{number}. {claim.text}"
            for number, claim in enumerate(CLAIMS, 1)
            if claim.section[0] == part
        ]
    return Markdown("\n".join(lines[1:]))


def ledger(sources: str = "*", *sections: str) -> pd.DataFrame:
    """A row for each claim: verdict, no., claim, result, published, tested by, section, numbers.

    `sources` chooses the claims by the stored table that they read, such as "03_*"; those of the
    article's `sections`, such as "3.2", are added. The column `published` has what is told
    elsewhere of the same number, and who tells it.
    """
    rows = []
    for number, claim in enumerate(CLAIMS, 1):
        if fnmatchcase(claim.source, sources) or claim.section in sections:
            result, verdict = claim.judge(load_table(claim.source))
            source = f"figures/{claim.source}.csv"
            told = (claim.published(), claim.test, claim.section, source)
            rows.append((verdict, number, claim.text, result, *told))
    columns = ["verdict", "no.", "claim", "result", "published", "tested by", "section", "numbers"]
    return pd.DataFrame(rows, columns=columns)


def show_claims(sources: str = "*", *sections: str) -> Styler:
    """The ledger as a chapter shows it; `published` is left out where it is empty."""
    table = ledger(sources, *sections).drop(columns="numbers")
    if not table["published"].any():
        table = table.drop(columns="published")
    look: dict[str, Any] = {"text-align": "left"}
    shown = table.style.hide(axis="index").map(verdict_style, subset=["verdict"])
    shown = shown.set_properties(**look)
    if "published" in table:
        narrow: dict[str, Any] = {"max-width": "8em", "font-size": "90%"}
        shown = shown.set_properties(subset=["published"], **narrow)
    return shown.set_uuid("claims")


COLOURS = {
    verdicts.HOLDS: "#009E73",
    verdicts.FAILS: "#D55E00",
    verdicts.UNDECIDED: "#F0E442",
    verdicts.UNTESTED: "#BBBBBB",
    verdicts.MEANINGLESS: "#DDDDDD",
}


def verdict_style(verdict: object) -> str:
    """The style of a verdict's cell: its colour at the left edge."""
    (colour,) = [colour for name, colour in COLOURS.items() if str(verdict).startswith(name)]
    return f"border-left: 8px solid {colour}; font-weight: bold"


@figure("08_ledger")
def draw_ledger(table: pd.DataFrame) -> Figure:
    """How many claims of each part of the article got which verdict."""
    parts = table["section"].astype(str).str[0]
    drawn, axis = plt.subplots(figsize=(11, 3.6))
    left = np.zeros(len(PARTS))
    for verdict, colour in COLOURS.items():
        chosen = parts[table["verdict"].str.startswith(verdict)]
        counts = np.array([(chosen == part).sum() for part in PARTS])
        axis.barh(list(PARTS.values()), counts, left=left, color=colour, label=verdict)
        left = left + counts
    axis.invert_yaxis()
    axis.set(xlabel="claims", ylabel="part of the article")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn
