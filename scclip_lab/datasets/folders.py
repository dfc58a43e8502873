"""Reading the eight public benchmarks from their standard folders: images with label maps."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scclip_core.images import open_picture

# The label of pixels that count nowhere.
IGNORE = 255
# An image and its label map uint8 [H, W].
Pair = tuple[Image.Image, np.ndarray]
Relabel = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Named images with label maps, read one at a time.

    Attributes:
        names: of the images, without suffix.
        read: index -> RGB image and labels uint8 [H, W], `IGNORE` where a pixel does not count.
            It raises ValueError or OSError for files that are missing or cannot be read.
    """

    names: list[str]
    read: Callable[[int], Pair]

    def __len__(self) -> int:
        return len(self.names)


def read_labels(path: Path) -> np.ndarray:
    """The values of a label map's file, [H, W]: indices of a palette, or grey levels.

    Raises ValueError where the file is missing, cannot be read, or is a colour image.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "I", "I;16"):
                raise ValueError(
                    f"{path} must be a palette or grey image of labels, got mode {image.mode}"
                )
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not a label map that can be read ({error})") from error


def relabel(values: np.ndarray, labels: dict[int, int]) -> np.ndarray:
    """The label of every value, uint8; values that `labels` does not have become `IGNORE`."""
    lookup = np.full(65536, IGNORE, np.uint8)
    lookup[list(labels)] = list(labels.values())
    return lookup[values.astype(np.int64) & 0xFFFF]


def drop_background(values: np.ndarray) -> np.ndarray:
    """Label 0 ignored and the others one less, for benchmarks without a background."""
    return relabel(values, {i: i - 1 for i in range(1, 255)})


def keep_labels(values: np.ndarray) -> np.ndarray:
    """The values as they are."""
    return values


def pair_files(images: list[Path], labels: list[Path], change: Relabel) -> Samples:
    """Image files and label files in the same order, labels changed by a function."""

    def read(i: int) -> Pair:
        return open_picture(images[i]), change(read_labels(labels[i])).astype(np.uint8)

    return Samples([path.stem for path in images], read)


def read_voc(root: Path, change: Relabel) -> Samples:
    """PASCAL VOC 2012, validation."""
    from torchvision.datasets import VOCSegmentation

    found = VOCSegmentation(str(root), year="2012", image_set="val")
    return pair_files([Path(p) for p in found.images], [Path(p) for p in found.masks], change)


def read_context(root: Path, change: Relabel) -> Samples:
    """PASCAL Context, validation."""
    base = root / "VOCdevkit/VOC2010"
    names = (base / "ImageSets/SegmentationContext/val.txt").read_text(encoding="utf-8").split()
    images = [base / "JPEGImages" / f"{name}.jpg" for name in names]
    return pair_files(
        images, [base / "SegmentationClassContext" / f"{name}.png" for name in names], change
    )


def read_coco_instances(root: Path) -> Samples:
    """COCO instances painted into one map, larger ones first, so that small objects stay visible.

    Label 0 is background.
    """
    from pycocotools.coco import COCO

    # COCO prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(root / "annotations" / "instances_val2017.json"))
    label = {category: i + 1 for i, category in enumerate(sorted(coco.getCatIds()))}
    ids = sorted(coco.getImgIds())
    files = [root / "val2017" / coco.imgs[i]["file_name"] for i in ids]

    def read(i: int) -> Pair:
        image = coco.imgs[ids[i]]
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for instance in sorted(coco.imgToAnns[ids[i]], key=lambda a: -a["area"]):
            labels[coco.annToMask(instance) > 0] = label[instance["category_id"]]
        return open_picture(files[i]), labels

    return Samples([path.stem for path in files], read)


def coco_stuff_labels() -> dict[int, int]:
    """Pixel values of COCO-Stuff -> labels 0..170; eleven category numbers were never used."""
    unused = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    return {value: i for i, value in enumerate(v for v in range(182) if v not in unused)}


def coco_object_labels() -> dict[int, int]:
    """Pixel values of COCO-Stuff -> labels 0..80 of COCO-Object: stuff is background, label 0.

    So are unlabelled pixels (255), as in the maps that the published code makes.
    """
    things = {value: i + 1 if i < 80 else 0 for value, i in coco_stuff_labels().items()}
    return things | {IGNORE: 0}


def read_coco_maps(images: Path, maps: Path, ending: str, change: Relabel) -> Samples:
    """The pixel maps of COCO-Stuff or COCO-Object, validation.

    Takes the folder of the images NAME.jpg, that of the maps, whose files are called NAME and
    `ending`, and what changes their values.
    """
    found = sorted(images.glob("*.jpg"))
    return pair_files(found, [maps / f"{path.stem}{ending}" for path in found], change)


def read_cityscapes(root: Path, ending: str, change: Relabel) -> Samples:
    """Cityscapes, validation; label maps are called NAME_gtFine and `ending`."""
    images = sorted((root / "leftImg8bit/val").glob("*/*_leftImg8bit.png"))
    names = [path.name.removesuffix("_leftImg8bit.png") for path in images]
    folders = [root / "gtFine/val" / path.parent.name for path in images]
    maps = [f / f"{name}_gtFine{ending}" for f, name in zip(folders, names, strict=True)]
    return pair_files(images, maps, change)


def cityscapes_labels() -> dict[int, int]:
    """Pixel values of Cityscapes -> the 19 labels that are evaluated."""
    from torchvision.datasets import Cityscapes

    return {c.id: c.train_id for c in Cityscapes.classes if 0 <= c.train_id < IGNORE}


def read_ade20k(root: Path) -> Samples:
    """ADE20K, validation."""
    base = root / "ADEChallengeData2016"
    images = sorted((base / "images" / "validation").glob("*.jpg"))
    labels = [base / "annotations" / "validation" / f"{path.stem}.png" for path in images]
    return pair_files(images, labels, drop_background)
