"""Big pictures: overlapping windows, segmented in batches and averaged; logits to labels (the published
protocol).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scclip_core.pipeline import SCCLIP, upsample
from scclip_core.text import best_name

BLOCK = 16  # classes brought to picture size at once: a large picture with a thousand would not fit in memory


@dataclass(frozen=True)
class Windows:
    """How a picture is cut: its short side in pixels (None: the size trained at), window and stride in
    pixels.
    """

    short_side: int | None = None
    window: int = 224
    stride: int = 112


@dataclass(frozen=True)
class Protocol(Windows):
    """How a benchmark cuts pictures and turns logits into labels; the defaults are the published code's.

    Probabilities are a softmax of `logit_scale` times the logits over all names. Where the best class has
    less than `probability_threshold`, the label is 0, background; before that, classes other than 0 that fill
    no more than `area_threshold` of what is not background are left out (0: no threshold). `templates` are
    the prompts of every method; None leaves each its own.
    """

    short_side: int | None = 336
    logit_scale: float = 40.0
    probability_threshold: float = 0.0
    area_threshold: float = 0.0
    templates: tuple[str, ...] | None = None


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
    segmenter: SCCLIP,
    images: Sequence[Tensor],
    text: Tensor,
    window: int = 224,
    stride: int = 112,
    batch: int = 16,
) -> list[Tensor]:
    """Logits at image size, averaged over windows: images [3, H, W], of any sizes, and text [Q, D] -> [Q, H,
    W] each.

    Windows are `window` pixels a side (less where the picture is smaller), `stride` apart, `batch` of them a
    run, over all images together. A picture of one window gives what one plain run gives.

    Raises ValueError for a window that is no multiple of the patch, a stride outside 1..window, or an empty
    batch.
    """
    check_windows(segmenter.model.patch_size, window, stride)
    if batch < 1:
        raise ValueError(f"batch must be at least 1 window, got {batch}")
    places: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # window size -> (image, row, col)
    for i, image in enumerate(images):
        segmenter.model.check_images(image[None])
        height, width = image.shape[1:]
        places.setdefault((min(window, height), min(window, width)), []).extend(
            (i, row, col)
            for row in window_starts(height, window, stride)
            for col in window_starts(width, window, stride)
        )
    totals = [text.new_zeros((len(text), *image.shape[1:])) for image in images]
    counts = [text.new_zeros(image.shape[1:]) for image in images]
    for (tall, wide), found in places.items():
        for group in _groups(found, batch):
            cut = torch.stack([images[i][:, row : row + tall, col : col + wide] for i, row, col in group])
            for (i, row, col), logits in zip(group, segmenter.logits(cut, text).split(1), strict=True):
                totals[i][:, row : row + tall, col : col + wide] += upsample(logits, (tall, wide))[0]
                counts[i][row : row + tall, col : col + wide] += 1
    return [total.div_(count) for total, count in zip(totals, counts, strict=True)]


def best_class(
    logits: Tensor, classes: list[tuple[str, ...]], size: tuple[int, int], left_out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel at another size, and its logit: [Q, h, w] -> both [H, W].

    Bilinear in the logits of all names, of which a class takes its best; `left_out`, bool [C], are classes
    that no pixel may take.
    """
    best, label, first = None, None, 0
    for start in range(0, len(classes), BLOCK):
        named = classes[start : start + BLOCK]
        names = sum(map(len, named))
        large = upsample(logits[first : first + names].movedim(0, -1)[None], size)[0]  # [names, H, W]
        large = best_name(large.movedim(0, -1), named)  # [H, W, classes of this block]
        if left_out is not None:
            large = large.masked_fill(left_out[start : start + BLOCK], -torch.inf)
        value, index = large.max(-1)
        first += names
        if best is None:
            best, label = value, index
        else:
            label = torch.where(value > best, index + start, label)
            best = torch.maximum(value, best)
    return best, label


def label_map(
    logits: Tensor, classes: list[tuple[str, ...]], size: tuple[int, int], protocol: Protocol | None = None
) -> Tensor:
    """Labels at another size, [Q, h, w] -> int64 [H, W], indices into `classes`: the best class, or what the
    protocol's thresholds make of it.
    """
    best, label = best_class(logits, classes, size)
    if protocol is None:
        return label
    if protocol.area_threshold:
        filled = torch.bincount(label.flatten(), minlength=len(classes))
        filled[0] = 0
        small = filled <= protocol.area_threshold * filled.sum()
        small[0] = False
        best, label = best_class(logits, classes, size, small)
    if protocol.probability_threshold:
        total = torch.full_like(best, -torch.inf)  # log of the sum over all names
        for part in logits.split(BLOCK):
            large = upsample(part.movedim(0, -1)[None], size)[0]  # [names, H, W]
            total = torch.logaddexp(total, (protocol.logit_scale * large).logsumexp(0))
        probability = (protocol.logit_scale * best - total).exp()
        label = label.masked_fill(probability < protocol.probability_threshold, 0)
    return label


def _groups(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
