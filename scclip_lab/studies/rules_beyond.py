"""Rules of the ledger on the article's four future directions.

A rule takes a stored table and returns a finding: the result as a text, and a verdict.
"""

import pandas as pd

from scclip_lab.studies.regret import winner
from scclip_lab.studies.tables import in_percent, in_points, row_where
from scclip_lab.studies.verdicts import FAILS, HOLDS, UNDECIDED, Finding, by_sign, paired_gain


def carries_over(table: pd.DataFrame) -> Finding:
    """Chapter 10: SC-CLIP is ahead of the values in every comparison, or in none."""
    signs = table.apply(by_sign, axis=1)
    ahead, behind = int((signs == HOLDS).sum()), int((signs == FAILS).sum())
    tasks = table["task"].nunique()
    text = (
        f"{tasks} tasks, {len(table)} comparisons with the values: SC-CLIP ahead in {ahead},"
        f" behind in {behind}, not to be told apart in {len(table) - ahead - behind}"
    )
    if ahead == len(table):
        return text, HOLDS
    return text, FAILS if not ahead and behind else UNDECIDED


def cheaper_detector(table: pd.DataFrame) -> Finding:
    """Chapter 11: a detector finds as well as exact LOF, repairs not worse, and is faster."""
    found = table[table["all three"] == "yes"]
    if found.empty:
        parts = ("finds as well", "not worse", "faster")
        each = [f"{part}: {int((table[part] == 'yes').sum())}" for part in parts]
        return f"none of {len(table)} detectors is all three ({', '.join(each)})", FAILS
    times = [column for column in table.columns if column.startswith("time, N")]
    ends = {column.removeprefix("time, "): column for column in (times[0], times[-1])}
    each = []
    for _, row in found.iterrows():
        shares = ", ".join(f"{row[column]:.2f} at {size}" for size, column in ends.items())
        each.append(f"{row['detector']}, mean ROC AUC {row['ROC AUC']:.2f}, of LOF's time {shares}")
    return "; ".join(each), HOLDS


def chosen_without_labels(table: pd.DataFrame) -> Finding:
    """Chapter 12: the rule that is best on validation scenes beats the constants on test scenes."""
    part = table[(table["data"] == "all") & (table["measure"] == "mIoU")]
    best = winner(table)
    row = row_where(part, split="test", rule=best)
    gain = paired_gain(row)
    text = (
        f"{best}: {in_percent(gain)} points above the article's constants, better in"
        f" {row['cells better']} of {row['cells']} cases, at worst"
        f" {in_points(row['worst gain'])}; the oracle is {in_percent(row)} points above it"
    )
    return text, by_sign(gain)
