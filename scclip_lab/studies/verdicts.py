"""What the ledger says of a claim: the verdicts, and how intervals decide between them."""

from collections.abc import Callable, Sequence

import pandas as pd

HOLDS, FAILS, UNDECIDED = "holds", "does not hold here", "undecided here"
UNTESTED = "cannot be tested without real weights"
MEANINGLESS = "has no meaning without training"
# The result, and the verdict.
Finding = tuple[str, str]
Rule = Callable[[pd.DataFrame], Finding]


def by_sign(row: pd.Series) -> str:
    """The verdict on a gain, by the sign of both ends of its interval."""
    return HOLDS if row["low"] > 0 else FAILS if row["high"] < 0 else UNDECIDED


def agreed(found: Sequence[str]) -> str:
    """The verdict of several groups of scenes: the one that they share, or undecided."""
    return found[0] if len(set(found)) == 1 else f"{UNDECIDED} (styles differ)"


def paired_gain(row: pd.Series) -> pd.Series:
    """The paired gain of a row of a sweep, as a row of its own."""
    return pd.Series({"value": row["gain"], "low": row["gain_low"], "high": row["gain_high"]})


def negated(row: pd.Series) -> pd.Series:
    """The same difference, taken the other way round."""
    return pd.Series({"value": -row["value"], "low": -row["high"], "high": -row["low"]})


def by_intervals(better: pd.Series, worse: pd.Series, text: str) -> Finding:
    """Whether one value lies above another, with intervals that do not overlap."""
    above, below = better["low"] > worse["high"], better["high"] < worse["low"]
    return text, HOLDS if above else FAILS if below else UNDECIDED
