"""How a benchmark cuts its images, and how it turns logits into label maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scclip_core.segmentation import NAMES_AT_ONCE, best_class, upsample


@dataclass(frozen=True)
class Protocol:
    """Sizes, windows, scale and thresholds of a benchmark; the defaults are the published code's.

    Attributes:
        short_side: pixels that an image's short side is resized to (None: the training size).
        window, stride: side of the sliding window and distance between windows, in pixels.
        logit_scale: factor on the logits before the softmax over all names.
        probability_threshold: pixels whose best class has a lower probability become label 0, the
            background (0: no threshold).
        area_threshold: classes other than 0 that fill no more than this share of all pixels that
            are not background are removed (0: no threshold).
        templates: the sentences of every method (None: each method keeps its own).
    """

    short_side: int | None = 336
    window: int = 224
    stride: int = 112
    logit_scale: float = 40.0
    probability_threshold: float = 0.0
    area_threshold: float = 0.0
    templates: tuple[str, ...] | None = None


def label_map(
    logits: Tensor,
    classes: list[tuple[str, ...]],
    size: Sequence[int],
    protocol: Protocol = Protocol(),
) -> Tensor:
    """Labels at another size, after the thresholds of a protocol.

    Small classes are removed first, then pixels of a low probability become background:

        p = exp(scale * best logit) / sum over all names of exp(scale * logit)

    Args:
        logits: [Q, h, w], one map for each name.
        classes: the names of every class, Q in all.
        size: (H, W) of the result.
        protocol: its scale and thresholds are used.

    Returns int64 [H, W], indices into `classes`.
    """
    best, label = best_class(logits, classes, size)
    if protocol.area_threshold:
        pixels = torch.bincount(label.flatten(), minlength=len(classes))
        pixels[0] = 0
        small = pixels <= protocol.area_threshold * pixels.sum()
        small[0] = False
        best, label = best_class(logits, classes, size, small)
    if protocol.probability_threshold:
        # The logarithm of the sum over all names.
        total = torch.full_like(best, -torch.inf)
        for part in logits.split(NAMES_AT_ONCE):
            large = upsample(part.movedim(0, -1)[None], size)[0]  # [names, H, W]
            total = torch.logaddexp(total, (protocol.logit_scale * large).logsumexp(0))
        probability = (protocol.logit_scale * best - total).exp()
        label = label.masked_fill(probability < protocol.probability_threshold, 0)
    return label
