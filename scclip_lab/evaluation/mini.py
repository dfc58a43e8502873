"""Measuring a model on emoji scenes: zero-shot accuracy, and the label maps of every method."""

import hashlib
import json
import platform
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from scclip_core.baselines import METHODS, make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import ARTICLE_TEMPLATE
from scclip_core.files import DATA, atomic_write
from scclip_core.images import normalise
from scclip_core.sharing import shared_results
from scclip_core.text import embed_names
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import (
    Statistic,
    background_accuracy,
    count_classes,
    interval,
    mean_interval,
    mean_iou,
    object_accuracy,
    paired_interval,
    pixel_accuracy,
)
from scclip_lab.plots import save_table

# The measures of every method, in the order of the table.
MEASURES: dict[str, Statistic] = {
    "mIoU": mean_iou,
    "objects right": partial(object_accuracy, objects=N_OBJECTS),
    "background right": partial(background_accuracy, objects=N_OBJECTS),
    "pixel accuracy": pixel_accuracy,
}
# The shares of object and background pixels that have the right word.
PARTS = ("objects right", "background right")
# What tables of the chapters hold: the mean, and objects and background apart.
MEAN_AND_PARTS = {name: MEASURES[name] for name in ("mIoU", *PARTS)}
# The measures that are also given by the number of objects in a scene.
BY_OBJECTS = ("mIoU", "objects right")
# The methods that the others are compared with, image by image.
BASES = ("vanilla", "values")
COLUMNS = ["measure", "method", "styles", "objects", "value", "low", "high", "scenes"]
Name = TypeVar("Name", bound=Hashable)


class Segmenter(Protocol):
    """Whatever turns images [B, 3, H, W] into label maps int64 [B, H, W] over classes."""

    model: FrozenCLIP

    def segment(self, images: Tensor, classes: tuple[str, ...], /) -> Tensor: ...


def stack_images(model: FrozenCLIP, scenes: list[Scene]) -> Tensor:
    """The images of scenes as a model takes them, [B, 3, H, W]."""
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    values = images.permute(0, 3, 1, 2)  # [B, H, W, 3] -> [B, 3, H, W]
    return normalise(values, model.mean, model.std).to(model.device, model.dtype)


def parts_right(labels: Tensor, truth: Tensor) -> list[float]:
    """The shares `PARTS` of one label map over all words, [H, W]."""
    counts = count_classes(labels, truth, len(WORDS))
    return [float(MEASURES[part](counts)) for part in PARTS]


@torch.no_grad()
def zero_shot(
    model: FrozenCLIP, style: str, count: int, seed: int, split: int = TEST, batch: int = 32
) -> np.ndarray:
    """Whether the class token names the object of a scene with one object, bool [count].

    CLIP as trained: open_clip's own image embedding, compared with "a photo of {word}" for every
    object word. Scenes are chosen as in `score_methods`.
    """
    text = embed_names(model, WORDS[:N_OBJECTS], (ARTICLE_TEMPLATE,))
    right: list[bool] = []
    for start in tqdm(range(0, count, batch), desc=f"zero-shot, {style} styles"):
        indices = range(start, min(start + batch, count))
        scenes = [evaluation_scene(split, seed, i, style, counts=(1,)) for i in indices]
        embedded = model.clip.encode_image(stack_images(model, scenes))
        best = (embedded @ text.T).argmax(1).tolist()
        right += [WORDS[i] == scene.objects[0] for i, scene in zip(best, scenes, strict=True)]
    return np.array(right)


def score_methods(
    methods: Mapping[Name, Segmenter],
    style: str,
    count: int,
    seed: int,
    split: int = TEST,
    batch: int = 8,
) -> dict[Name, np.ndarray]:
    """Class counts of every method on the same scenes, over all words.

    Args:
        methods: name -> segmenter.
        style: of the drawings, "training" or "held-out".
        count: number of scenes.
        seed: of the scenes.
        split: `TEST` or `VALIDATION`.
        batch: number of scenes that are segmented at once.

    Returns {name: int64 [count, 3, C]}, which the functions of `metrics` read.
    """
    found: dict[Name, list[np.ndarray]] = {name: [] for name in methods}
    for start in tqdm(range(0, count, batch), desc=f"label maps, {style} styles"):
        indices = range(start, min(start + batch, count))
        scenes = [evaluation_scene(split, seed, i, style) for i in indices]
        truth = torch.from_numpy(np.stack([scene.labels for scene in scenes]))
        images: dict[FrozenCLIP, Tensor] = {}
        with shared_results():
            for name, segmenter in methods.items():
                model = segmenter.model
                if model not in images:
                    images[model] = stack_images(model, scenes)
                maps = segmenter.segment(images[model], WORDS).cpu()
                pairs = zip(maps, truth, strict=True)
                found[name] += [count_classes(labels, true, len(WORDS)) for labels, true in pairs]
    return {name: np.stack(counts) for name, counts in found.items()}


def count_objects(counts: np.ndarray) -> np.ndarray:
    """The number of objects that can be seen in each scene, class counts [I, 3, C] -> int64 [I]."""
    return (counts[:, 1, :N_OBJECTS] > 0).sum(-1)


def evaluate_mini(
    model: FrozenCLIP,
    count: int,
    seed: int,
    split: int = TEST,
    methods: Sequence[str] = tuple(METHODS),
) -> pd.DataFrame:
    """The table of a model on emoji scenes: every measure of every method, on both styles.

    Args:
        model: to be measured.
        count: number of scenes of each style, >= 2; no training used them.
        seed: of the scenes and of the bootstrap.
        split: `TEST` or `VALIDATION`.
        methods: their names, `vanilla` and `values` among them.

    A row is a measure of a method on the scenes of a style with a number of objects, or "all", and
    its 95 % bootstrap interval over scenes. The measures are `MEASURES`; zero-shot accuracy of the
    class token, on scenes with one object each; and "mIoU minus vanilla" and "mIoU minus values",
    differences on the same scenes. Raises ValueError for fewer than 2 scenes.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 scenes, got {count}")
    segmenters = {name: make_method(name, model) for name in methods}
    rows: list[tuple[object, ...]] = []
    for style in STYLES:
        right = zero_shot(model, style, count, seed, split)
        share = mean_interval(right.astype(np.int64), seed)
        rows.append(("zero-shot accuracy", "class token", style, "all", *share, count))
        rows += _method_rows(score_methods(segmenters, style, count, seed, split), style, seed)
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(seed=seed, split="test" if split == TEST else "validation")


def _method_rows(counted: dict[str, np.ndarray], style: str, seed: int) -> list[tuple[object, ...]]:
    """The rows of one style, class counts [I, 3, C] of every method given."""
    rows: list[tuple[object, ...]] = []
    for name, counts in counted.items():
        for measure, statistic in MEASURES.items():
            found = interval(counts, statistic, seed)
            rows.append((measure, name, style, "all", *found, len(counts)))
    for base in BASES:
        # Each pair once: the methods that come after the base.
        for name in list(counted)[list(counted).index(base) + 1 :]:
            found = paired_interval(counted[name], counted[base], mean_iou, seed)
            rows.append((f"mIoU minus {base}", name, style, "all", *found, len(counted[name])))
    for name, counts in counted.items():
        objects = count_objects(counts)
        for measure in BY_OBJECTS:
            for number in np.unique(objects).tolist():
                part = counts[objects == number]
                found = interval(part, MEASURES[measure], seed)
                rows.append((measure, name, style, str(number), *found, len(part)))
    return rows


def save_evaluation(table: pd.DataFrame, folder: Path, name: str = "mini") -> None:
    """Write the table of the bundled model as `name.csv` and, with versions, as `name.json`.

    The JSON holds the SHA-256 of the weights. It is left alone where the CSV is (see `save_table`)
    and the weights are the same.
    """
    changed = save_table(table, name, folder)
    weights = (DATA / "mini" / "open_clip_model.safetensors").read_bytes()
    content = {
        "model": "mini",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "rows": json.loads(table.round(6).to_json(orient="records")),
    }
    path = folder / f"{name}.json"
    if not changed and path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("weights_sha256") == content["weights_sha256"]:
            return
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
