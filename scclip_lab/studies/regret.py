"""Chapter 12: what its table of regret compares, and the rule that it chooses."""

import pandas as pd

ORACLE, CONSTANTS, CHANCE = "oracle", "the article's constants", "a random candidate"
# Of all models and data sets.
ALL = "all"


def winner(table: pd.DataFrame) -> str:
    """The rule with the smallest mean regret on validation scenes, over all cells."""
    part = table.query("split == 'validation' and measure == 'mIoU'")
    part = part[(part["data"] == ALL) & ~part["rule"].isin((CONSTANTS, CHANCE))]
    return str(part.sort_values("value")["rule"].iloc[0])
