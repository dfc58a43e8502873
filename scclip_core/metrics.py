"""How well label maps agree with the truth: confusion matrices, IoU, pixel accuracy, and intervals over
images.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Statistic = Callable[[np.ndarray], np.ndarray]
GAINED = ("value", "low", "high", "gain", "gain_low", "gain_high")  # what `interval_and_gain` returns


def confusion_matrix(prediction: Tensor, truth: Tensor, n_classes: int, ignore: int = 255) -> Tensor:
    """Pixels by true class (rows) and predicted class (columns), int64 [C, C].

    `prediction` and `truth` have the same shape, integers in [0, C); pixels whose truth is `ignore` are left
    out. Raises ValueError for shapes that differ or labels out of range.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction must have the shape of truth, {tuple(truth.shape)}, got {tuple(prediction.shape)}"
        )
    kept = truth != ignore
    true, guess = truth[kept].long(), prediction[kept].long()
    for name, labels in (("truth", true), ("prediction", guess)):
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
            raise ValueError(
                f"{name} must be in 0..{n_classes - 1}, got {int(labels.min())}..{int(labels.max())}"
            )
    return torch.bincount(true * n_classes + guess, minlength=n_classes**2).view(n_classes, n_classes)


def class_counts(confusion: np.ndarray) -> np.ndarray:
    """What a score needs of a confusion matrix, [..., C, C] -> int64 [..., 3, C]: pixels of each class that
    are right, true, predicted. They add up over images, in far less room.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([right, confusion.sum(-1), confusion.sum(-2)], -2)


def count_classes(prediction: Tensor, truth: Tensor, n_classes: int) -> np.ndarray:
    """`class_counts` of one label map, [3, C]; 255 is left out; errors as in `confusion_matrix`."""
    return class_counts(confusion_matrix(prediction, truth, n_classes).numpy())


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of every class, `class_counts` [..., 3, C] -> [..., C]; NaN where a class is
    neither true nor predicted.
    """
    right, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    union = true + predicted - right
    return np.divide(right, union, out=np.full(right.shape, np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean of the classes' IoU, [..., 3, C] -> [...]; a class that occurs nowhere is left out of the mean."""
    return np.nanmean(iou_per_class(counts), -1)


def pixel_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of pixels with the right label, [..., 3, C] -> [...]."""
    return counts[..., 0, :].sum(-1) / counts[..., 1, :].sum(-1)


def resample(
    per_image: np.ndarray, statistic: Statistic, seed: int, draws: int = 1000, block: int = 50
) -> np.ndarray:
    """`statistic` of sums over images drawn with replacement, float64 [draws].

    `per_image` is [I, ...]: class counts, or any numbers that add up. The same seed and number of images
    draw the same images, so that two methods can be compared image by image.
    """
    images = len(per_image)
    if images < 1:
        raise ValueError("per_image must hold at least one image, got none")
    rng = np.random.default_rng(seed)
    flat = per_image.reshape(images, -1).astype(np.float64)
    values = []
    for start in range(0, draws, block):
        times = rng.multinomial(images, np.full(images, 1 / images), min(block, draws - start))  # [block, I]
        values.append(statistic((times @ flat).reshape(-1, *per_image.shape[1:])))
    return np.concatenate(values)


def interval(
    per_image: np.ndarray, statistic: Statistic, seed: int = 0, draws: int = 1000
) -> tuple[float, float, float]:
    """(value, low, high): the statistic over all images and its 95 % bootstrap interval over images."""
    low, high = np.quantile(resample(per_image, statistic, seed, draws), (0.025, 0.975))
    return float(statistic(per_image.sum(0))), float(low), float(high)


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of one number an image, [I], with the 95 % bootstrap interval over images."""
    per_image = np.stack([values, np.ones_like(values)], 1)  # [I, 2]: what adds up, and how many
    return interval(per_image, lambda c: c[..., 0] / c[..., 1], seed)


def paired_interval(
    a: np.ndarray, b: np.ndarray, statistic: Statistic, seed: int = 0, draws: int = 1000
) -> tuple[float, float, float]:
    """(difference, low, high) of the statistic of `a` minus that of `b`, the same images drawn for both."""
    if a.shape != b.shape:
        raise ValueError(f"a and b must come from the same images, got shapes {a.shape} and {b.shape}")
    value = float(statistic(a.sum(0)) - statistic(b.sum(0)))
    difference = resample(a, statistic, seed, draws) - resample(b, statistic, seed, draws)
    low, high = np.quantile(difference, (0.025, 0.975))
    return value, float(low), float(high)


def interval_and_gain(
    counts: np.ndarray, base: np.ndarray, statistic: Statistic, seed: int = 0
) -> tuple[float, ...]:
    """The statistic of `counts` with its interval, and how far it lies above that of `base`, paired: the
    six numbers that `GAINED` names.
    """
    return *interval(counts, statistic, seed), *paired_interval(counts, base, statistic, seed)
