"""Chapter 2 on real scenes: which patches are flagged, what repair does to them, and why."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from scclip_core.anomaly import flag_anomalies, local_outlier_factor, squared_distances
from scclip_core.clip import FrozenCLIP
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import interval
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.plots import error_bars
from scclip_lab.studies import figure
from scclip_lab.studies.places import cut_patches
from scclip_lab.studies.reading import PATCH, label_map, patch_labels
from scclip_lab.studies.shared import changed, no_module

# Where a patch can be.
PLACES = (
    "background",
    "outline, centre on background",
    "outline, centre on an object",
    "inside an object",
)


def patch_places(scene: Scene) -> np.ndarray:
    """Which of `PLACES` every patch is at, as its index, int [14, 14].

    A patch that holds more than one label is at an outline.
    """
    on_object = patch_labels(scene) < N_OBJECTS
    return np.where(cut_patches(scene.labels), 1 + on_object, 3 * on_object)


def repair_alone(model: FrozenCLIP) -> tuple[SCCLIP, SCCLIP]:
    """SC-CLIP with every module off, which reads the values, and with repair as the only one."""
    return SCCLIP(model, no_module()), SCCLIP(model, changed(no_module(), repair=True))


def measure_flags(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """Where flagged patches are, and whether they get the right word before and after repair.

    Returns the columns what, place, value, low, high, scenes, and seed. `what` is "patches" or
    "flags" (the share of all that are at this place), or "before repair" or "after repair" (the
    share of flagged patches at this place whose centre gets the right word from the values, with
    no other module). Intervals are 95 % bootstrap intervals over scenes.
    """
    whats = ("patches", "flags", "before repair", "after repair")
    # Scenes, what, place: how many, and of how many.
    counted = np.zeros((count, len(whats), len(PLACES), 2))
    plain, repaired = repair_alone(model)
    for index in tqdm(range(count), desc="flags"):
        scene = evaluation_scene(TEST, seed, index)
        images, truth = stack_images(model, [scene]), patch_labels(scene)
        after, cache = repaired.run_with_cache(images, "stage3.anomalous")
        flags = cache["stage3.anomalous"].view(truth.shape).numpy()
        right = [
            label_map(method, features, len(scene.labels)).numpy()[8::PATCH, 8::PATCH] == truth
            for method, features in ((plain, plain.features(images)), (repaired, after))
        ]
        places = patch_places(scene)
        for i in range(len(PLACES)):
            here = places == i
            flagged = flags & here
            counted[index, :, i] = [
                (here.sum(), here.size),
                (flagged.sum(), flags.sum()),
                *((one[flagged].sum(), flagged.sum()) for one in right),
            ]
    rows = [
        (what, place, *interval(counted[:, i, j], _share, seed), count, seed)
        for i, what in enumerate(whats)
        for j, place in enumerate(PLACES)
    ]
    columns = ["what", "place", "value", "low", "high", "scenes", "seed"]
    return pd.DataFrame(rows, columns=columns)


def _share(counted: np.ndarray) -> np.ndarray:
    """How many of how many, NaN of none, [..., 2] -> [...]."""
    return np.divide(
        counted[..., 0],
        counted[..., 1],
        out=np.full(counted.shape[:-1], np.nan),
        where=counted[..., 1] > 0,
    )


def describe_anomalies(tokens: Tensor, where: np.ndarray, k: int) -> dict[str, float]:
    """What the local outlier factor sees of anomalies at known patches.

    Args:
        tokens: [N, C].
        where: which patches they are, bool, N values in any shape.
        k: neighbours that are looked at.

    Returns, on the mean over the anomalies: how many of their `k` nearest are anomalies too, the
    distances to the nearest and to the k-th in units of the median of the other patches, and the
    score; and the score above which a patch is flagged.
    """
    planted = torch.from_numpy(where.flatten())
    itself = torch.eye(len(tokens), dtype=torch.bool)
    distance = squared_distances(tokens[None])[0].sqrt().masked_fill(itself, torch.inf)
    near, index = distance.topk(k, largest=False)
    scores = local_outlier_factor(tokens[None], k)[0]
    flagged = flag_anomalies(scores[None], float(planted.float().mean()))[0]

    def relative(distances: Tensor) -> float:
        return float(distances[planted].mean() / distances[~planted].median())

    return {
        f"anomalies among the {k} nearest": float(planted[index[planted]].sum(1).float().mean()),
        "distance to the nearest": relative(near[:, 0]),
        f"distance to neighbour {k}": relative(near[:, -1]),
        "LOF of the anomalies": float(scores[planted].mean()),
        "LOF that is flagged": float(scores[flagged].min()),
    }


@figure("02_flags")
def draw_flags(table: pd.DataFrame) -> Figure:
    """Left, where flags are and where patches are; right, flagged patches before and after."""
    drawn, axes = plt.subplots(1, 2, figsize=(13.5, 4), sharey=True, layout="constrained")
    panels = (
        (("patches", "flags"), ("0.7", "#D55E00"), "share of all (%)"),
        (("before repair", "after repair"), ("#56B4E9", "#0072B2"), "right words (%)"),
    )
    titles = ("Where the flags are", "Flagged patches that get the right word")
    for axis, (whats, colours, label), title in zip(axes, panels, titles, strict=True):
        for i, (what, colour) in enumerate(zip(whats, colours, strict=True)):
            rows = table[table["what"] == what]
            place = np.arange(len(rows)) + 0.38 * (i - 0.5)
            look: dict[str, Any] = {"capsize": 3, "color": colour, "label": what}
            axis.barh(place, 100 * rows["value"], 0.36, xerr=100 * error_bars(rows), **look)
        axis.set(xlabel=label, title=title, xlim=(0, 100))
        axis.legend(
            frameon=False, fontsize=12, loc="upper left", ncols=2, bbox_to_anchor=(0, -0.25)
        )
    axes[0].set_yticks(range(len(PLACES)), PLACES)
    axes[0].invert_yaxis()
    sns.despine(drawn)
    return drawn
