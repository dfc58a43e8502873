"""Chapter 13: the bundled model in bfloat16 and int8: the same labels, and in what time?"""

import copy
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from scclip_core.clip import FrozenCLIP
from scclip_core.loading import load_clip
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.metrics import (
    GAINED,
    count_classes,
    interval_and_gain,
    mean_interval,
)
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.evaluation.timing import compare, machine
from scclip_lab.studies.tables import change_in_points

FULL, BF16 = "float32", "bfloat16"
DYNAMIC, ROUNDED = "int8, MLPs (dynamic)", "int8, all matrices (rounded)"
AGREEMENT = "labels as in float32"


def quantize_mlps(model: FrozenCLIP) -> FrozenCLIP:
    """A copy whose MLPs compute with integers of 8 bits: torch's dynamic quantisation.

    Weights are integers with one scale for a matrix; activations get their scale as they come. The
    attention stays in float32, since torch's `nn.MultiheadAttention` has no such variant.
    """
    # Imported late: torch moves it to another package.
    from torch.ao.quantization import quantize_dynamic

    changed = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in changed.blocks:
            block.mlp = quantize_dynamic(block.mlp, {nn.Linear}, torch.qint8)
    return changed


@torch.no_grad()
def round_weights(model: FrozenCLIP, bits: int = 8) -> FrozenCLIP:
    """A copy with every matrix of the image tower rounded to integers, and computed in float32.

    w -> s round(w / s), s = max |w| / (2^(bits - 1) - 1), for each row

    It shows what storing the weights in `bits` would change, and saves no time.
    """
    changed, top = copy.deepcopy(model), 2 ** (bits - 1) - 1
    for weight in changed.visual.parameters():
        if weight.ndim >= 2:
            rows = weight.flatten(1)
            scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / top
            weight.copy_((rows / scale).round().mul(scale).view_as(weight))
    return changed


def variants(model: FrozenCLIP) -> dict[str, SCCLIP]:
    """SC-CLIP in every precision, float32 first."""
    return {
        FULL: SCCLIP(model),
        BF16: SCCLIP(copy.deepcopy(model).to(torch.bfloat16)),
        DYNAMIC: SCCLIP(quantize_mlps(model)),
        ROUNDED: SCCLIP(round_weights(model)),
    }


def compare_precisions(
    model: FrozenCLIP, count: int, seed: int = 7, batch: int = 8
) -> pd.DataFrame:
    """Labels that agree with float32, and mIoU, objects and background, on `count` test scenes.

    Gains are paired differences to float32. Returns the columns precision, measure, and `GAINED`.
    """
    segmenters = variants(model)
    same: dict[str, list[float]] = {name: [] for name in segmenters}
    counts: dict[str, list[np.ndarray]] = {name: [] for name in segmenters}
    for start in range(0, count, batch):
        indices = range(start, min(start + batch, count))
        scenes = [evaluation_scene(TEST, seed, i) for i in indices]
        images = stack_images(model, scenes)
        maps = {
            name: segmenter.segment(images.to(segmenter.model.dtype), WORDS)
            for name, segmenter in segmenters.items()
        }
        for name, found in maps.items():
            same[name] += (found == maps[FULL]).float().mean((1, 2)).tolist()
            counts[name] += [
                count_classes(labels, torch.from_numpy(scene.labels), len(WORDS))
                for labels, scene in zip(found, scenes, strict=True)
            ]
    rows: list[tuple[object, ...]] = []
    for name in segmenters:
        agreed = mean_interval(np.array(same[name]), seed)
        rows.append((name, AGREEMENT, *agreed, np.nan, np.nan, np.nan))
        own, base = np.stack(counts[name]), np.stack(counts[FULL])
        for measure, statistic in MEAN_AND_PARTS.items():
            rows.append((name, measure, *interval_and_gain(own, base, statistic, seed)))
    table = pd.DataFrame(rows, columns=["precision", "measure", *GAINED])
    return table.assign(scenes=count, seed=seed)


def time_precisions(batch: int = 4, repeats: int = 5) -> pd.DataFrame:
    """Time of SC-CLIP in every precision, as ratios to float32, with the bundled model, one thread.

    The column `instructions` says what the processor computes with, as torch sees it: bfloat16 is
    fast only where there are instructions for it (AVX512 with BF16, or AMX).
    """
    model = load_clip("mini")
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    runs: dict[str, Callable[[], object]] = {
        name: partial(segmenter.features, images.to(segmenter.model.dtype))
        for name, segmenter in variants(model).items()
        if name != ROUNDED
    }
    with threadpool_limits(1):
        table = compare(runs, repeats, 1, time.process_time).assign(**machine())
    return table.assign(batch=batch, instructions=torch.backends.cpu.get_cpu_capability())


def show_precisions(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """A row for each precision: agreement, scores in per cent, changes in points, time ratio."""
    points = table.assign(value=100 * table["value"])
    shown = points.pivot(index="precision", columns="measure", values="value")
    shown = shown.loc[list(dict.fromkeys(table["precision"])), [AGREEMENT, *MEAN_AND_PARTS]]
    change = table[table["measure"] == "mIoU"].set_index("precision")
    texts = [change_in_points(row, "gain") for _, row in change.loc[shown.index].iterrows()]
    ratio = times.set_index("what")["ratio"].reindex(shown.index)
    shown = shown.round(2)
    shown["mIoU against float32"], shown["time"] = texts, ratio.round(2)
    return shown
