"""What several studies read: labels of patches, label maps of features, another layer's tokens."""

import numpy as np
from torch import Tensor

from scclip_core.dense import DenseCLIP
from scclip_core.segmentation import upsample
from scclip_lab.datasets.scenes import WORDS, Scene

# Pixels of a patch's side.
PATCH = 16


def patch_labels(scene: Scene) -> np.ndarray:
    """The label of the centre of every patch, [rows, cols]."""
    return scene.labels[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]


def label_map(segmenter: DenseCLIP, features: Tensor, side: int) -> Tensor:
    """The label map of features [1, rows, cols, D] over all words, int64 [side, side]."""
    text = segmenter.embed_classes(WORDS)[1]
    labels: Tensor = upsample(features.to(text.dtype) @ text.T, (side, side)).argmax(1)[0]
    return labels


def read_layer(segmenter: DenseCLIP, images: Tensor, tokens: Tensor) -> Tensor:
    """Features [B, rows, cols, D] with `tokens` [B, L, C] in place of the last layer but one.

    They may be those of another layer, for a logit lens, or changed ones.
    """
    place = f"blocks.{segmenter.model.depth - 2}.hook_resid_post"
    return segmenter.run_with_hooks(images, {place: lambda _: tokens})
