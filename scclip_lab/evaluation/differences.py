"""How much each point of the published evaluation matters: label maps with one point changed.

`python -m scclip_lab.evaluation.differences` measures them on scenes of benchmark sizes and stores
`figures/protocol.csv`, from which the README's table is made.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.dense import DenseCLIP
from scclip_core.files import require_writable
from scclip_core.images import normalise, to_tensor
from scclip_core.loading import load_clip
from scclip_lab.datasets.benchmarks import open_dataset
from scclip_lab.datasets.protocol import Protocol
from scclip_lab.datasets.resizing import published_size, resize_bilinear
from scclip_lab.datasets.scenes import TEST, evaluation_scene
from scclip_lab.evaluation.inference import label_maps
from scclip_lab.evaluation.metrics import count_classes, mean_iou
from scclip_lab.plots import save_table

METHOD = "scclip-published"
SHORT_SIDE = 336
# Width and height of usual pictures of PASCAL VOC and COCO.
SIZES = ((500, 333), (640, 427), (375, 500))
SQUARE = ((500, 500),)
# Mean and standard deviation of the published code, in grey levels.
ROUNDED_MEAN, ROUNDED_STD = (122.771, 116.746, 104.094), (68.501, 66.632, 70.323)
# A picture uint8 [H, W, 3] -> what the model takes, float32 [3, h, w].
Prepare = Callable[[FrozenCLIP, np.ndarray], Tensor]


@dataclass(frozen=True)
class Point:
    """One point in which an evaluation can differ from the published one.

    Attributes:
        name, published, other: the point, and what the published code and the other way do.
        here: whether the evaluation of this project does as the "published" code, or the "other".
        prepare: (as published, the other way), functions from picture to tensor.
        methods: (as published, the other way), names of the segmenters in `measure`.
        sizes: width and height of the pictures.
        window: side of the sliding window, 0 for the whole picture.
    """

    name: str
    published: str
    other: str
    here: str
    prepare: tuple[Prepare, Prepare]
    methods: tuple[str, str] = ("fp32", "fp32")
    sizes: Sequence[tuple[int, int]] = SIZES
    window: int = 224


def resize_as_published(picture: np.ndarray) -> np.ndarray:
    """A picture at the size and with the pixels of the published code, uint8 [h, w, 3]."""
    size = published_size(picture.shape[1], picture.shape[0], SHORT_SIDE)
    return resize_bilinear(picture, *size)


def normalised(model: FrozenCLIP, picture: np.ndarray) -> Tensor:
    """Pixels [h, w, 3] as the model takes them, float32 [3, h, w]."""
    values = torch.from_numpy(picture).permute(2, 0, 1)  # [h, w, 3] -> [3, h, w]
    return normalise(values, model.mean, model.std)


def exact(model: FrozenCLIP, picture: np.ndarray) -> Tensor:
    """Exact sides, OpenCV's bilinear pixels: the published way."""
    return normalised(model, resize_as_published(picture))


def rounded_bicubic(model: FrozenCLIP, picture: np.ndarray) -> Tensor:
    """Sides rounded to the patch, PIL's bicubic pixels: the way of `predict`."""
    return to_tensor(picture, SHORT_SIDE, model.patch_size, model.mean, model.std)


def rounded_bilinear(model: FrozenCLIP, picture: np.ndarray) -> Tensor:
    """Sides rounded to the patch, OpenCV's bilinear pixels."""
    height, width = rounded_bicubic(model, picture).shape[1:]
    return normalised(model, resize_bilinear(picture, width, height))


def exact_bicubic(model: FrozenCLIP, picture: np.ndarray) -> Tensor:
    """Exact sides, PIL's bicubic pixels."""
    size = published_size(picture.shape[1], picture.shape[0], SHORT_SIDE)
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    return normalised(model, np.array(resized))


def exact_rounded_statistics(model: FrozenCLIP, picture: np.ndarray) -> Tensor:
    """The published way, mean and standard deviation with three decimals as there."""
    mean, std = ([value / 255 for value in values] for values in (ROUNDED_MEAN, ROUNDED_STD))
    values = torch.from_numpy(resize_as_published(picture)).permute(2, 0, 1)
    return normalise(values, mean, std)


POINTS = (
    Point(
        "size, 500 x 333 for example",
        "505 x 336",
        "512 x 336, rounded to the patch",
        "published",
        (exact, rounded_bilinear),
    ),
    Point(
        "interpolation",
        "bilinear, no antialiasing",
        "bicubic with antialiasing",
        "published",
        (exact, exact_bicubic),
    ),
    Point(
        "both of these",
        "505 x 336, bilinear",
        "512 x 336, bicubic",
        "published",
        (exact, rounded_bicubic),
    ),
    Point(
        "mean and deviation of colours",
        "three decimals of grey levels",
        "as the model has them",
        "other",
        (exact_rounded_statistics, exact),
    ),
    Point("precision", "16 bits", "32 bits", "other", (exact, exact), ("fp16", "fp32")),
    Point(
        "positions, a whole square picture",
        "scale (size + 0.1) / trained size",
        "scale size / trained size",
        "published",
        (exact, exact),
        ("fp32", "exact positions"),
        SQUARE,
        0,
    ),
)


def scenes_of(sizes: Sequence[tuple[int, int]], count: int, seed: int) -> list[list[np.ndarray]]:
    """`count` pairs of picture and labels: test scenes, cut to the sizes in turn."""
    pairs = []
    for i in range(count):
        width, height = sizes[i % len(sizes)]
        side = max(width, height)
        scene = evaluation_scene(TEST, seed, i, side=side)
        top, left = (side - height) // 2, (side - width) // 2
        parts = (scene.image, scene.labels)
        pairs.append([part[top : top + height, left : left + width] for part in parts])
    return pairs


def measure(count: int = 64, seed: int = 2) -> pd.DataFrame:
    """Agreement of label maps and mIoU of every point, published and otherwise.

    Takes the number of scenes for each point and their seed. The bundled model and the published
    SC-CLIP are used, all 56 words, no threshold. Returns the columns point, published, other, here,
    agreement (share of equal labels), mIoU as published, mIoU otherwise, and scenes.
    """
    model = load_clip("mini")
    segmenters = {
        "fp32": make_method(METHOD, model),
        "fp16": make_method(METHOD, load_clip("mini", precision="fp16")),
        "exact positions": make_method(METHOD, model, position_offset=0.0),
    }
    rows = []
    for point in tqdm(POINTS, desc="points"):
        pairs = scenes_of(point.sizes, count, seed)
        maps = []
        for prepare, name in zip(point.prepare, point.methods, strict=True):
            maps.append(_label_maps(segmenters[name], prepare, pairs, point.window))
        equal = sum(np.count_nonzero(a == b) for a, b in zip(*maps, strict=True))
        total = sum(labels.size for _, labels in pairs)
        scores = [_mean_iou(found, pairs) for found in maps]
        told = (point.name, point.published, point.other, point.here)
        rows.append((*told, equal / total, *scores, count))
    columns = ["point", "published", "other", "here", "agreement"]
    columns += ["mIoU as published", "mIoU otherwise", "scenes"]
    return pd.DataFrame(rows, columns=columns)


def _label_maps(
    segmenter: DenseCLIP, prepare: Prepare, pairs: list[list[np.ndarray]], window: int
) -> list[np.ndarray]:
    """The label maps [H, W] of pictures that are prepared in one way."""
    protocol = Protocol(short_side=SHORT_SIDE, window=window, templates=segmenter.config.templates)
    data = replace(open_dataset("scenes", count=1), protocol=protocol)
    found = []
    for picture, labels in pairs:
        image = prepare(segmenter.model, picture)
        found += [m.numpy() for m in label_maps(segmenter, [image], [labels.shape], data)]
    return found


def _mean_iou(maps: list[np.ndarray], pairs: list[list[np.ndarray]]) -> float:
    """mIoU over all scenes."""
    counts = [
        count_classes(torch.from_numpy(found), torch.from_numpy(labels), 56)
        for found, (_, labels) in zip(maps, pairs, strict=True)
    ]
    return float(mean_iou(np.sum(counts, 0)))


def main() -> None:
    """Measure all points and store the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64, help="scenes (%(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of the scenes (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="(%(default)s)")
    args = parser.parse_args()
    require_writable("--out", args.out)
    table = measure(args.count, args.seed)
    save_table(table, "protocol", args.out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
