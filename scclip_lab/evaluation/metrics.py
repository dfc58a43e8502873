"""How well label maps agree with the truth: IoU, shares of right pixels, bootstrap intervals.

Every score is a function of class counts, int64 [..., 3, C]: how many pixels of each class are
right, true and predicted. Class counts add up over images, in far less memory than confusion
matrices.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# A score of class counts, or of other numbers that add up over images: [..., 3, C] -> [...].
Statistic = Callable[[np.ndarray], np.ndarray]
# The names of what `interval_and_gain` returns.
GAINED = ("value", "low", "high", "gain", "gain_low", "gain_high")
# A 95 % interval lies between these quantiles.
QUANTILES = (0.025, 0.975)


def confusion_matrix(
    prediction: Tensor, truth: Tensor, n_classes: int, ignore: int = 255
) -> Tensor:
    """Pixels by true class (rows) and predicted class (columns), int64 [C, C].

    Args:
        prediction, truth: labels of one shape, integers in 0..n_classes - 1.
        n_classes: C.
        ignore: pixels with this true label are not counted.

    Raises ValueError for shapes that differ or labels out of range.
    """
    if prediction.shape != truth.shape:
        wanted, given = tuple(truth.shape), tuple(prediction.shape)
        raise ValueError(f"prediction must have the shape of truth, {wanted}, got {given}")
    ignored = truth == ignore
    true, predicted = (labels.long().masked_fill(ignored, 0) for labels in (truth, prediction))
    for name, labels in (("truth", true), ("prediction", predicted)):
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
            given_range = f"{int(labels.min())}..{int(labels.max())}"
            raise ValueError(f"{name} must be in 0..{n_classes - 1}, got {given_range}")
    # Ignored pixels are counted in a place of their own, which is left out.
    pairs = (true * n_classes + predicted).masked_fill_(ignored, n_classes**2).flatten()
    pairs = torch.bincount(pairs, minlength=n_classes**2 + 1)[:-1]
    return pairs.view(n_classes, n_classes)


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """Pixels of each class that are right, true and predicted, [..., C, C] -> int64 [..., 3, C]."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([right, confusion.sum(-1), confusion.sum(-2)], -2)


def count_classes(prediction: Tensor, truth: Tensor, n_classes: int) -> np.ndarray:
    """Class counts of one label map, int64 [3, C].

    True label 255 is not counted. Raises ValueError as `confusion_matrix` does.
    """
    return class_counts(confusion_matrix(prediction, truth, n_classes).numpy())


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of every class, [..., 3, C] -> [..., C].

    IoU = right / (true + predicted - right), NaN where a class is neither true nor predicted.
    """
    right, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    return _ratio(right, true + predicted - right)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU over the classes that are true anywhere, [..., 3, C] -> [...].

    On a whole benchmark these are all classes. Of a few images some are missing, and those must be
    the same for all methods: a class that is predicted and never true is therefore left out, where
    other implementations let it count as 0. Its pixels are missed by the classes that they are of.
    NaN where no class is true.
    """
    there = np.asarray(counts)[..., 1, :] > 0
    scores = np.where(there, iou_per_class(counts), 0)
    return _ratio(scores.sum(-1), there.sum(-1))


def pixel_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of all pixels that have the right label, [..., 3, C] -> [...]."""
    return counts[..., 0, :].sum(-1) / counts[..., 1, :].sum(-1)


def object_accuracy(counts: np.ndarray, objects: np.ndarray | int) -> np.ndarray:
    """Share of the object pixels that have the right label, [..., 3, C] -> [...].

    sum of right over the object classes / sum of true over the object classes

    Args:
        counts: class counts.
        objects: which classes are objects, bool [C], or a number n where these are 0..n - 1.

    It is NaN where no object pixel is true. Raises ValueError where `objects` fits no C classes.
    """
    return _share_right(counts, _object_mask(counts, objects))


def background_accuracy(counts: np.ndarray, objects: np.ndarray | int) -> np.ndarray:
    """Share of the background pixels that have the right label, [..., 3, C] -> [...].

    The background is every class that is no object; arguments, NaN and errors are those of
    `object_accuracy`.
    """
    return _share_right(counts, ~_object_mask(counts, objects))


def _object_mask(counts: np.ndarray, objects: np.ndarray | int) -> np.ndarray:
    classes = counts.shape[-1]
    if isinstance(objects, int | np.integer):
        if not 0 <= objects <= classes:
            raise ValueError(f"objects must be in 0..{classes}, the classes, got {objects}")
        return np.arange(classes) < objects
    if objects.shape != (classes,) or objects.dtype != bool:
        given = f"{objects.dtype} {list(objects.shape)}"
        raise ValueError(f"objects must be a number or bool [{classes}], got {given}")
    return objects


def _share_right(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    right, true = counts[..., 0, chosen].sum(-1), counts[..., 1, chosen].sum(-1)
    return _ratio(right.astype(np.float64), true)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where `below` is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def resample(
    per_image: np.ndarray, statistic: Statistic, seed: int, draws: int = 1000, block: int = 50
) -> np.ndarray:
    """The statistic of sums over images that are drawn with replacement, float64 [draws].

    Args:
        per_image: [I, ...], class counts of every image, or any numbers that add up.
        statistic: of a sum over images.
        seed: the same seed and number of images draw the same images, so that two methods can be
            compared image by image.
        draws: number of bootstrap samples.
        block: number of samples that are computed at once.

    Raises ValueError for no images.
    """
    images = len(per_image)
    if images < 1:
        raise ValueError("per_image must hold at least one image, got none")
    rng = np.random.default_rng(seed)
    flat = per_image.reshape(images, -1).astype(np.float64)
    values = []
    for start in range(0, draws, block):
        size = min(block, draws - start)
        times = rng.multinomial(images, np.full(images, 1 / images), size)  # [block, I]
        values.append(statistic((times @ flat).reshape(-1, *per_image.shape[1:])))
    return np.concatenate(values)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of bootstrap values [draws]; those that are not defined are left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, QUANTILES)
    return float(low), float(high)


def interval(
    per_image: np.ndarray, statistic: Statistic, seed: int = 0, draws: int = 1000
) -> tuple[float, float, float]:
    """(value, low, high): a statistic over all images and its 95 % bootstrap interval.

    Takes [I, ...] and a seed as `resample` does.
    """
    low, high = _bounds(resample(per_image, statistic, seed, draws))
    return float(statistic(per_image.sum(0))), low, high


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of one number for each image, [I], with its 95 % bootstrap interval."""
    # What adds up over images, and their number.
    per_image = np.stack([values, np.ones_like(values)], 1)  # [I, 2]
    return interval(per_image, lambda c: c[..., 0] / c[..., 1], seed)


def paired_interval(
    a: np.ndarray, b: np.ndarray, statistic: Statistic, seed: int = 0, draws: int = 1000
) -> tuple[float, float, float]:
    """(difference, low, high): the statistic of `a` minus that of `b`, and its 95 % interval.

    Both are [I, ...] of the same images, and the same images are drawn for both. Raises ValueError
    for shapes that differ.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"a and b must come from the same images, got shapes {a.shape} and {b.shape}"
        )
    value = float(statistic(a.sum(0)) - statistic(b.sum(0)))
    difference = resample(a, statistic, seed, draws) - resample(b, statistic, seed, draws)
    return value, *_bounds(difference)


def interval_and_gain(
    counts: np.ndarray, base: np.ndarray, statistic: Statistic, seed: int = 0
) -> tuple[float, ...]:
    """The statistic of `counts` with its interval, and its paired difference to that of `base`.

    Returns the six numbers that `GAINED` names.
    """
    scored = interval(counts, statistic, seed)
    return *scored, *paired_interval(counts, base, statistic, seed)
