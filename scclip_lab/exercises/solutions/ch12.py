"""Solutions of chapter 12."""

import numpy as np
import torch
from torch import Tensor


def otsu(values: np.ndarray) -> float:
    """The threshold that maximises w_0 w_1 (m_0 - m_1)^2, values [K] -> number.

    Of all cuts between two neighbouring values, the middle of the best one.
    """
    ordered = np.sort(values)
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    first, second = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
    best = int((below * (len(ordered) - below) * (first - second) ** 2).argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)


def mutual_information(predicted: Tensor) -> Tensor:
    """The entropy of the mean prediction minus the mean entropy, [K, C] -> number in nats."""
    each = torch.special.entr(predicted).sum(-1)
    of_mean: Tensor = torch.special.entr(predicted.mean(0)).sum()
    return of_mean - each.mean()


SOLUTIONS = {"12-4": otsu, "12-5": mutual_information}
