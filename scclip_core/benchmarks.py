"""The eight public benchmarks in their standard layouts, and the emoji scenes, as pictures with label maps.

Each has its words (`data/queries`), its protocol (the published code's), and a reader of its folder tree.
"""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scclip_core.config import SCCLIPConfig
from scclip_core.files import DATA
from scclip_core.pictures import open_picture
from scclip_core.scenes import TEST, WORDS, evaluation_scene
from scclip_core.segmentation import Protocol

IGNORE = 255
STUFF = "stuffthingmaps/val2017"
TEMPLATES = SCCLIPConfig.reference().templates
Pair = tuple[Image.Image, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Named pictures with label maps: `read(i)` gives RGB and labels uint8 [H, W], `IGNORE` where none
    counts.
    """

    names: list[str]
    read: Callable[[int], Pair]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Benchmark:
    """Words (files of `data/queries`, in the order of the labels), protocol, the tree under the root, and
    what opens it.
    """

    words: tuple[str, ...]
    protocol: Protocol
    tree: tuple[str, ...]
    open: Callable[[Path], Samples]

    def classes(self) -> list[tuple[str, ...]]:
        """The names of every class."""
        return [names for file in self.words for names in read_words(file)]


def read_words(file: str) -> list[tuple[str, ...]]:
    """The classes of `data/queries/FILE.txt`: one a line, its names divided by commas."""
    lines = (DATA / "queries" / f"{file}.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(name.strip() for name in line.split(",")) for line in lines]


def read_labels(path: Path) -> np.ndarray:
    """The values of a label picture, [H, W]: indices of a palette, or grey levels."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "I", "I;16"):
                raise ValueError(f"{path} must be a palette or grey picture of labels, got mode {image.mode}")
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not a label picture that can be read ({error})") from error


def renumber(values: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """Labels by what each value stands for; what the table does not have is ignored."""
    lookup = np.full(65536, IGNORE, np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[values.astype(np.int64) & 0xFFFF]


def without_first(values: np.ndarray) -> np.ndarray:
    """Label 0 ignored, the others one less: what a benchmark without a background does."""
    return renumber(values, {i: i - 1 for i in range(1, 255)})


def _pairs(pictures: list[Path], labels: list[Path], change: Callable[[np.ndarray], np.ndarray]) -> Samples:
    def read(i: int) -> Pair:
        return open_picture(pictures[i]), change(read_labels(labels[i])).astype(np.uint8)

    return Samples([path.stem for path in pictures], read)


def _listed(root: Path, base: str, list_file: str, labels: str, change: Callable) -> Samples:
    names = (root / base / list_file).read_text(encoding="utf-8").split()
    pictures = [root / base / "JPEGImages" / f"{name}.jpg" for name in names]
    return _pairs(pictures, [root / base / labels / f"{name}.png" for name in names], change)


def _voc(root: Path, change: Callable) -> Samples:
    from torchvision.datasets import VOCSegmentation

    found = VOCSegmentation(str(root), year="2012", image_set="val")
    return _pairs([Path(p) for p in found.images], [Path(p) for p in found.masks], change)


def _context(root: Path, change: Callable) -> Samples:
    lists = "ImageSets/SegmentationContext/val.txt"
    return _listed(root, "VOCdevkit/VOC2010", lists, "SegmentationClassContext", change)


def _coco_object(root: Path) -> Samples:
    """COCO-Stuff's maps with all stuff as background, as the published conversion has them; without them,
    instances.
    """
    if not (root / STUFF).is_dir():
        return _coco_instances(root)
    numbers = {v: i + 1 if i < 80 else 0 for v, i in coco_stuff_numbers().items()}
    return _coco_maps(root, numbers)


def _coco_instances(root: Path) -> Samples:
    """Instances painted into one map, larger ones first, so that small objects stay seen; 0 is background."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco = COCO(str(root / "annotations" / "instances_val2017.json"))
    number = {category: i + 1 for i, category in enumerate(sorted(coco.getCatIds()))}
    ids = sorted(coco.getImgIds())
    files = [root / "val2017" / coco.imgs[i]["file_name"] for i in ids]

    def read(i: int) -> Pair:
        labels = np.zeros((coco.imgs[ids[i]]["height"], coco.imgs[ids[i]]["width"]), np.uint8)
        for instance in sorted(coco.imgToAnns[ids[i]], key=lambda a: -a["area"]):
            labels[coco.annToMask(instance) > 0] = number[instance["category_id"]]
        return open_picture(files[i]), labels

    return Samples([path.stem for path in files], read)


def coco_stuff_numbers() -> dict[int, int]:
    """Values of COCO-Stuff's pixel maps -> labels 0..170; eleven thing numbers were never given to a
    picture.
    """
    missing = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    return {value: i for i, value in enumerate(v for v in range(182) if v not in missing)}


def _coco_maps(root: Path, numbers: dict[int, int]) -> Samples:
    pictures = sorted((root / "val2017").glob("*.jpg"))
    labels = [root / STUFF / f"{path.stem}.png" for path in pictures]
    return _pairs(pictures, labels, lambda values: renumber(values, numbers))


def _cityscapes(root: Path) -> Samples:
    from torchvision.datasets import Cityscapes

    found = Cityscapes(str(root), split="val", mode="fine", target_type="semantic")
    pairs = sorted((Path(p), Path(t[0])) for p, t in zip(found.images, found.targets, strict=True))
    numbers = {c.id: c.train_id for c in Cityscapes.classes if 0 <= c.train_id < IGNORE}
    return _pairs([p for p, _ in pairs], [t for _, t in pairs], lambda values: renumber(values, numbers))


def _ade20k(root: Path) -> Samples:
    base = root / "ADEChallengeData2016"
    pictures = sorted((base / "images" / "validation").glob("*.jpg"))
    labels = [base / "annotations" / "validation" / f"{path.stem}.png" for path in pictures]
    return _pairs(pictures, labels, without_first)


def scenes(style: str, count: int, seed: int) -> Samples:
    """Emoji scenes as a data set: `count` test scenes of a seed, drawn in a style."""

    def read(i: int) -> Pair:
        scene = evaluation_scene(TEST, seed, i, style)
        return Image.fromarray(scene.image), scene.labels

    return Samples([f"scene_{i:05d}" for i in range(count)], read)


def _same(values: np.ndarray) -> np.ndarray:
    return values


VOC = (
    "VOCdevkit/VOC2012/JPEGImages/NAME.jpg",
    "VOCdevkit/VOC2012/SegmentationClass/NAME.png",
    "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
)
CONTEXT = (
    "VOCdevkit/VOC2010/JPEGImages/NAME.jpg",
    "VOCdevkit/VOC2010/SegmentationClassContext/NAME.png",
    "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt",
)
PLAIN = Protocol(templates=TEMPLATES)
BENCHMARKS = {
    "voc21": Benchmark(
        ("background_stuff", "voc20"),
        Protocol(logit_scale=50, probability_threshold=0.15, area_threshold=0.1, templates=TEMPLATES),
        VOC,
        lambda root: _voc(root, _same),
    ),
    "voc20": Benchmark(("voc20",), PLAIN, VOC, lambda root: _voc(root, without_first)),
    "context60": Benchmark(
        ("background", "context59"),
        Protocol(probability_threshold=0.15, templates=TEMPLATES),
        CONTEXT,
        lambda root: _context(root, _same),
    ),
    "context59": Benchmark(("context59",), PLAIN, CONTEXT, lambda root: _context(root, without_first)),
    "coco-object": Benchmark(
        ("background_stuff", "coco_objects"),
        Protocol(logit_scale=55, probability_threshold=0.35, templates=TEMPLATES),
        ("val2017/NAME.jpg", f"{STUFF}/NAME.png, or annotations/instances_val2017.json"),
        _coco_object,
    ),
    "coco-stuff": Benchmark(
        ("coco_stuff",),
        PLAIN,
        ("val2017/NAME.jpg", f"{STUFF}/NAME.png"),
        lambda root: _coco_maps(root, coco_stuff_numbers()),
    ),
    "cityscapes": Benchmark(
        ("cityscapes",),
        Protocol(short_side=560, templates=TEMPLATES),
        ("leftImg8bit/val/CITY/NAME_leftImg8bit.png", "gtFine/val/CITY/NAME_gtFine_labelIds.png"),
        _cityscapes,
    ),
    "ade20k": Benchmark(
        ("ade20k",),
        PLAIN,
        (
            "ADEChallengeData2016/images/validation/NAME.jpg",
            "ADEChallengeData2016/annotations/validation/NAME.png",
        ),
        _ade20k,
    ),
}
SCENES = {"scenes": "training", "scenes-held-out": "held-out"}  # the bundled data sets, and their styles
DATASETS = (*SCENES, *BENCHMARKS)


@dataclass(frozen=True)
class Opened:
    """A data set ready to be read: its name, samples, the names of every class, and the protocol."""

    name: str
    samples: Samples
    classes: list[tuple[str, ...]]
    protocol: Protocol


def open_dataset(name: str, root: Path | None = None, count: int | None = None, seed: int = 2) -> Opened:
    """A data set by name.

    `root` is the folder that holds a public one; `count` are its first pictures only (default: all), or the
    number of emoji scenes (default: 500), which `seed` draws. Raises ValueError for an unknown name, a root
    without the expected tree (which the message shows), or no pictures.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1 picture, got {count}")
    if name in SCENES:
        samples = scenes(SCENES[name], 500 if count is None else count, seed)
        return Opened(name, samples, [(word,) for word in WORDS], Protocol(short_side=None, stride=224))
    benchmark = BENCHMARKS[name]
    samples = benchmark.open(_checked(name, root, benchmark.tree))
    if not len(samples):
        raise ValueError(f"root must hold pictures of {name}, {root} has none\n{_shown(benchmark.tree)}")
    samples = Samples(samples.names[:count], samples.read)
    return Opened(name, samples, benchmark.classes(), benchmark.protocol)


def _checked(name: str, root: Path | None, tree: tuple[str, ...]) -> Path:
    """The root, if every line of the tree (one of its ways, where there are two) is there up to its first
    placeholder.
    """
    for line in tree:
        ways = [way.partition("NAME")[0].partition("CITY")[0] for way in line.split(", or ")]
        if root is None or not any((root / way).exists() for way in ways):
            given = "none given" if root is None else f"{root} has no {' or '.join(ways)}"
            raise ValueError(
                f"root must be the folder that holds {name}, {given}; expected under it:\n{_shown(tree)}"
            )
    return root


def _shown(tree: tuple[str, ...]) -> str:
    return "\n".join(f"  {line}" for line in tree)
