"""Measuring a model on emoji scenes: zero-shot accuracy of the class token, and label maps of several
methods.
"""

import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SEED_TEMPLATE
from scclip_core.files import DATA, atomic_write
from scclip_core.methods import PRESETS, make_method
from scclip_core.metrics import (
    count_classes,
    interval,
    mean_interval,
    mean_iou,
    paired_interval,
    pixel_accuracy,
)
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import save_table
from scclip_core.scenes import N_OBJECTS, STYLES, TEST, WORDS, Scene, evaluation_scene
from scclip_core.text import embed_names


def stack_images(model: FrozenCLIP, scenes: list[Scene]) -> Tensor:
    """The scenes as the model wants them, [B, 3, H, W]."""
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    return ((pixels - mean) / std).to(model.device, model.dtype)


@torch.no_grad()
def zero_shot(
    model: FrozenCLIP, style: str, count: int, seed: int, split: int = TEST, batch: int = 32
) -> np.ndarray:
    """Whether the class token names the object of each of `count` one-object scenes, over all object words,
    bool [count].

    The unchanged CLIP: open_clip's own image embedding against "a photo of {word}".
    """
    text = embed_names(model, WORDS[:N_OBJECTS], (SEED_TEMPLATE,))
    right = []
    for start in tqdm(range(0, count, batch), desc=f"zero-shot, {style} styles"):
        indices = range(start, min(start + batch, count))
        scenes = [evaluation_scene(split, seed, i, style, counts=(1,)) for i in indices]
        guess = (model.clip.encode_image(stack_images(model, scenes)) @ text.T).argmax(1)
        right += [WORDS[int(g)] == scene.objects[0] for g, scene in zip(guess, scenes, strict=True)]
    return np.array(right)


def dense(
    methods: dict[str, SCCLIP], style: str, count: int, seed: int, split: int = TEST, batch: int = 16
) -> dict[str, np.ndarray]:
    """Class counts over all words of each method on the same `count` scenes, {method: int64 [count, 3,
    C]}.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for start in tqdm(range(0, count, batch), desc=f"label maps, {style} styles"):
        scenes = [evaluation_scene(split, seed, i, style) for i in range(start, min(start + batch, count))]
        truth = torch.from_numpy(np.stack([scene.labels for scene in scenes]))
        for name, segmenter in methods.items():
            guess = segmenter.segment(stack_images(segmenter.model, scenes), WORDS).cpu()
            found[name] += [count_classes(g, t, len(WORDS)) for g, t in zip(guess, truth, strict=True)]
    return {name: np.stack(counts) for name, counts in found.items()}


def evaluate_mini(model: FrozenCLIP, count: int, seed: int, split: int = TEST) -> pd.DataFrame:
    """The table of the bundled model: one row a (measure, method, style), with 95 % bootstrap intervals over
    images.

    Zero-shot accuracy and label maps each on `count` scenes a style that no training used; also the
    difference in mIoU of each method to vanilla and of SC-CLIP to MaskCLIP, the same scenes drawn for both.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 scenes, got {count}")
    methods = {name: make_method(name, model) for name in PRESETS}
    rows = []
    for style in STYLES:
        right = zero_shot(model, style, count, seed, split)
        share = mean_interval(right.astype(np.int64), seed)
        rows.append(("zero-shot accuracy", "class token", style, *share))
        counted = dense(methods, style, count, seed, split)
        for name, counts in counted.items():
            rows.append(("mIoU", name, style, *interval(counts, mean_iou, seed)))
            rows.append(("pixel accuracy", name, style, *interval(counts, pixel_accuracy, seed)))
        for base in ("vanilla", "maskclip"):
            for name in list(counted)[list(counted).index(base) + 1 :]:
                paired = paired_interval(counted[name], counted[base], mean_iou, seed)
                rows.append((f"mIoU minus {base}", name, style, *paired))
    table = pd.DataFrame(rows, columns=["measure", "method", "styles", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed, split="test" if split == TEST else "validation")


def save_evaluation(table: pd.DataFrame, folder: Path, name: str = "mini") -> None:
    """Write the table as CSV and, with versions and the weights' hash, as JSON."""
    save_table(table, name, folder)
    weights = DATA / "mini" / "open_clip_model.safetensors"
    told = {
        "model": "mini",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "rows": json.loads(table.round(6).to_json(orient="records")),
    }
    with atomic_write(folder / f"{name}.json") as path:
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
