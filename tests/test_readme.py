"""The tables of the README say what the stored CSVs say."""

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
LABELS = {
    "vanilla": "vanilla CLIP, read densely",
    "maskclip": "MaskCLIP-like (every module off)",
    "seed": "SC-CLIP, seed",
    "reference": "SC-CLIP, reference",
}
MODELS = {"mini": "mini (bundled)", "ViT-B-16": "ViT-B-16 (random weights)"}


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "figures" / f"{name}.csv")


def percent(row) -> str:
    return f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def cells(table: pd.DataFrame, **where) -> list[str]:
    for column, value in where.items():
        table = table[table[column] == value]
    return [percent(row) for row in table.itertuples()]


def mini_rows() -> list[str]:
    table = read("evaluate_mini")
    return [
        f"| {label} | {' | '.join(cells(table, measure=measure, method=method))} |"
        for measure in ("mIoU", "pixel accuracy")
        for method, label in LABELS.items()
    ]


def peer_rows() -> list[str]:
    from scclip_core.studies.peers import NAMES

    table, times = read("09_peers"), read("09_times")
    times = times[times["model"] == "ViT-B-16"].set_index("what")["ratio"]
    return [
        f"| {label} | {cells(table, method=name, measure='mIoU', styles='training')[0]}"
        f" | {cells(table, method=name, measure='pixel accuracy', styles='training')[0]}"
        f" | {cells(table, method=name, measure='mIoU', styles='held-out')[0]} | {times[name]:.2f} |"
        for name, label in NAMES.items()
    ]


def finetuned_rows() -> list[str]:
    table = read("09_finetuned")
    table = table[table["measure"] == "mIoU"]
    ways, styles = ("linear head", "whole image tower"), ("training", "held-out")
    rows = []
    for amount in (10, 100, 1000):
        part = table[table["labelled scenes"] == amount]
        found = [cells(part, styles=style, way=way)[0] for style in styles for way in ways]
        rows.append(f"| {amount:,} labelled scenes | {' | '.join(found)} |")
    return rows


def time_rows() -> list[str]:
    table = read("bench")
    return [
        f"| {r.what}, {MODELS[r.model]} | {r.batch} | {r.ratio:.2f}"
        f" ({r.ratio_low:.2f} to {r.ratio_high:.2f}) |"
        for r in table[table["what"] != "vanilla"].itertuples()
    ]


TABLES = {"mini": mini_rows, "peers": peer_rows, "fine-tuned": finetuned_rows, "times": time_rows}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_its_csv_says(name):
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = TABLES[name]()
    assert len(rows) >= 3
    for row in rows:
        assert row in lines


def test_every_file_named_in_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(
        re.findall(r"\]\(((?!http)[^)#]+)\)|`((?:scclip_core|figures|notebooks|data)/[\w./]+)`", text)
    )
    assert named
    for link, file in named:
        assert (ROOT / (link or file)).exists(), link or file
