"""Big pictures: overlapping windows, segmented in batches and averaged (the published protocol)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scclip_core.pipeline import SCCLIP, upsample
from scclip_core.text import best_name


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side: every `stride` pixels, the last one moved back to end with the
    picture.
    """
    return [*range(0, max(length - window, 0), stride), max(length - window, 0)]


def check_windows(patch: int, window: int, stride: int) -> None:
    """Raise ValueError unless `window` is a multiple of the patch, and `stride` in 1..window (all pixels)."""
    if window < patch or window % patch:
        raise ValueError(f"window must be a multiple of the patch, {patch}, got {window}")
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be in 1..{window}, the window, got {stride}")


@torch.no_grad()
def sliding_logits(
    segmenter: SCCLIP, images: Tensor, text: Tensor, window: int = 224, stride: int = 112, batch: int = 16
) -> Tensor:
    """Logits at image size, averaged over windows, [B, 3, H, W] and text [Q, D] -> [B, Q, H, W].

    Windows are `window` pixels a side (less where the picture is smaller), `stride` apart, `batch` of them a
    run, over all images together. A picture of one window gives what one plain run gives.

    Raises ValueError for a window that is no multiple of the patch, a stride outside 1..window, or an empty
    batch.
    """
    check_windows(segmenter.model.patch_size, window, stride)
    if batch < 1:
        raise ValueError(f"batch must be at least 1 window, got {batch}")
    segmenter.model.check_images(images)
    height, width = images.shape[2:]
    tall, wide = min(window, height), min(window, width)
    places = [
        (i, row, col)
        for i in range(len(images))
        for row in window_starts(height, window, stride)
        for col in window_starts(width, window, stride)
    ]
    total = images.new_zeros((len(images), len(text), height, width), dtype=text.dtype)
    count = images.new_zeros((len(images), 1, height, width), dtype=text.dtype)
    for group in _groups(places, batch):
        cut = torch.stack([images[i, :, row : row + tall, col : col + wide] for i, row, col in group])
        for (i, row, col), logits in zip(group, segmenter.logits(cut, text).split(1), strict=True):
            total[i, :, row : row + tall, col : col + wide] += upsample(logits, (tall, wide))[0]
            count[i, :, row : row + tall, col : col + wide] += 1
    return total.div_(count)


def label_map(logits: Tensor, classes: list[tuple[str, ...]], size: tuple[int, int]) -> Tensor:
    """The best class of every pixel at another size, [1, Q, h, w] -> int64 [H, W], indices into `classes`.

    Bilinear in the logits, a few classes at a time, so that a large picture with a thousand classes fits in
    memory.
    """
    logits = best_name(logits.movedim(1, -1), classes)  # [1, h, w, Q] -> [1, h, w, C]
    best, label = None, None
    for start in range(0, len(classes), 16):
        value, index = upsample(logits[..., start : start + 16], size)[0].max(0)  # both [H, W]
        if best is None:
            best, label = value, index
        else:
            label = torch.where(value > best, index + start, label)
            best = torch.maximum(value, best)
    return label


def _groups(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
