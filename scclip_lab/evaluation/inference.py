"""From images to label maps by the protocol of a data set."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.dense import DenseCLIP
from scclip_core.segmentation import check_windows, sliding_logits, upsample
from scclip_core.text import embed_names
from scclip_lab.datasets.benchmarks import SegmentationDataset
from scclip_lab.datasets.pamr import refine
from scclip_lab.datasets.protocol import Protocol, label_map


def label_maps(
    segmenter: DenseCLIP,
    images: Sequence[Tensor],
    sizes: Sequence[Sequence[int]],
    data: SegmentationDataset,
) -> list[Tensor]:
    """Label maps of images by the protocol of a data set, int64 [H, W] each.

    Takes images [3, h, w] of any sizes, and the size (H, W) that each label map shall have. Where
    a window is the whole image and no multiple of the patch, the rest at its right and lower edge
    is cut off and the logits are stretched over it, as CLIP's patch embedding and the published
    code do.
    """
    protocol, model = data.protocol, segmenter.model
    names = [name for names in data.classes for name in names]
    text = embed_names(model, names, protocol.templates or segmenter.config.templates)
    images = [image.to(model.device, model.dtype) for image in images]
    longest = max((max(image.shape) for image in images), default=1)
    window, stride = (protocol.window, protocol.stride) if protocol.window else (longest, longest)

    def compute(cut: Tensor) -> Tensor:
        height, width = (side - side % model.patch_size for side in cut.shape[2:])
        return segmenter.logits(cut[..., :height, :width], text)

    found = sliding_logits(compute, images, window, stride)
    maps = []
    for logits, image, size in zip(found, images, sizes, strict=True):
        if protocol.pamr_steps:
            large = upsample(logits.movedim(0, -1)[None], size)[0]  # [Q, H, W]
            picture = F.interpolate(image[None].float(), tuple(size), mode="bilinear")[0]
            logits = refine(large, picture, protocol.pamr_steps)
        maps.append(label_map(logits, data.classes, size, protocol))
    return maps


def check_sizes(model: FrozenCLIP, protocol: Protocol) -> None:
    """Raise ValueError where a protocol's sizes, in pixels, do not fit the patches of a model."""
    patch = model.patch_size
    if protocol.short_side is not None and protocol.short_side < patch:
        given = protocol.short_side
        raise ValueError(f"short_side must be at least one patch, {patch} pixels, got {given}")
    if protocol.window:
        check_windows(patch, protocol.window, protocol.stride)
