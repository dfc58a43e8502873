"""Chapter 5: what a wrong pixel is taken for, and where SC-CLIP helps, by number of objects."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import interval
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import METHOD_NAMES, figure, load_table
from scclip_lab.studies.shared import changed, no_module, segmenters
from scclip_lab.studies.tables import STYLE_NAMES, in_percent

# What a pixel is labelled as, by the kind of pixel.
KINDS = {
    "object pixels": ("right", "the background", "another object of the scene", "an absent word"),
    "background pixels": ("right", "an object of the scene", "an absent word"),
}
# What is compared: no module, one of them, and the whole.
COMPARED = {
    "values (no module)": no_module(),
    "first aggregation alone": changed(no_module(), first_aggregation=True),
    "attention alone": changed(no_module(), calibrated_attention=True),
    "second aggregation alone": changed(no_module(), second_aggregation=True),
    "fusion alone": changed(no_module(), fusion=True),
    "SC-CLIP": SCCLIPConfig(),
}
# The colour of each kind of wrong pixel.
COLOURS = {
    "the background": "#E69F00",
    "an object of the scene": "#0072B2",
    "another object of the scene": "#0072B2",
    "an absent word": "#999999",
}


def kinds_of_labels(labels: np.ndarray, scene: Scene) -> list[np.ndarray]:
    """How many object pixels, and background pixels, a label map [H, W] takes for what.

    Returns a count for each of `KINDS`, int64 [4] and [3].
    """
    truth = scene.labels
    is_object = truth < N_OBJECTS
    present = np.isin(labels, [WORDS.index(word) for word in scene.words])
    right, as_object = labels == truth, labels < N_OBJECTS
    mixed = present & as_object & ~right
    spilled = present & ~as_object & ~right
    of_objects = [(is_object & kind).sum() for kind in (right, spilled, mixed, ~present)]
    of_background = [(~is_object & kind).sum() for kind in (right, mixed, ~present)]
    return [np.array(of_objects), np.array(of_background)]


@torch.no_grad()
def errors_by_kind(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """What wrong pixels are taken for, with single modules and with all, on `count` test scenes.

    Returns the columns styles, method, pixels (one of `KINDS`), taken for, and the share of these
    pixels with its 95 % bootstrap interval: value, low, high.
    """
    rows: list[tuple[object, ...]] = []
    for style in STYLES:
        methods = segmenters(model, COMPARED)
        counted: dict[tuple[str, str], list[np.ndarray]] = {}
        for index in range(count):
            scene = evaluation_scene(TEST, seed, index, style)
            images = stack_images(model, [scene])
            with shared_results():
                maps = {name: one.segment(images, WORDS)[0] for name, one in methods.items()}
            for name, labels in maps.items():
                kinds = kinds_of_labels(labels.cpu().numpy(), scene)
                for pixels, found in zip(KINDS, kinds, strict=True):
                    counted.setdefault((name, pixels), []).append(found)
        for (name, pixels), counts in counted.items():
            for i, kind in enumerate(KINDS[pixels]):
                # The pixels of this kind, and all of them, [count, 2].
                pair = np.array([(each[i], each.sum()) for each in counts])
                share = interval(pair, lambda c: c[..., 0] / c[..., 1], seed)
                rows.append((style, name, pixels, kind, *share))
    columns = ["styles", "method", "pixels", "taken for", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def scores_by_objects(measure: str = "objects right") -> pd.DataFrame:
    """A measure by the number of objects in the scene, in per cent, read from the main table.

    Returns a row for each style and method, a column for each number.
    """
    table = load_table("evaluate_mini")
    numbers = table["objects"].astype(str)
    part = table[(table["measure"] == measure) & (numbers != "all")]
    part = part[part["method"].isin(("values", "scclip", "scclip-published"))]
    texts = part.assign(
        scores=[in_percent(row) for _, row in part.iterrows()],
        method=part["method"].map(METHOD_NAMES),
    )
    keys = ["styles", "method"]
    found = texts.pivot_table("scores", keys, "objects", aggfunc="first", sort=False)
    return found.rename_axis(columns=f"{measure} (%), objects in the scene:")


@figure("05_errors")
def draw_errors(table: pd.DataFrame) -> Figure:
    """What wrong pixels are taken for: the length of a bar is the share that is wrong."""
    styles = table["styles"].unique()
    shape = (len(styles), len(KINDS))
    drawn, axes = plt.subplots(*shape, figsize=(16, 8), sharex="row", sharey=True)
    for line, style in zip(axes, styles, strict=True):
        for axis, (pixels, kinds) in zip(line, KINDS.items(), strict=True):
            part = table[(table["styles"] == style) & (table["pixels"] == pixels)]
            left = np.zeros(len(COMPARED))
            for kind in kinds[1:]:
                rows = part[part["taken for"] == kind].set_index("method").loc[list(COMPARED)]
                share = 100 * rows["value"].to_numpy()
                axis.barh(rows.index, share, left=left, color=COLOURS[kind], label=kind)
                left += share
            axis.set_title(f"{pixels}, {STYLE_NAMES[style]}")
            axis.set_xlabel(f"wrong {pixels} (%)")
    axes[0, 0].invert_yaxis()
    patches = {
        f"taken for {kind.replace('another', 'an')}": Patch(color=colour)
        for kind, colour in COLOURS.items()
    }
    look = {"frameon": False, "fontsize": 13, "ncols": 3, "bbox_to_anchor": (0.5, 1.06)}
    drawn.legend(list(patches.values()), list(patches), loc="upper center", **look)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
