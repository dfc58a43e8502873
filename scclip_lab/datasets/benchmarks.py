"""Data sets by name: the eight public benchmarks, and the emoji scenes, under one interface.

Each has the names of its classes (`data/queries`), the protocol of the published code, and a
function that reads its folders (`folders`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scclip_core.config import imagenet_templates
from scclip_core.files import DATA
from scclip_lab.datasets.folders import (
    STUFF,
    Pair,
    Samples,
    coco_stuff_labels,
    drop_background,
    keep_labels,
    read_ade20k,
    read_cityscapes,
    read_coco_maps,
    read_coco_object,
    read_context,
    read_voc,
)
from scclip_lab.datasets.protocol import Protocol
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, evaluation_scene

TEMPLATES = imagenet_templates()


@dataclass(frozen=True)
class Benchmark:
    """What is known of a public benchmark before it is opened.

    Attributes:
        class_files: files of `data/queries` whose lines are the classes, in the order of labels.
        protocol: sizes, scale and thresholds.
        tree: the files that its root folder holds, one line for each kind.
        read_root: root folder -> samples.
        has_background: whether class 0 is the background.
    """

    class_files: tuple[str, ...]
    protocol: Protocol
    tree: tuple[str, ...]
    read_root: Callable[[Path], Samples]
    has_background: bool = False

    def classes(self) -> list[tuple[str, ...]]:
        """The names of every class."""
        return [names for file in self.class_files for names in read_class_names(file)]


@dataclass(frozen=True)
class SegmentationDataset:
    """A data set that is ready to be read.

    Attributes:
        name: one of `DATASETS`.
        samples: its images with label maps.
        classes: the names of every class.
        protocol: sizes, scale and thresholds.
        background: the classes that are background; empty where the data set knows none.
    """

    name: str
    samples: Samples
    classes: list[tuple[str, ...]]
    protocol: Protocol
    background: tuple[int, ...] = ()

    def object_mask(self) -> np.ndarray:
        """Which classes are objects, bool [C]."""
        return ~np.isin(np.arange(len(self.classes)), self.background)


def read_class_names(file: str) -> list[tuple[str, ...]]:
    """The classes of `data/queries/FILE.txt`: one in each line, its names divided by commas."""
    lines = (DATA / "queries" / f"{file}.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(name.strip() for name in line.split(",")) for line in lines]


def read_scenes(style: str, count: int, seed: int) -> Samples:
    """Emoji scenes as a data set: `count` test scenes of a seed, drawn in a style."""

    def read(i: int) -> Pair:
        scene = evaluation_scene(TEST, seed, i, style)
        return Image.fromarray(scene.image), scene.labels

    return Samples([f"scene_{i:05d}" for i in range(count)], read)


VOC_TREE = (
    "VOCdevkit/VOC2012/JPEGImages/NAME.jpg",
    "VOCdevkit/VOC2012/SegmentationClass/NAME.png",
    "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
)
CONTEXT_TREE = (
    "VOCdevkit/VOC2010/JPEGImages/NAME.jpg",
    "VOCdevkit/VOC2010/SegmentationClassContext/NAME.png",
    "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt",
)
COCO_OBJECT_TREE = (
    "val2017/NAME.jpg",
    f"{STUFF}/NAME.png, or annotations/instances_val2017.json",
)
COCO_STUFF_TREE = ("val2017/NAME.jpg", f"{STUFF}/NAME.png")
CITYSCAPES_TREE = (
    "leftImg8bit/val/CITY/NAME_leftImg8bit.png",
    "gtFine/val/CITY/NAME_gtFine_labelIds.png",
)
ADE20K_TREE = (
    "ADEChallengeData2016/images/validation/NAME.jpg",
    "ADEChallengeData2016/annotations/validation/NAME.png",
)
DEFAULT = Protocol(templates=TEMPLATES)
BENCHMARKS = {
    "voc21": Benchmark(
        class_files=("background_stuff", "voc20"),
        protocol=Protocol(
            logit_scale=50, probability_threshold=0.15, area_threshold=0.1, templates=TEMPLATES
        ),
        tree=VOC_TREE,
        read_root=lambda root: read_voc(root, keep_labels),
        has_background=True,
    ),
    "voc20": Benchmark(
        class_files=("voc20",),
        protocol=DEFAULT,
        tree=VOC_TREE,
        read_root=lambda root: read_voc(root, drop_background),
    ),
    "context60": Benchmark(
        class_files=("background", "context59"),
        protocol=Protocol(probability_threshold=0.15, templates=TEMPLATES),
        tree=CONTEXT_TREE,
        read_root=lambda root: read_context(root, keep_labels),
        has_background=True,
    ),
    "context59": Benchmark(
        class_files=("context59",),
        protocol=DEFAULT,
        tree=CONTEXT_TREE,
        read_root=lambda root: read_context(root, drop_background),
    ),
    "coco-object": Benchmark(
        class_files=("background_stuff", "coco_objects"),
        protocol=Protocol(logit_scale=55, probability_threshold=0.35, templates=TEMPLATES),
        tree=COCO_OBJECT_TREE,
        read_root=read_coco_object,
        has_background=True,
    ),
    "coco-stuff": Benchmark(
        class_files=("coco_stuff",),
        protocol=DEFAULT,
        tree=COCO_STUFF_TREE,
        read_root=lambda root: read_coco_maps(root, coco_stuff_labels()),
    ),
    "cityscapes": Benchmark(
        class_files=("cityscapes",),
        protocol=Protocol(short_side=560, templates=TEMPLATES),
        tree=CITYSCAPES_TREE,
        read_root=read_cityscapes,
    ),
    "ade20k": Benchmark(
        class_files=("ade20k",), protocol=DEFAULT, tree=ADE20K_TREE, read_root=read_ade20k
    ),
}
# The bundled data sets, and the drawing style of each.
SCENES = {"scenes": "training", "scenes-held-out": "held-out"}
DATASETS = (*SCENES, *BENCHMARKS)


def open_dataset(
    name: str, root: Path | None = None, count: int | None = None, seed: int = 2
) -> SegmentationDataset:
    """A data set by name.

    Args:
        name: one of `DATASETS`.
        root: folder that holds a public data set.
        count: number of images: the first ones of a public data set (default: all), or so many
            emoji scenes (default: 500).
        seed: of the emoji scenes.

    Raises ValueError for an unknown name, a root without the expected folders (which the message
    shows), or no images.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1 image, got {count}")
    if name in SCENES:
        return SegmentationDataset(
            name=name,
            samples=read_scenes(SCENES[name], 500 if count is None else count, seed),
            classes=[(word,) for word in WORDS],
            protocol=Protocol(short_side=None, stride=224),
            background=tuple(range(N_OBJECTS, len(WORDS))),
        )
    benchmark = BENCHMARKS[name]
    samples = benchmark.read_root(_check_root(name, root, benchmark.tree))
    if not len(samples):
        tree = _format_tree(benchmark.tree)
        raise ValueError(f"root must hold images of {name}, {root} has none\n{tree}")
    return SegmentationDataset(
        name=name,
        samples=Samples(samples.names[:count], samples.read),
        classes=benchmark.classes(),
        protocol=benchmark.protocol,
        background=(0,) if benchmark.has_background else (),
    )


def _check_root(name: str, root: Path | None, tree: tuple[str, ...]) -> Path:
    """The root, where every line of the tree exists up to its first placeholder.

    Of a line with alternatives, one is enough. Raises ValueError otherwise.
    """
    wanted = f"root must be the folder that holds {name}"
    expected = f"expected under it:\n{_format_tree(tree)}"
    if root is None:
        raise ValueError(f"{wanted}, none given; {expected}")
    for line in tree:
        paths = [part.partition("NAME")[0].partition("CITY")[0] for part in line.split(", or ")]
        if not any((root / path).exists() for path in paths):
            raise ValueError(f"{wanted}, {root} has no {' or '.join(paths)}; {expected}")
    return root


def _format_tree(tree: tuple[str, ...]) -> str:
    return "\n".join(f"  {line}" for line in tree)
