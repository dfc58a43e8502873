"""What the figures of chapter 13 show, in sentences made of their own numbers."""

from collections.abc import Callable

import pandas as pd

from scclip_lab.studies.tables import best_row, change_in_points, row_where


def cost(table: pd.DataFrame) -> str:
    """13_cost: the range of the measured ratios, and how far the cost model is off at its worst."""
    own, base = table[table["what"] == "scclip"], row_where(table, model="ViT-B-16", what="vanilla")
    quotient = table["milliseconds"] * base["GMAC"] / table["GMAC"] / base["milliseconds"]
    worst = table.iloc[int((quotient - 1).abs().to_numpy().argmax())]
    return (
        f"SC-CLIP takes {own['ratio'].min():.2f} to {own['ratio'].max():.2f} times vanilla CLIP's"
        f" time. Time for an operation as in ViT-B-16 predicts all other times within a factor of"
        f" {max(quotient.max(), 1 / quotient.min()):.2f} (farthest: {worst['model']})."
    )


def memory_by_rows(table: pd.DataFrame) -> str:
    """13_memory: the smallest peak by rows against the whole and against vanilla, and its time."""
    parts = []
    for model, part in table.groupby("model", sort=False):
        vanilla, own = (part[part["what"] == what] for what in ("vanilla", "scclip"))
        whole, rows = best_row(own, "rows"), best_row(own.assign(less=-own["MiB"]), "less")
        parts.append(
            f"{model}: {whole['MiB']:,.0f} MiB as a whole, {rows['MiB']:,.0f} with"
            f" {rows['rows']:,} rows at once in {rows['seconds'] / whole['seconds']:.2f} times the"
            f" time; vanilla CLIP {vanilla['MiB'].iloc[0]:,.0f}"
        )
    return f"Peak memory. {'; '.join(parts)}."


def by_depth(table: pd.DataFrame) -> str:
    """13_depth: the layer with most mIoU on test scenes beside the rule's, for every model."""
    parts = []
    names = {"pre_adjust_idx": "middle", "post_adjust_idx": "shallow"}
    part = table[(table["split"] == "test") & (table["measure"] == "mIoU")]
    for (model, name), rows in part.groupby(["model", "parameter"], sort=False):
        best = best_row(rows)
        parts.append(
            f"{model}, {names[str(name)]}: rule {best['rule']}, most at {best['layer']}"
            f" ({change_in_points(best, 'gain')})"
        )
    return f"Layers by mIoU on test scenes, in points against the rule's. {'; '.join(parts)}."


CAPTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
    "13_cost": cost,
    "13_memory": memory_by_rows,
    "13_depth": by_depth,
}
