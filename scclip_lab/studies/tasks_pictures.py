"""Examples of every task of chapter 10, as tables and as pictures, failures among them."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scclip_core.clip import FrozenCLIP
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS
from scclip_lab.studies import figure
from scclip_lab.studies import tasks_correspondence as correspondence
from scclip_lab.studies import tasks_detection as detection
from scclip_lab.studies import tasks_example as example
from scclip_lab.studies import tasks_retrieval as retrieval
from scclip_lab.studies import tasks_video as video
from scclip_lab.studies.drawing import label_rows, read_labels, show_image
from scclip_lab.studies.tables import STYLE_NAMES
from scclip_lab.studies.tasks_common import NAMES, all_readers, as_input, name_pixels, read_all

SEED = 7
RIGHT, WRONG = "#009E73", "#D55E00"
# Test pictures whose boxes are shown: style and number.
BOXED = (("training", 1), ("training", 4), ("held-out", 3))
# Test examples whose masks are shown: number and style of the target.
MASKED = ((1, "training"), (0, "held-out"), (3, "held-out"))
# Test pairs whose matches are shown: number and change.
MATCHED = ((0, "moved"), (1, "turned"), (2, "redrawn"))
# How many words are asked.
ASKED = 2
SHOWN = ("values", "scclip")


def shown_boxes(model: FrozenCLIP) -> pd.DataFrame:
    """Boxes of some pictures: the true ones, and those that two methods find.

    `right` says whether a box overlaps a true box of its word by half at least.
    """
    readers = {name: reader for name, reader in all_readers(model).items() if name in SHOWN}
    rows = []
    for style, index in BOXED:
        still = detection.scene(index, SEED, style)
        truth = detection.true_boxes(still)
        found = {"truth": truth}
        for name, features in read_all(readers, as_input(model, still.images)).items():
            maps = name_pixels(readers[name], features[0], len(still.labels[0]))  # type: ignore
            found[name] = detection.find_boxes(*maps)
        for name, boxes in found.items():
            for box in boxes:
                over = [detection.box_iou(box, other) for other in truth if other.word == box.word]
                rows.append((style, index, name, *box, max(over, default=0.0) >= 0.5))
    columns = ["styles", "index", "method", *detection.Box._fields, "right"]
    return pd.DataFrame(rows, columns=columns)


def _show(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """An image at half its size, which takes a third of the memory; axes count its own pixels."""
    height, width = image.shape[:2]
    blocks = image.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).astype(np.uint8)
    show_image(axis, blocks, title)
    axis.images[0].set(interpolation="nearest", extent=(0, width, height, 0))
    axis.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axis.title.set_fontsize(10)


@figure("10_boxes")
def draw_boxes(table: pd.DataFrame) -> Figure:
    """Boxes in some pictures: the true ones, and those of two methods with word and score."""
    names = list(table["method"].unique())
    drawn, axes = plt.subplots(len(names), len(BOXED), figsize=(2.6 * len(BOXED), 2.8 * len(names)))
    for column, (style, index) in zip(axes.T, BOXED, strict=True):
        image = detection.scene(index, SEED, style).images[0]
        for axis, name in zip(column, names, strict=True):
            where = (table["styles"] == style) & (table["index"] == index)
            title = f"{STYLE_NAMES[style]}" if name == "truth" else NAMES[name]
            _show(axis, image, title)
            for box in table[where & (table["method"] == name)].itertuples():
                colour = RIGHT if box.right else WRONG
                place = (box.left, box.top)
                axis.add_patch(Rectangle(place, box.width, box.height, fill=False, ec=colour, lw=2))
                text = WORDS[box.word] + ("" if name == "truth" else f" {box.score:.2f}")
                look: dict[str, Any] = {"facecolor": colour, "edgecolor": "none", "pad": 0.8}
                top = max(box.top, 8)
                axis.text(box.left + 1, top, text, color="white", fontsize=7, bbox=look)
    axes[0, 0].set_ylabel("true boxes", fontsize=10)
    note = "Green: overlaps a true box of its word by at least half. Orange: does not."
    drawn.text(0.01, -0.01, note, fontsize=10)
    drawn.tight_layout()
    return drawn


def shown_masks(model: FrozenCLIP, thresholds: dict[str, float]) -> pd.DataFrame:
    """Masks found by example, as label rows: 1 where the object is taken to be."""
    names = ("layer 8", *SHOWN)
    readers = {name: reader for name, reader in all_readers(model).items() if name in names}
    rows = []
    for index, style in MASKED:
        drawn = example.draw_example(TEST, SEED, index)
        maps, _ = example.similarity_maps(readers, model, drawn)
        truth = drawn.targets[style].instances[0] == 1
        found = {"truth": truth}
        found |= {name: maps[name, style] > thresholds[name] for name in names}
        for name, mask in found.items():
            iou = example.mask_iou(mask, truth)
            lines = label_rows(torch.from_numpy(mask.astype(int)))
            rows += [(index, style, name, iou, *line) for line in lines]
    columns = ["index", "styles", "method", "IoU", "line", "labels"]
    return pd.DataFrame(rows, columns=columns)


@figure("10_masks")
def draw_masks(table: pd.DataFrame) -> Figure:
    """Marked objects, and what features alone take for the same object in another picture."""
    names = list(table["method"].unique())
    drawn, axes = plt.subplots(len(MASKED), len(names) + 1, figsize=(9.5, 2.15 * len(MASKED)))
    for line, (index, style) in zip(axes, MASKED, strict=True):
        shown = example.draw_example(TEST, SEED, index)
        reference = shown.reference
        marked = np.where(reference.instances == 1, 1, 0)[0]
        _show(line[0], video.paint_instances(reference.images[0], marked), "marked")
        line[0].set_ylabel(f"{shown.word}\ntarget: {STYLE_NAMES[style]}", fontsize=10)
        for axis, name in zip(line[1:], names, strict=True):
            where = (table["index"] == index) & (table["styles"] == style)
            part = table[where & (table["method"] == name)]
            image = video.paint_instances(
                shown.targets[style].images[0], read_labels(part["labels"])
            )
            _show(axis, image, "true mask" if name == "truth" else NAMES[name])
            if name != "truth":
                axis.set_xlabel(f"IoU {part['IoU'].iloc[0]:.2f}", fontsize=10)
    drawn.tight_layout()
    return drawn


def shown_matches(model: FrozenCLIP) -> pd.DataFrame:
    """Matches of some pairs by a shallow layer, the values and SC-CLIP."""
    names = ("layer 3", *SHOWN)
    parts = [correspondence.matches_of(model, names, change, i, SEED) for i, change in MATCHED]
    return pd.concat(parts, ignore_index=True)


@figure("10_points")
def draw_points(table: pd.DataFrame) -> Figure:
    """Where the points of an object are found in another picture of it, right and wrong."""
    names = list(table["method"].unique())
    drawn, axes = plt.subplots(len(MATCHED), len(names), figsize=(11, 2.1 * len(MATCHED)))
    for line, (index, change) in zip(axes, MATCHED, strict=True):
        source, targets = correspondence.draw_pair(SEED, index)
        both = np.concatenate([source.images[0], targets[change].images[0]], 1)
        for axis, name in zip(line, names, strict=True):
            where = (table["index"] == index) & (table["change"] == change)
            part = table[where & (table["method"] == name)]
            places = len(part[["to_row", "to_col"]].drop_duplicates())
            right = f"{part['right'].mean():.0%} of {len(part)} right"
            _show(axis, both, f"{NAMES[name]}: {right}, {places} places")
            for match in part.itertuples():
                colour = RIGHT if match.right else WRONG
                ends = [match.col, match.to_col + source.images.shape[2]], [match.row, match.to_row]
                axis.plot(*ends, "-o", color=colour, linewidth=0.9, markersize=3)
        line[0].set_ylabel(change, fontsize=11)
    drawn.tight_layout()
    return drawn


def shown_frames(model: FrozenCLIP) -> pd.DataFrame:
    """Instances of the shown clip as label rows: the truth, and what some readers propagate."""
    clip, found = video.shown_clip(model, SEED)
    frames = np.linspace(0, len(clip.images) - 1, 4).astype(int).tolist()
    rows = [
        (name, t, *line)
        for name, instances in found.items()
        for t in frames
        for line in label_rows(torch.from_numpy(instances[t]))
    ]
    return pd.DataFrame(rows, columns=["method", "frame", "line", "labels"])


@figure("10_frames")
def draw_frames(table: pd.DataFrame) -> Figure:
    """Frames of a clip: true masks, and those propagated from the first frame."""
    names, frames = list(table["method"].unique()), list(table["frame"].unique())
    clip = video.draw_clip(SEED, video.SHOWN, "training")
    size = (1.9 * len(frames), 1.95 * len(names))
    drawn, axes = plt.subplots(len(names), len(frames), figsize=size)
    for line, name in zip(axes, names, strict=True):
        for axis, t in zip(line, frames, strict=True):
            part = table[(table["method"] == name) & (table["frame"] == t)]
            image = video.paint_instances(clip.images[t], read_labels(part["labels"]))
            _show(axis, image, f"frame {t}" if name == names[0] else "")
        line[0].set_ylabel("true masks" if name == "truth" else NAMES[name], fontsize=10)
    drawn.tight_layout()
    return drawn


def shown_regions(model: FrozenCLIP, collection: retrieval.Collection) -> pd.DataFrame:
    """The first five regions for the words with most regions, by each kind of vector.

    The collection is that of the style never seen.
    """
    vectors, words, pictures = collection
    counts = np.bincount(words[words < N_OBJECTS])
    asked = np.argsort(-counts, kind="stable")[:ASKED].tolist()
    text = retrieval.text_for(model)
    rows = []
    for name in ("values", "scclip", retrieval.WHOLE, retrieval.CROP):
        similarity = (vectors[name] @ text[name].T).numpy()
        for query in asked:
            order = retrieval.rank_regions(similarity[:, query])
            order = order[words[order] < N_OBJECTS][:5]
            for rank, region in enumerate(order.tolist()):
                first = np.flatnonzero(pictures == pictures[region])[0]
                place = (int(pictures[region]), region - int(first))
                told = (WORDS[query], int(counts[query]), rank, *place, WORDS[words[region]])
                rows.append((name, *told, words[region] == query))
    columns = ["method", "query", "regions", "rank", "picture", "region", "word", "right"]
    return pd.DataFrame(rows, columns=columns)


@figure("10_regions")
def draw_regions(table: pd.DataFrame) -> Figure:
    """The first five regions for some words, each cut out of its picture."""
    names, queries = list(table["method"].unique()), list(table["query"].unique())
    drawn, axes = plt.subplots(
        len(names), 5 * len(queries), figsize=(1.05 * 5 * len(queries), 1.35 * len(names))
    )
    for line, name in zip(axes, names, strict=True):
        for i, axis in enumerate(line):
            query, rank = queries[i // 5], i % 5
            where = (table["query"] == query) & (table["rank"] == rank)
            (found,) = table[where & (table["method"] == name)].itertuples()
            still = retrieval.draw_picture(SEED, found.picture, "held-out")
            _, mask = retrieval.regions_of(still)[found.region]
            _show_region(axis, retrieval.crop(still.images[0], mask), found)
            if name == names[0] and rank == 2:
                axis.set_title(f"“{query}”, {found.regions} regions", fontsize=11)
        line[0].set_ylabel(
            NAMES.get(name, name).replace(", ", ",\n").replace(" (", "\n("), fontsize=9
        )
    drawn.tight_layout(w_pad=0.2, h_pad=0.2)
    return drawn


def _show_region(axis: Axes, image: np.ndarray, found: Any) -> None:
    show_image(axis, image)
    for side in axis.spines.values():
        side.set(color=RIGHT if found.right else WRONG, linewidth=3.5)
    axis.set_xlabel(found.word, fontsize=9, labelpad=2)
