"""Reading numbers out of the chapters' tables: one row, a difference in points, an exponent."""

import numpy as np
import pandas as pd

# What tables, figures and captions call the groups of drawing styles, `datasets.scenes.STYLES`.
STYLE_NAMES: dict[object, str] = {"training": "training styles", "held-out": "style never seen"}


def row_where(table: pd.DataFrame, **where: object) -> pd.Series:
    """The one row in which every named column has the given value.

    Raises ValueError unless exactly one row does.
    """
    for column, value in where.items():
        table = table[table[column] == value]
    if len(table) != 1:
        raise ValueError(f"exactly one row must match {where}, got {len(table)}")
    return table.iloc[0]


def best_row(table: pd.DataFrame, column: str = "value") -> pd.Series:
    """The row with the largest number in a column, the first of them where there are several."""
    return table.iloc[int(table[column].to_numpy().argmax())]


def in_points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def change_in_points(row: pd.Series, value: str = "") -> str:
    """A difference of a row and its interval, in points: "-1.2 [-3.0, +0.4]".

    They stand in the columns value, low and high; with a name such as "gain", in those of gain,
    gain_low and gain_high.
    """
    names = (value, f"{value}_low", f"{value}_high") if value else ("value", "low", "high")
    change, low, high = (in_points(row[name]) for name in names)
    return f"{change} [{low}, {high}]"


def in_percent(row: pd.Series) -> str:
    """The value of a row and its interval in per cent: "27.0 [24.9, 28.2]"."""
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def side_by_side(
    table: pd.DataFrame, index: str | list[str], columns: str | list[str]
) -> pd.DataFrame:
    """Values with their intervals in per cent, "27.0 [24.9, 28.2]", to be read beside each other.

    `index` and `columns` name the table's columns that make the rows and columns of the new one, in
    the table's order. Groups of styles are called as in the text.
    """
    texts = [in_percent(row) for _, row in table.iterrows()]
    named = table.assign(text=texts, styles=table["styles"].replace(STYLE_NAMES))
    return named.pivot_table("text", index, columns, aggfunc="first", sort=False)


def fit_exponents(
    table: pd.DataFrame, value: str = "milliseconds", least: int = 196
) -> pd.DataFrame:
    """The exponent p of value ~ patches^p for every model and every part of the computation.

    It is fitted by least squares on logarithms, from `least` patches on.

    Returns the columns model, what, and exponent.
    """
    rows = []
    large = table[table["patches"] >= least]
    for (model, what), part in large.groupby(["model", "what"], sort=False):
        slope = np.polyfit(np.log(part["patches"]), np.log(part[value]), 1)[0]
        rows.append((model, what, float(slope)))
    return pd.DataFrame(rows, columns=["model", "what", "exponent"])
