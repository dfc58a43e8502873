"""The words of the public benchmarks: which names stand for each class.

The names decide more than the method does. `data/queries/published` has the lists of the published
code, the same in SC-CLIP, SCLIP and NACLIP; `data/queries/own` has this project's.
"""

from pathlib import Path

from scclip_core.files import DATA

CHOICES = ("published", "own")
# The files of `data/queries/own` whose lines are the classes of a benchmark.
OWN = {
    "voc21": ("background_stuff", "voc20"),
    "voc20": ("voc20",),
    "context60": ("background", "context59"),
    "context59": ("context59",),
    "coco-object": ("background_stuff", "coco_objects"),
    "coco-stuff": ("coco_stuff",),
    "cityscapes": ("cityscapes",),
    "ade20k": ("ade20k",),
}


def read_names(path: Path) -> list[tuple[str, ...]]:
    """The classes of a file: one in each line, its names divided by commas.

    Raises ValueError where the file cannot be read, or a name is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"words must be a file that can be read, {path} is not ({error})"
        ) from error
    classes = [tuple(name.strip() for name in line.split(",")) for line in lines]
    for number, names in enumerate(classes, 1):
        if "" in names:
            raise ValueError(f"words must have no empty name, line {number} of {path} has one")
    return classes


def read_words(dataset: str, words: str) -> list[tuple[str, ...]]:
    """The names of every class of a benchmark, in the order of its labels.

    Args:
        dataset: name of a benchmark.
        words: "published", "own", or the path of a file as `read_names` takes it.

    Raises ValueError for a file that has another number of classes, or that `read_names` refuses.
    """
    published = read_names(DATA / "queries" / "published" / f"{dataset}.txt")
    if words == "published":
        return published
    if words == "own":
        files = [DATA / "queries" / "own" / f"{file}.txt" for file in OWN[dataset]]
        return [names for file in files for names in read_names(file)]
    path = Path(words)
    if not path.is_file():
        raise ValueError(f"words must be {', '.join(CHOICES)}, or a file, got {words!r}")
    classes = read_names(path)
    if len(classes) != len(published):
        raise ValueError(
            f"words must have a line for each of the {len(published)} classes of {dataset}, "
            f"{path} has {len(classes)}"
        )
    return classes
