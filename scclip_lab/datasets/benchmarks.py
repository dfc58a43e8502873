"""Data sets by name: the eight public benchmarks, and the emoji scenes, under one interface.

Each has the names of its classes (`words`), the protocol of a published evaluation (`protocols`),
and functions that read its folders (`folders`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from scclip_lab.datasets.folders import (
    Pair,
    Samples,
    cityscapes_labels,
    coco_object_labels,
    coco_stuff_labels,
    drop_background,
    keep_labels,
    read_ade20k,
    read_cityscapes,
    read_coco_instances,
    read_coco_maps,
    read_context,
    read_voc,
    relabel,
)
from scclip_lab.datasets.protocol import Protocol
from scclip_lab.datasets.protocols import change_protocol, find_protocol
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, evaluation_scene
from scclip_lab.datasets.words import read_words


class Layout(NamedTuple):
    """Folders in which a benchmark can lie.

    Attributes:
        tree: the files under the root, one line for each kind.
        read_root: root folder -> samples.
    """

    tree: tuple[str, ...]
    read_root: Callable[[Path], Samples]


@dataclass(frozen=True)
class Benchmark:
    """What is known of a public benchmark before it is opened.

    Attributes:
        layouts: the folders in which it can lie; the first that is there is read.
        subfolder: where mmsegmentation's data folder holds it, which can be the root as well.
        has_background: whether class 0 is the background.
    """

    layouts: tuple[Layout, ...]
    subfolder: str = ""
    has_background: bool = False

    def find(self, root: Path) -> tuple[Layout, Path] | None:
        """The layout that lies under a root or its subfolder, and that folder; None without one."""
        for folder in dict.fromkeys((root, root / self.subfolder)):
            for layout in self.layouts:
                if not missing_files(folder, layout.tree):
                    return layout, folder
        return None


@dataclass(frozen=True)
class SegmentationDataset:
    """A data set that is ready to be read.

    Attributes:
        name: one of `DATASETS`.
        samples: its images with label maps.
        classes: the names of every class.
        protocol: sizes, scale and thresholds.
        words: where the names of the classes come from.
        background: the classes that are background; empty where the data set knows none.
    """

    name: str
    samples: Samples
    classes: list[tuple[str, ...]]
    protocol: Protocol
    words: str
    background: tuple[int, ...] = ()

    def object_mask(self) -> np.ndarray:
        """Which classes are objects, bool [C]."""
        return ~np.isin(np.arange(len(self.classes)), self.background)


def read_scenes(style: str, count: int, seed: int) -> Samples:
    """Emoji scenes as a data set: `count` test scenes of a seed, drawn in a style."""

    def read(i: int) -> Pair:
        scene = evaluation_scene(TEST, seed, i, style)
        return Image.fromarray(scene.image), scene.labels

    return Samples([f"scene_{i:05d}" for i in range(count)], read)


def coco_map_layout(images: str, maps: str, ending: str, labels: dict[int, int]) -> Layout:
    """The layout of pixel maps of COCO, in folders given from the root.

    `ending` is what the name of a label map has behind the name of its image; `labels` are those
    of the values in the files, empty where the values are the labels.
    """
    change = partial(relabel, labels=labels) if labels else keep_labels
    return Layout(
        (f"{images}/NAME.jpg", f"{maps}/NAME{ending}"),
        lambda root: read_coco_maps(root / images, root / maps, ending, change),
    )


def cityscapes_layout(ending: str, labels: dict[int, int]) -> Layout:
    """The layout of Cityscapes with one of its kinds of label maps; see `coco_map_layout`."""
    change = partial(relabel, labels=labels) if labels else keep_labels
    tree = (
        "leftImg8bit/val/CITY/NAME_leftImg8bit.png",
        f"gtFine/val/CITY/NAME_gtFine{ending}",
    )
    return Layout(tree, lambda root: read_cityscapes(root, ending, change))


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
ADE20K_TREE = (
    "ADEChallengeData2016/images/validation/NAME.jpg",
    "ADEChallengeData2016/annotations/validation/NAME.png",
)
INSTANCES_TREE = ("val2017/NAME.jpg", "annotations/instances_val2017.json")
# The folders that mmsegmentation expects, and those that COCO itself has.
CONVERTED = ("images/val2017", "annotations/val2017")
ORIGINAL = ("val2017", "stuffthingmaps/val2017")
BENCHMARKS = {
    "voc21": Benchmark(
        layouts=(Layout(VOC_TREE, lambda root: read_voc(root, keep_labels)),),
        has_background=True,
    ),
    "voc20": Benchmark(layouts=(Layout(VOC_TREE, lambda root: read_voc(root, drop_background)),)),
    "context60": Benchmark(
        layouts=(Layout(CONTEXT_TREE, lambda root: read_context(root, keep_labels)),),
        has_background=True,
    ),
    "context59": Benchmark(
        layouts=(Layout(CONTEXT_TREE, lambda root: read_context(root, drop_background)),)
    ),
    "coco-object": Benchmark(
        layouts=(
            coco_map_layout(*CONVERTED, "_instanceTrainIds.png", {}),
            coco_map_layout(*ORIGINAL, ".png", coco_object_labels()),
            Layout(INSTANCES_TREE, read_coco_instances),
        ),
        subfolder="coco_object",
        has_background=True,
    ),
    "coco-stuff": Benchmark(
        layouts=(
            coco_map_layout(*CONVERTED, "_labelTrainIds.png", {}),
            coco_map_layout(*ORIGINAL, ".png", coco_stuff_labels()),
        ),
        subfolder="coco_stuff164k",
    ),
    "cityscapes": Benchmark(
        layouts=(
            cityscapes_layout("_labelTrainIds.png", {}),
            cityscapes_layout("_labelIds.png", cityscapes_labels()),
        ),
        subfolder="cityscapes",
    ),
    "ade20k": Benchmark(layouts=(Layout(ADE20K_TREE, read_ade20k),), subfolder="ade"),
}
# The bundled data sets, and the drawing style of each.
SCENES = {"scenes": "training", "scenes-held-out": "held-out"}
DATASETS = (*SCENES, *BENCHMARKS)


def open_dataset(
    name: str,
    root: Path | None = None,
    count: int | None = None,
    seed: int = 2,
    protocol: str | None = None,
    words: str | None = None,
    **changes: float | None,
) -> SegmentationDataset:
    """A data set by name.

    Args:
        name: one of `DATASETS`.
        root: folder that holds a public data set.
        count: number of images: the first ones of a public data set (default: all), or so many
            emoji scenes (default: 500).
        seed: of the emoji scenes.
        protocol: of which published method, as in `find_protocol` (default: scclip).
        words: as in `read_words` (default: published).
        changes: single values of the protocol that shall differ, as in `change_protocol`.

    Emoji scenes have words and a protocol of their own. Raises ValueError for an unknown name, a
    root without the expected folders (which the message shows), no images, and what the functions
    above refuse.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1 image, got {count}")
    if name in SCENES:
        for argument, value in (("protocol", protocol), ("words", words)):
            if value is not None:
                raise ValueError(f"{argument} must not be given for {name}, got {value!r}")
        own = Protocol(name="scenes", short_side=None, stride=224)
        return SegmentationDataset(
            name=name,
            samples=read_scenes(SCENES[name], 500 if count is None else count, seed),
            classes=[(word,) for word in WORDS],
            protocol=change_protocol(own, changes),
            words="scenes",
            background=tuple(range(N_OBJECTS, len(WORDS))),
        )
    benchmark, words = BENCHMARKS[name], words or "published"
    chosen = change_protocol(find_protocol(protocol or "scclip", name), changes)
    classes = read_words(name, words)
    found = None if root is None else benchmark.find(root)
    if found is None:
        raise ValueError(_missing_message(name, root, benchmark))
    layout, folder = found
    samples = layout.read_root(folder)
    if not len(samples):
        raise ValueError(
            f"root must hold images of {name}, {root} has none\n{_format_tree(layout)}"
        )
    return SegmentationDataset(
        name=name,
        samples=Samples(samples.names[:count], samples.read),
        classes=classes,
        protocol=chosen,
        words=words,
        background=(0,) if benchmark.has_background else (),
    )


def missing_files(folder: Path, tree: tuple[str, ...]) -> list[str]:
    """The lines of a tree for which a folder has no file, with any NAME and CITY."""
    patterns = {line: line.replace("NAME", "*").replace("CITY", "*") for line in tree}
    return [line for line, pattern in patterns.items() if not any(folder.glob(pattern))]


def _missing_message(name: str, root: Path | None, benchmark: Benchmark) -> str:
    """What to say where no layout of a benchmark is found: what lacks, and what there can be."""
    given = "none given"
    if root is not None:
        lacking = [missing_files(root, layout.tree) for layout in benchmark.layouts]
        given = f"{root} has no {min(lacking, key=len)[0]}"
    trees = "\nor:\n".join(map(_format_tree, benchmark.layouts))
    return f"root must be the folder that holds {name}, {given}; expected under it:\n{trees}"


def _format_tree(layout: Layout) -> str:
    return "\n".join(f"  {line}" for line in layout.tree)
