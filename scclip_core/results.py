"""Tables and pictures of an evaluation: scores with intervals, classes, and two methods compared."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scclip_core.benchmarks import Opened
from scclip_core.files import atomic_write
from scclip_core.metrics import interval, iou_per_class, mean_iou, paired_interval, pixel_accuracy
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import draw_gallery, save_figure, save_table
from scclip_core.runs import Chunks, Results, about_run, label_maps

SHOWN = 4  # pictures at each end of a contact sheet


def score_table(results: Results, seed: int = 2) -> pd.DataFrame:
    """mIoU and pixel accuracy of every method, with 95 % bootstrap intervals over pictures."""
    rows = []
    for name, counts in results.counts.items():
        rows.append(("mIoU", name, *interval(counts, mean_iou, seed)))
        rows.append(("pixel accuracy", name, *interval(counts, pixel_accuracy, seed)))
    table = pd.DataFrame(rows, columns=["measure", "method", "value", "low", "high"])
    return table.assign(pictures=len(results.numbers), failed=len(results.failed))


def class_table(results: Results, classes: list[tuple[str, ...]]) -> pd.DataFrame:
    """IoU of every class (rows) by every method (columns), over all pictures, and its true pixels."""
    table = pd.DataFrame({"class": [names[0] for names in classes]})
    for name, counts in results.counts.items():
        table["true pixels"] = counts.sum(0)[1]
        table[name] = iou_per_class(counts.sum(0))
    return table


def save_results(
    results: Results, methods: dict[str, SCCLIP], data: Opened, folder: Path, seed: int = 2
) -> pd.DataFrame:
    """Write `scores.csv`, `classes.csv`, `failed.csv` and, with all that they depend on, `scores.json`."""
    about = about_run(next(iter(methods.values())).model, data, seed)
    configs = {name: asdict(method.config) for name, method in methods.items()}
    table = score_table(results, seed)
    save_table(table, "scores", folder)
    save_table(class_table(results, data.classes), "classes", folder)
    save_table(pd.DataFrame(results.failed.items(), columns=["picture", "why"]), "failed", folder)
    told = {**about, "configs": configs, "scores": json.loads(table.round(6).to_json(orient="records"))}
    with atomic_write(folder / "scores.json") as path:
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return table


def compare_methods(
    a: str, b: str, results: Results, methods: dict[str, SCCLIP], data: Opened, folder: Path, seed: int = 2
) -> pd.DataFrame:
    """The difference of `a` to `b` in mIoU and pixel accuracy, the same pictures drawn for both.

    Writes it as `A_minus_B.csv`, every picture's own difference as `A_minus_B_pictures.csv`, and a contact
    sheet of the pictures where it is largest and smallest as `A_minus_B_sheet.png`, with its numbers.
    """
    name = f"{a}_minus_{b}"
    rows = [
        (measure, *paired_interval(results.counts[a], results.counts[b], statistic, seed))
        for measure, statistic in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy))
    ]
    table = pd.DataFrame(rows, columns=["measure", "value", "low", "high"])
    save_table(table.assign(a=a, b=b, pictures=len(results.numbers)), name, folder)
    each = pd.DataFrame(
        {
            "picture": [data.samples.names[i] for i in results.numbers],
            a: [float(mean_iou(counts)) for counts in results.counts[a]],
            b: [float(mean_iou(counts)) for counts in results.counts[b]],
        }
    )
    each = each.assign(difference=each[a] - each[b], number=results.numbers).dropna()  # NaN: all ignored
    save_table(each.drop(columns="number"), f"{name}_pictures", folder)
    ranked = each.sort_values("difference", ascending=False, kind="stable")
    shown = pd.concat([ranked.head(SHOWN), ranked.iloc[SHOWN:].tail(SHOWN)])
    save_figure(contact_sheet(shown, a, b, methods, data), shown, f"{name}_sheet", folder)
    return table


def contact_sheet(shown: pd.DataFrame, a: str, b: str, methods: dict[str, SCCLIP], data: Opened) -> Figure:
    """Pictures with the truth and what two methods make of them, mIoU under each, best for `a` first."""
    chunks, rows = Chunks(data, methods[a].model), []
    for _, line in shown.iterrows():
        number = int(line["number"])
        picture, truth = data.samples.read(number)
        image = chunks.load(number).image
        row = {
            "image": np.asarray(picture),
            "maps": {"truth": truth},
            "captions": {"truth": line["picture"]},
        }
        for method in (a, b):
            labels = label_maps(methods[method], [image], [truth.shape], data)[0].cpu().numpy()
            row["maps"][method] = labels.astype(np.uint8)
            row["captions"][method] = f"mIoU {line[method]:.2f}"
        rows.append(row)
    return draw_gallery(rows, ["truth", a, b], [names[0] for names in data.classes])
