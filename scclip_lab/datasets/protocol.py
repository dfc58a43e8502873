"""How a benchmark cuts its images, and how it turns logits into label maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from scclip_core.segmentation import NAMES_AT_ONCE, best_class, upsample
from scclip_lab.datasets.resizing import LONG_SIDE


@dataclass(frozen=True)
class Protocol:
    """Sizes, windows, scale and thresholds of an evaluation; the defaults are SC-CLIP's.

    Attributes:
        name: whose protocol it is, and what was changed in it.
        short_side: pixels that an image's short side is resized to, 1..2048 (None: the training
            size of the model).
        window, stride: side of the sliding window and distance between windows, in pixels; with a
            window of 0, the whole image is computed at once.
        logit_scale: factor on the logits before the softmax over all names, > 0.
        probability_threshold: pixels whose best class has a lower probability become label 0, the
            background, in [0, 1] (0: no threshold).
        area_threshold: classes other than 0 that fill no more than this share of all pixels that
            are not background are removed, in [0, 1] (0: no threshold).
        pamr_steps: steps of PAMR, which refines the logits at image size (0: none).
        templates: the sentences of every method (None: each method keeps its own).
        source: where the values are stated.

    Raises ValueError that names the attribute, the value given and what is allowed.
    """

    name: str = "scclip"
    short_side: int | None = 336
    window: int = 224
    stride: int = 112
    logit_scale: float = 40.0
    probability_threshold: float = 0.0
    area_threshold: float = 0.0
    pamr_steps: int = 0
    templates: tuple[str, ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.short_side is not None:
            self._require("short_side", 1 <= self.short_side <= LONG_SIDE, f"in 1..{LONG_SIDE}")
        self._require("window", self.window >= 0, ">= 0 pixels; 0 is the whole image")
        last = self.window or LONG_SIDE
        self._require("stride", 1 <= self.stride <= last, f"in 1..{last}, the window")
        scale = isfinite(self.logit_scale) and self.logit_scale > 0
        self._require("logit_scale", scale, "a finite number > 0")
        for name in ("probability_threshold", "area_threshold"):
            self._require(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        self._require("pamr_steps", self.pamr_steps >= 0, ">= 0 steps")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")


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
