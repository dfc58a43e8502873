"""Stage 8 and beyond: logits to label maps, and pictures larger than the model's training images.

Large pictures are cut into overlapping windows, as the published code does.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.precision import check_finite
from scclip_core.text import max_over_names

# Classes that are brought to picture size at once, fewer where the picture is large: a thousand of
# them would not fit in memory.
NAMES_AT_ONCE = 16
PIXELS_AT_ONCE = 2**26


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Stage 8: logits at image size, [B, rows, cols, Q] -> [B, Q, H, W], bilinear."""
    maps = logits.permute(0, 3, 1, 2)  # [B, Q, rows, cols]
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def label_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The best class of every pixel, logits [B, rows, cols, C] -> int64 [B, H, W].

    Equal to the argmax of `upsample`, which is only computed for the classes that can win: those
    whose logit is at least the sure minimum of the best class, at one place or another. Raises
    ValueError for logits that are not finite.
    """
    check_finite("logits", logits)
    maps = []
    for one in torch.split(logits, 1):  # logits at image size are the largest tensors of all
        kept = possible_winners(one[0])
        best = upsample(one[..., kept], size).max(1).indices  # [1, H, W]; argmax(1) is far slower
        maps.append(kept.index_select(0, best.flatten()).view_as(best))
    return torch.cat(maps)


def possible_winners(logits: Tensor) -> Tensor:
    """Classes that can be the best at some pixel of a bilinear interpolation, in order.

    Between 2 x 2 patches an interpolated logit lies between the four. So a class wins nowhere if
    its largest of every four is below the largest among all classes of the smallest of the same
    four. Takes logits [rows, cols, C]; returns int64 [kept].
    """
    highest = lowest = logits
    for side in (0, 1):
        pairs = logits.shape[side] - 1
        if pairs:  # a single row or column has no neighbour
            highest = torch.maximum(highest.narrow(side, 0, pairs), highest.narrow(side, 1, pairs))
            lowest = torch.minimum(lowest.narrow(side, 0, pairs), lowest.narrow(side, 1, pairs))
    # Interpolation rounds, so what is equal but for the last digits is kept.
    slack = 8 * torch.finfo(logits.dtype).eps * logits.abs().amax()
    sure = lowest.amax(-1, keepdim=True) - slack  # [rows - 1, cols - 1, 1]
    return (highest >= sure).flatten(0, 1).any(0).nonzero()[:, 0]


def check_windows(patch: int, window: int, stride: int) -> None:
    """Raise ValueError unless `window` is a multiple of the patch and `stride` in 1..window.

    All three are in pixels.
    """
    if window < patch or window % patch:
        raise ValueError(f"window must be a multiple of the patch, {patch}, got {window}")
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be in 1..{window}, the window, got {stride}")


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side: every `stride` pixels.

    The last window is moved back so that it ends with the picture.
    """
    return [*range(0, max(length - window, 0), stride), max(length - window, 0)]


@torch.no_grad()
def sliding_logits(
    compute: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
    window: int = 224,
    stride: int = 112,
    batch: int = 16,
) -> list[Tensor]:
    """Logits at image size, averaged over overlapping windows.

    Args:
        compute: what gives the logits of a batch, [B, 3, h, w] -> [B, rows, cols, Q].
        images: [3, H, W] each, of any sizes.
        window, stride: side of a window and distance between windows, in pixels. Where an image
            is smaller than a window, the window is the image.
        batch: number of windows that are computed together, over all images.

    Returns [Q, H, W] for each image. An image of one window gets what `compute` gives for it,
    upsampled. Raises ValueError for a stride that leaves gaps or an empty batch.
    """
    check_windows(1, window, stride)
    if batch < 1:
        raise ValueError(f"batch must be at least 1 window, got {batch}")
    places: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # (h, w) -> (image, row, col)
    for i, image in enumerate(images):
        height, width = image.shape[1:]
        places.setdefault((min(window, height), min(window, width)), []).extend(
            (i, row, col)
            for row in window_starts(height, window, stride)
            for col in window_starts(width, window, stride)
        )
    totals: list[Tensor | None] = [None] * len(images)
    counts = [image.new_zeros(image.shape[1:], dtype=torch.float32) for image in images]
    for (h, w), found in places.items():
        for start in range(0, len(found), batch):
            group = found[start : start + batch]
            cut = torch.stack([images[i][:, row : row + h, col : col + w] for i, row, col in group])
            for (i, row, col), logits in zip(group, torch.split(compute(cut), 1), strict=True):
                large = upsample(logits, (h, w))[0]  # [Q, h, w]
                total = totals[i]
                if total is None:
                    total = large.new_zeros((len(large), *images[i].shape[1:]))
                    totals[i] = total
                total[:, row : row + h, col : col + w] += large
                counts[i][row : row + h, col : col + w] += 1
    return [
        total.div_(count) for total, count in zip(totals, counts, strict=True) if total is not None
    ]


def best_class(
    logits: Tensor,
    classes: list[tuple[str, ...]],
    size: Sequence[int],
    excluded: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel at another size, and its logit: [Q, h, w] -> both [H, W].

    The logits of all names are resized bilinearly; then each class takes its best name. Classes
    where `excluded`, bool [C], is True are taken by no pixel. Raises ValueError for logits that are
    not finite, and for no classes.
    """
    check_finite("logits", logits)
    best, label, first = None, None, 0
    step = max(1, min(NAMES_AT_ONCE, PIXELS_AT_ONCE // math.prod(size)))
    for start in range(0, len(classes), step):
        block = classes[start : start + step]
        count = sum(map(len, block))
        large = upsample(logits[first : first + count].movedim(0, -1)[None], size)[0]  # [Q, H, W]
        scores = max_over_names(large.movedim(0, -1), block)  # [H, W, classes of the block]
        if excluded is not None:
            scores = scores.masked_fill(excluded[start : start + step], -torch.inf)
        value, index = scores.max(-1)
        first += count
        if best is None or label is None:
            best, label = value, index
        else:
            label = torch.where(value > best, index + start, label)
            best = torch.maximum(value, best)
    if best is None or label is None:
        raise ValueError("classes must hold at least one class, got none")
    return best, label
