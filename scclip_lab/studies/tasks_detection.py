"""Detection from label maps: connected components as boxes, and average precision."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from scclip_core.clip import FrozenCLIP
from scclip_lab.datasets.clips import Clip, choose_words, generator, make_still
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS
from scclip_lab.evaluation.metrics import QUANTILES, resample
from scclip_lab.studies.tasks_common import (
    COLUMNS,
    as_input,
    base_of,
    name_pixels,
    read_all,
    word_readers,
)

# Components with fewer pixels are no boxes: one patch has as many. Fixed beforehand.
LEAST = 256
# Objects of which fewer pixels are seen are not asked for.
SEEN = 64
THRESHOLDS = (0.5, 0.75)
# Boxes of the true label map: what the components alone cost.
TRUTH = "true labels"


class Box(NamedTuple):
    """An upright box around pixels: its word's number, its score, its edges in pixels."""

    word: int
    score: float
    top: int
    left: int
    height: int
    width: int


class Matches(NamedTuple):
    """Boxes of every word, the highest score first, filled up to the longest list (P places).

    image: int [C, P], the picture of each box. hits: bool [thresholds, C, P], whether it met a
    true box. valid: bool [C, P]. positives: int [C, I], true boxes of each picture.
    """

    image: np.ndarray
    hits: np.ndarray
    valid: np.ndarray
    positives: np.ndarray


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    shared = max(height, 0) * max(width, 0)
    return shared / (a.height * a.width + b.height * b.width - shared)


def find_boxes(labels: np.ndarray, logits: np.ndarray, least: int = LEAST) -> list[Box]:
    """A box around every connected component of every object word, scored by its mean logit.

    Takes the label of every pixel and that label's logit, [H, W] each. Pixels are connected by
    their sides; components of fewer than `least` pixels are left out.
    """
    boxes = []
    for word in np.unique(labels[labels < N_OBJECTS]).tolist():
        parts, count = ndimage.label(labels == word)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        scores = np.atleast_1d(ndimage.mean(logits, parts, np.arange(1, count + 1)))
        for number, (rows, cols) in enumerate(ndimage.find_objects(parts), 1):
            if sizes[number] >= least:
                extent = (rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
                boxes.append(Box(word, float(scores[number - 1]), *extent))
    return boxes


def true_boxes(still: Clip) -> list[Box]:
    """The boxes of all objects of a picture of which at least `SEEN` pixels are seen."""
    boxes = []
    for number, word in enumerate(still.words, 1):
        rows, cols = np.nonzero(still.instances[0] == number)
        if len(rows) >= SEEN:
            extent = (int(rows.min()), int(cols.min()), int(np.ptp(rows)) + 1)
            boxes.append(Box(WORDS.index(word), 1.0, *extent, int(np.ptp(cols)) + 1))
    return boxes


def match_boxes(truth: Sequence[list[Box]], found: Sequence[list[Box]]) -> Matches:
    """Which boxes meet a true box of their word, by the rule of COCO (pycocotools).

    Both hold a list for every picture. Boxes are taken from the highest score on; each takes the
    best true box that is still free and overlaps it by the threshold.
    """
    from pycocotools.cocoeval import COCOeval

    # COCO prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(_as_coco(truth), _as_coco(found), "bbox")
        judge.params.iouThrs = np.array(THRESHOLDS)
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [100]
        judge.evaluate()
    pictures, words = len(truth), judge.params.catIds
    positives = np.zeros((len(words), pictures), int)
    lists: list[list[tuple[float, int, Any]]] = [[] for _ in words]
    for entry in filter(None, judge.evalImgs):
        place, image = words.index(entry["category_id"]), entry["image_id"]
        positives[place, image] = len(entry["gtIds"])
        hits = np.asarray(entry["dtMatches"]) > 0  # [thresholds, boxes]
        scores = zip(entry["dtScores"], hits.T, strict=True)
        lists[place] += [(score, image, hit) for score, hit in scores]
    longest = max(1, *map(len, lists))
    image, valid = np.zeros((2, len(words), longest), int)
    hits = np.zeros((len(THRESHOLDS), len(words), longest), bool)
    for place, boxes in enumerate(lists):
        for rank, (_, picture, hit) in enumerate(sorted(boxes, key=lambda box: -box[0])):
            image[place, rank], valid[place, rank], hits[:, place, rank] = picture, 1, hit
    return Matches(image, hits, valid.astype(bool), positives)


def _as_coco(boxes: Sequence[list[Box]]) -> Any:
    """Boxes of every picture as pycocotools takes them."""
    from pycocotools.coco import COCO

    flat = [(image, box) for image, found in enumerate(boxes) for box in found]
    data = COCO()
    data.dataset = {
        "images": [{"id": image} for image in range(len(boxes))],
        "categories": [{"id": word} for word in range(N_OBJECTS)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": box.word,
                "bbox": [box.left, box.top, box.width, box.height],
                "area": box.width * box.height,
                "iscrowd": 0,
                "score": box.score,
            }
            for number, (image, box) in enumerate(flat, 1)
        ],
    }
    data.createIndex()
    return data


def average_precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Mean AP over words at every threshold, for pictures counted `weights` times.

    AP is the mean, over 101 recalls from 0 to 1, of the best precision at that recall or above, as
    COCO has it. Takes weights [..., I], which a bootstrap draws (all 1: the pictures as they are);
    returns [..., thresholds]. Words without a true box are left out; NaN where none has one.
    """
    counted = weights[..., matches.image] * matches.valid  # [..., C, P]
    wanted = weights @ matches.positives.T  # [..., C]
    scores = []
    for hits in matches.hits:
        right = (counted * hits).cumsum(-1)
        precision = right / (counted.cumsum(-1) + np.spacing(1))
        best = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
        recall = right / np.maximum(wanted, 1)[..., None]
        # How many of the 101 recalls are reached with each box, and so with this box first.
        reached = np.searchsorted(np.linspace(0, 1, 101), recall, side="right")
        new = np.diff(reached, axis=-1, prepend=0)
        scores.append((best * new).sum(-1) / 101)
    total = (np.stack(scores, -1) * (wanted > 0)[..., None]).sum(-2)  # [..., thresholds]
    words = (wanted > 0).sum(-1)[..., None]
    return np.divide(total, words, out=np.full(total.shape, np.nan), where=words > 0)


def scene(index: int, seed: int, style: str) -> Clip:
    """Test picture number `index`: two to four objects, two of the same word in every second."""
    rng = generator("stills", TEST, seed, 2 * index + list(STYLES).index(style))
    return make_still(rng, choose_words(rng, (2, 3, 4), 0.5), STYLES[style])


def find_all(
    model: FrozenCLIP, count: int, seed: int, style: str, modules: bool = False
) -> tuple[list[Clip], dict[str, list[list[Box]]]]:
    """The pictures, and the boxes that every method finds in each of them."""
    readers = word_readers(model, modules)
    stills = [scene(index, seed, style) for index in range(count)]
    found: dict[str, list[list[Box]]] = {name: [] for name in (TRUTH, *readers)}
    for still in stills:
        labels = still.labels[0]
        found[TRUTH].append(find_boxes(labels, np.ones_like(labels, float)))
        features = read_all(readers, as_input(model, still.images))
        for name, reader in readers.items():
            labels, logits = name_pixels(reader, features[name][0], len(labels))
            found[name].append(find_boxes(labels, logits))
    return stills, found


def measure_detection(model: FrozenCLIP, count: Mapping[str, int], seed: int = 7) -> pd.DataFrame:
    """AP50 and AP75 of every method, also on the pictures alone that show a word twice.

    `count` pictures of every style; the modules of SC-CLIP are switched off one by one in the
    training styles. Rows have the `COLUMNS` of all tasks.
    """
    rows: list[tuple[object, ...]] = []
    for style, pictures in count.items():
        stills, found = find_all(model, pictures, seed, style, modules=style == "training")
        twins = np.array([still.has_twins for still in stills], float)
        truth = [true_boxes(still) for still in stills]
        matches = {name: match_boxes(truth, boxes) for name, boxes in found.items()}
        parts = {"AP50": (np.ones(pictures), 0), "AP75": (np.ones(pictures), 1)}
        parts["AP50, a word twice"] = (twins, 0)
        for measure, (chosen, place) in parts.items():
            rows += _rows(measure, style, matches, chosen, place, seed)
    return pd.DataFrame(rows, columns=COLUMNS).assign(pictures=sum(count.values()), seed=seed)


def _rows(
    measure: str, style: str, matches: dict[str, Matches], chosen: np.ndarray, place: int, seed: int
) -> list[tuple[object, ...]]:
    """One measure of every method with its bootstrap interval, paired with its base."""
    values, draws = {}, {}
    for name, found in matches.items():

        def statistic(weights: np.ndarray, found: Matches = found) -> np.ndarray:
            return average_precision(found, weights * chosen)[..., place]

        values[name] = float(statistic(np.ones(len(chosen))))
        # A bootstrap of sums over rows of the identity draws how often each picture counts.
        draws[name] = resample(np.eye(len(chosen)), statistic, seed, draws=300)
    rows: list[tuple[object, ...]] = []
    for name in matches:
        base = base_of(name)
        low, high = np.nanquantile(draws[name], QUANTILES).tolist()
        gain = np.nanquantile(draws[name] - draws[base], QUANTILES).tolist()
        change = (values[name] - values[base], *gain)
        rows.append((measure, style, name, base, values[name], low, high, *change))
    return rows
