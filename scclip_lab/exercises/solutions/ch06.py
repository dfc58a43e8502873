"""Solutions of chapter 6."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def slide(compute: Callable[[Tensor], Tensor], image: Tensor, window: int, stride: int) -> Tensor:
    """The mean over all windows that cover a pixel, [3, H, W] -> [C, H, W]."""
    height, width = image.shape[1:]
    total, count = torch.zeros(1), torch.zeros(height, width)
    for top in [*range(0, max(height - window, 0), stride), max(height - window, 0)]:
        for left in [*range(0, max(width - window, 0), stride), max(width - window, 0)]:
            rows, cols = slice(top, top + window), slice(left, left + window)
            logits = compute(image[None, :, rows, cols])[0]  # [C, h, w]
            if total.ndim == 1:
                total = torch.zeros(len(logits), height, width)
            total[:, rows, cols] += logits
            count[rows, cols] += 1
    return total / count


def label_with_threshold(
    logits: Tensor, size: tuple[int, int], scale: float, threshold: float
) -> Tensor:
    """The most probable class of each pixel, 0 below the threshold; [rows, cols, C] -> [H, W]."""
    maps = logits.movedim(-1, 0)[None]  # [1, C, rows, cols]
    large = F.interpolate(maps, size, mode="bilinear", align_corners=False)[0]  # [C, H, W]
    probability, label = (scale * large).softmax(0).max(0)
    return label.where(probability >= threshold, torch.zeros_like(label))


SOLUTIONS = {"06-4": slide, "06-5": label_with_threshold}
