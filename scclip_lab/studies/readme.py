"""The tables of the README files and the model card, made from the stored CSVs.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. `python -m scclip_lab tables`
writes all of them again; a test compares.
"""

import re
from collections.abc import Callable
from pathlib import Path

from scclip_core.files import atomic_write
from scclip_lab.studies import METHOD_NAMES, ROOT, load_table
from scclip_lab.studies.tables import in_percent, row_where

FILES = ("README.md", "README.zh.md", "data/mini/README.md")
MARKED = re.compile(r"(<!-- table ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MEASURES = ("mIoU", "objects right", "background right")
TIMED_MODELS = {"mini": "mini (bundled)", "ViT-B-16": "ViT-B/16 (random weights)"}
CHINESE = {
    "method": "方法",
    "mIoU": "mIoU",
    "objects right": "物体正确率",
    "background right": "背景正确率",
    "style never seen": "未见过的画风",
    "objects in the scene": "场景中的物体数",
    "fine-tuned on": "微调数据",
    "linear head": "线性头",
    "whole image tower": "整个图像塔",
    "labelled scenes": "个标注场景",
    "time against open_clip's own image forward pass": "相对 open_clip 原图像前向的时间",
    "batch": "批大小",
    "ratio (quartiles)": "比值（四分位）",
}
Words = Callable[[str], str]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mini(words: Words) -> str:
    """Every method on the bundled model: objects and background apart, both groups of styles."""
    table = load_table("evaluate_mini")
    table = table[table["objects"].astype(str) == "all"]
    unseen = words("style never seen")
    header = [words("method"), *(f"{words(m)} (%)" for m in MEASURES)]
    header += [f"{words(m)}, {unseen}" for m in MEASURES]
    rows = []
    for name, title in METHOD_NAMES.items():
        cells = [
            in_percent(row_where(table, method=name, measure=measure, styles=style))
            for style in ("training", "held-out")
            for measure in MEASURES
        ]
        rows.append([title, *cells])
    return markdown(header, rows)


def by_objects(words: Words) -> str:
    """Objects right by the number of objects in the scene, training styles."""
    table = load_table("evaluate_mini")
    table = table[(table["styles"] == "training") & (table["measure"] == "objects right")]
    table = table.assign(objects=table["objects"].astype(str))
    counts = ("1", "2", "3", "4")
    rows = []
    for name in ("values", "scclip", "scclip-published"):
        cells = [in_percent(row_where(table, method=name, objects=n)) for n in counts]
        rows.append([METHOD_NAMES[name], *cells])
    title = f"{words('objects right')} (%), {words('objects in the scene')}:"
    return markdown([title, *counts], rows)


def fine_tuned(words: Words) -> str:
    """What labels buy: a linear head and the whole tower by the number of labelled scenes."""
    table = load_table("09_finetuned")
    table = table[table["measure"] == "mIoU"]
    parts, unseen = ("linear head", "whole image tower"), words("style never seen")
    header = [words("fine-tuned on"), *(f"{words(p)}, mIoU (%)" for p in parts)]
    header += [f"{words(p)}, {unseen}" for p in parts]
    rows = []
    for amount in (10, 100, 1000):
        part = table[table["labelled scenes"] == amount]
        cells = [
            in_percent(row_where(part, styles=style, trained=p))
            for style in ("training", "held-out")
            for p in parts
        ]
        rows.append([f"{amount:,} {words('labelled scenes')}", *cells])
    return markdown(header, rows)


def times(words: Words) -> str:
    """SC-CLIP's time against open_clip's own forward pass, by model and batch."""
    table = load_table("bench")
    header = [
        words("time against open_clip's own image forward pass"),
        words("batch"),
        words("ratio (quartiles)"),
    ]
    rows = [
        [
            f"{row['what']}, {TIMED_MODELS[row['model']]}",
            str(row["batch"]),
            f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})",
        ]
        for _, row in table[table["what"] != "vanilla"].iterrows()
    ]
    return markdown(header, rows)


TABLES: dict[str, Callable[[Words], str]] = {
    "mini": mini,
    "by-objects": by_objects,
    "fine-tuned": fine_tuned,
    "times": times,
}


def filled(name: str) -> str:
    """The text of one of `FILES` with all of its marked tables made again, in its language."""
    text = (ROOT / name).read_text(encoding="utf-8")
    words: Words = (lambda word: CHINESE.get(word, word)) if ".zh." in name else str

    def table(found: re.Match[str]) -> str:
        return found[1] + TABLES[found[2]](words) + found[4]

    return MARKED.sub(table, text)


def write_tables() -> list[Path]:
    """Write the tables into every file that has one; returns the files that changed."""
    changed = []
    for name in FILES:
        path, new = ROOT / name, filled(name)
        if new != path.read_text(encoding="utf-8"):
            with atomic_write(path) as partial:
                partial.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed
