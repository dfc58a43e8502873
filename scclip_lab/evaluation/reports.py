"""Reports of an evaluation: scores with intervals, IoU by class, and two methods compared."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scclip_core.dense import DenseCLIP
from scclip_core.files import atomic_write
from scclip_lab.datasets.benchmarks import SegmentationDataset
from scclip_lab.evaluation.inference import label_maps
from scclip_lab.evaluation.metrics import (
    Statistic,
    background_accuracy,
    interval,
    iou_per_class,
    mean_iou,
    object_accuracy,
    paired_interval,
    pixel_accuracy,
)
from scclip_lab.evaluation.runner import Chunks, Results, method_metadata, run_metadata
from scclip_lab.plots import draw_gallery, save_figure, save_table

# Images at each end of a contact sheet.
SHOWN = 4


def measures_of(data: SegmentationDataset) -> dict[str, Statistic]:
    """The measures of a data set: mIoU and pixel accuracy, and where it has a background two more.

    These are the shares of object pixels and of background pixels that have the right label.
    """
    measures: dict[str, Statistic] = {"mIoU": mean_iou}
    if data.background:
        objects = data.object_mask()
        measures["objects right"] = partial(object_accuracy, objects=objects)
        measures["background right"] = partial(background_accuracy, objects=objects)
    return measures | {"pixel accuracy": pixel_accuracy}


def score_table(results: Results, data: SegmentationDataset, seed: int = 2) -> pd.DataFrame:
    """Every measure of every method, with 95 % bootstrap intervals over images."""
    rows = [
        (measure, name, *interval(counts, statistic, seed))
        for name, counts in results.counts.items()
        for measure, statistic in measures_of(data).items()
    ]
    table = pd.DataFrame(rows, columns=["measure", "method", "value", "low", "high"])
    return table.assign(images=len(results.images), failed=len(results.failed))


def class_table(results: Results, classes: list[tuple[str, ...]]) -> pd.DataFrame:
    """IoU of every class (rows) by every method (columns) over all images, and its true pixels."""
    table = pd.DataFrame({"class": [names[0] for names in classes]})
    for name, counts in results.counts.items():
        table["true pixels"] = counts.sum(0)[1]
        table[name] = iou_per_class(counts.sum(0))
    return table


def save_report(
    results: Results,
    methods: Mapping[str, DenseCLIP],
    data: SegmentationDataset,
    folder: Path,
    seed: int = 2,
) -> pd.DataFrame:
    """Write `scores.csv`, `classes.csv`, `failed.csv` and `scores.json`; returns the scores.

    The JSON holds all that the scores depend on: data set, weights, versions, and the name,
    classes and parameters of every method.
    """
    metadata = run_metadata(next(iter(methods.values())).model, data, seed)
    table = score_table(results, data, seed)
    save_table(table, "scores", folder)
    save_table(class_table(results, data.classes), "classes", folder)
    failed = pd.DataFrame(results.failed.items(), columns=["image", "reason"])
    save_table(failed, "failed", folder)
    content = {
        **metadata,
        "methods": [method_metadata(name, segmenter) for name, segmenter in methods.items()],
        "scores": json.loads(table.round(6).to_json(orient="records")),
    }
    with atomic_write(folder / "scores.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return table


def compare_methods(
    a: str,
    b: str,
    results: Results,
    methods: Mapping[str, DenseCLIP],
    data: SegmentationDataset,
    folder: Path,
    seed: int = 2,
) -> pd.DataFrame:
    """The paired difference of method `a` to method `b` in every measure, on the same images.

    Returns the table, and writes it as `A_minus_B.csv`; the mIoU of every image as
    `A_minus_B_images.csv`; and as `A_minus_B_sheet.png`, with its numbers, a contact sheet of the
    images where the difference in mIoU is largest and smallest.
    """
    name = f"{a}_minus_{b}"
    rows = [
        (measure, *paired_interval(results.counts[a], results.counts[b], statistic, seed))
        for measure, statistic in measures_of(data).items()
    ]
    table = pd.DataFrame(rows, columns=["measure", "value", "low", "high"])
    save_table(table.assign(a=a, b=b, images=len(results.images)), name, folder)
    images = pd.DataFrame(
        {
            "image": [data.samples.names[i] for i in results.images],
            a: [float(mean_iou(counts)) for counts in results.counts[a]],
            b: [float(mean_iou(counts)) for counts in results.counts[b]],
        }
    )
    # An image without a pixel that counts has no mIoU.
    images = images.assign(difference=images[a] - images[b], index=results.images).dropna()
    save_table(images.drop(columns="index"), f"{name}_images", folder)
    ranked = images.sort_values("difference", ascending=False, kind="stable")
    shown = pd.concat([ranked.head(SHOWN), ranked.iloc[SHOWN:].tail(SHOWN)])
    save_figure(contact_sheet(shown, a, b, methods, data), shown, f"{name}_sheet", folder)
    return table


def contact_sheet(
    shown: pd.DataFrame,
    a: str,
    b: str,
    methods: Mapping[str, DenseCLIP],
    data: SegmentationDataset,
) -> Figure:
    """Images with the truth and the label maps of two methods, and the mIoU under each.

    `shown` has a row for each image, with its name, its mIoU by each method, and its index.
    """
    chunks = Chunks(data, methods[a].model)
    rows = []
    for _, line in shown.iterrows():
        index = int(line["index"])
        image, truth = data.samples.read(index)
        tensor = chunks.load(index).image
        maps, captions = {"truth": truth}, {"truth": str(line["image"])}
        for method in (a, b):
            (labels,) = label_maps(methods[method], [tensor], [truth.shape], data)
            maps[method] = labels.cpu().numpy().astype(np.uint8)
            captions[method] = f"mIoU {line[method]:.2f}"
        row: dict[str, Any] = {"image": np.asarray(image), "maps": maps, "captions": captions}
        rows.append(row)
    return draw_gallery(rows, ["truth", a, b], [names[0] for names in data.classes])
