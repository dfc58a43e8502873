"""The tables of the README files and the model card, made from the stored CSVs.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. `python -m scclip_lab tables`
writes all of them again; a test compares.
"""

import re
from collections.abc import Callable
from pathlib import Path

from scclip_core.files import atomic_write
from scclip_lab.evaluation.mini import MEAN_AND_PARTS as MEASURES
from scclip_lab.studies import METHOD_NAMES, ROOT, load_table
from scclip_lab.studies.ch05_ablation import MODULES
from scclip_lab.studies.tables import in_percent, row_where

FILES = ("README.md", "README.zh.md", "data/mini/README.md", "data/mini/README.zh.md")
MARKED = re.compile(r"(<!-- table ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
TIMED_MODELS = {"mini": "mini (bundled)", "ViT-B-16": "ViT-B/16 (random weights)"}
CHINESE = {
    "vanilla CLIP": "原始 CLIP",
    "values (last block)": "值（最后一个块）",
    "test-time registers": "测试时寄存器",
    "SC-CLIP (published)": "SC-CLIP（已发表的）",
    "mini (bundled)": "mini（自带）",
    "ViT-B/16 (random weights)": "ViT-B/16（随机权重）",
    "to": "至",
    "method": "方法",
    "mIoU": "mIoU",
    "objects right": "物体正确率",
    "background right": "背景正确率",
    "style never seen": "从未见过的画风",
    "training styles": "训练用过的画风",
    "mIoU minus that of the values (points)": "mIoU 减去仅用值的 mIoU（百分点）",
    "objects in the scene": "场景中的物体数",
    "fine-tuned on": "微调数据",
    "linear head": "线性头",
    "whole image tower": "整个图像塔",
    "labelled scenes": "个带标签的场景",
    "time against open_clip's own image forward pass": "与 open_clip 自己的图像前向传播的用时之比",
    "batch": "批大小",
    "ratio (quartiles)": "比值（四分位）",
    "point": "要点",
    "published code": "已发表的代码",
    "the other way": "另一种做法",
    "here": "本项目",
    "equal labels (%)": "相同的标签 (%)",
    "mIoU (%): published, other": "mIoU (%)：已发表的做法、另一种做法",
    "as published": "与已发表的相同",
    "other": "另一种做法",
    "size, 500 x 333 for example": "尺寸，以 500 x 333 为例",
    "512 x 336, rounded to the patch": "512 x 336，取图块的整数倍",
    "interpolation": "插值",
    "bilinear, no antialiasing": "双线性，不抗锯齿",
    "bicubic with antialiasing": "双三次，抗锯齿",
    "both of these": "以上两点",
    "505 x 336, bilinear": "505 x 336，双线性",
    "512 x 336, bicubic": "512 x 336，双三次",
    "mean and deviation of colours": "颜色的均值与标准差",
    "three decimals of grey levels": "灰度值的三位小数",
    "as the model has them": "模型自带的数值",
    "precision": "精度",
    "16 bits": "16 位",
    "32 bits": "32 位",
    "positions, a whole square picture": "位置嵌入，整张正方形图片",
    "scale (size + 0.1) / trained size": "比例（边长 + 0.1）/ 训练边长",
    "scale size / trained size": "比例 边长 / 训练边长",
    "module": "模块",
    "anomaly repair": "异常修复",
    "first aggregation": "第一次聚合",
    "calibrated attention": "定制注意力",
    "second aggregation": "第二次聚合",
    "multi-level fusion": "多层次融合",
    "class-token residual": "class token 残差",
    "all modules": "全部模块",
    "measured": "测量项",
    "value": "数值",
    "layer": "层",
    "head": "头",
    "cosine, same object": "余弦，同一物体",
    "cosine, other object": "余弦，不同物体",
    "cosine, object and background": "余弦，物体与背景",
    "share above beta": "高于 beta 的比例",
    "length, class token": "长度，class token",
    "length, patch tokens": "长度，图块 token",
    "longest patch token over the median": "最长的图块 token 与中位数之比",
    "objects right, values of the layer": "物体正确率，该层的值",
    "background right, values of the layer": "背景正确率，该层的值",
    "entropy of attention": "注意力的熵",
    "LOF, median": "LOF，中位数",
    "LOF, 95 %": "LOF，95 %",
    "LOF, 99 %": "LOF，99 %",
    "LOF, largest": "LOF，最大值",
    "LOF, share above 1.5": "LOF，高于 1.5 的比例",
}
Words = Callable[[str], str]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mini(words: Words) -> str:
    """The methods that were measured on the bundled model, objects and background apart.

    There are both groups of styles.
    """
    table = load_table("evaluate_mini")
    measured = set(table["method"])
    table = table[table["objects"].astype(str) == "all"]
    unseen = words("style never seen")
    header = [words("method"), *(f"{words(m)} (%)" for m in MEASURES)]
    header += [f"{words(m)}, {unseen}" for m in MEASURES]
    rows = []
    for name in (name for name in METHOD_NAMES if name in measured):
        cells = [
            in_percent(row_where(table, method=name, measure=measure, styles=style))
            for style in ("training", "held-out")
            for measure in MEASURES
        ]
        rows.append([words(METHOD_NAMES[name]), *cells])
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
        rows.append([words(METHOD_NAMES[name]), *cells])
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
            f"{row['what']}, {words(TIMED_MODELS[row['model']])}",
            str(row["batch"]),
            f"{row['ratio']:.2f} ({row['ratio_low']:.2f} {words('to')} {row['ratio_high']:.2f})",
        ]
        for _, row in table[table["what"] != "vanilla"].iterrows()
    ]
    return markdown(header, rows)


def against_values(words: Words) -> str:
    """The paired difference of SC-CLIP to the values alone in mIoU, in both groups of styles."""
    table, rows = load_table("evaluate_mini"), []
    table = table[table["measure"] == "mIoU minus values"]
    for name in ("scclip", "scclip-published"):
        cells = [
            in_percent(row_where(table, method=name, styles=style))
            for style in ("training", "held-out")
        ]
        rows.append([words(METHOD_NAMES[name]), *cells])
    header = [words("mIoU minus that of the values (points)")]
    return markdown([*header, words("training styles"), words("style never seen")], rows)


def zero_shot(words: Words) -> str:
    """Whether the class token names the object of a scene, in both groups of styles."""
    table = load_table("evaluate_mini")
    table = table[table["measure"] == "zero-shot accuracy"]
    cells = [in_percent(row_where(table, styles=style)) for style in ("training", "held-out")]
    return markdown([words("training styles"), words("style never seen")], [cells])


def modules(words: Words) -> str:
    """The gain of every module of SC-CLIP, added in the article's order, in points.

    In the style never seen it is given in mIoU.
    """
    table, rows = load_table("05_modules"), []
    for ablation, modules in (("added", MODULES), ("total", {"all modules": "all modules"})):
        part = table[table["ablation"] == ablation]
        for module, title in modules.items():
            columns = [(measure, "training") for measure in MEASURES] + [("mIoU", "held-out")]
            cells = [
                in_percent(row_where(part, module=module, measure=measure, styles=style))
                for measure, style in columns
            ]
            rows.append([words(title), *cells])
    unseen = f"{words('mIoU')}, {words('style never seen')}"
    return markdown([words("module"), *map(words, MEASURES), unseen], rows)


def phenomena(words: Words) -> str:
    """What SC-CLIP relies on, by layer of the bundled model."""
    table = load_table("phenomena")
    layers, rows = (0, 3, 6, 8, 10), []
    for what in table["what"].unique():
        part = table[table["what"] == what].set_index("place")["value"]
        if set(layers) <= set(part.index):
            rows.append([words(what), *(f"{part[layer]:.2f}" for layer in layers)])
    return markdown([words("measured"), *(f"{words('layer')} {n}" for n in layers)], rows)


def phenomena_of_the_end(words: Words) -> str:
    """Outlier scores of the last layer but one, and the last block's attention, by head."""
    table, rows = load_table("phenomena"), []
    for _, row in table.iterrows():
        if row["what"].startswith("LOF"):
            rows.append([words(row["what"]), f"{row['value']:.2f}"])
        elif row["what"] == "entropy of attention":
            head = f"{words(row['what'])}, {words('head')} {row['place']}"
            rows.append([head, f"{row['value']:.2f}"])
    return markdown([words("measured"), words("value")], rows)


def protocol(words: Words) -> str:
    """What each point of the published evaluation changes, on scenes of benchmark sizes."""
    table = load_table("protocol")
    header = ["point", "published code", "the other way", "here", "equal labels (%)"]
    rows = [
        [
            *(words(row[column]) for column in ("point", "published", "other")),
            words("as published" if row["here"] == "published" else "other"),
            f"{100 * row['agreement']:.3f}",
            f"{100 * row['mIoU as published']:.2f}, {100 * row['mIoU otherwise']:.2f}",
        ]
        for _, row in table.iterrows()
    ]
    return markdown([*map(words, header), words("mIoU (%): published, other")], rows)


TABLES: dict[str, Callable[[Words], str]] = {
    "mini": mini,
    "against-values": against_values,
    "zero-shot": zero_shot,
    "modules": modules,
    "by-objects": by_objects,
    "fine-tuned": fine_tuned,
    "times": times,
    "phenomena": phenomena,
    "phenomena-end": phenomena_of_the_end,
    "protocol": protocol,
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
