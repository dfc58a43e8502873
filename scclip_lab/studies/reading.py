"""What several studies read: labels of patches, label maps of features, another layer's tokens."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from scclip_core import segmentation
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.dense import DenseCLIP
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import WORDS, Scene

# Pixels of a patch's side.
PATCH = 16


def patch_labels(scene: Scene) -> np.ndarray:
    """The label of the centre of every patch, [rows, cols]."""
    return scene.labels[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]


def label_map(segmenter: DenseCLIP, features: Tensor, side: int) -> Tensor:
    """The label map of features [1, rows, cols, D] over all words, int64 [side, side]."""
    text = segmenter.embed_classes(WORDS)[1]
    return segmentation.label_map(features.to(text.dtype) @ text.T, (side, side))[0]


def read_layer(segmenter: DenseCLIP, images: Tensor, tokens: Tensor) -> Tensor:
    """Features [B, rows, cols, D] with `tokens` [B, L, C] in place of the last layer but one.

    They may be those of another layer, for a logit lens, or changed ones.
    """
    place = f"blocks.{segmenter.model.depth - 2}.hook_resid_post"
    return segmenter.run_with_hooks(images, {place: lambda _: tokens})


class Continued(SCCLIP):
    """SC-CLIP from its blocks' outputs on: `layers` take the place of what it would compute.

    Args:
        model, config: as for `SCCLIP`.
        layers: the outputs of all blocks but the last, [B, L, C] each.
    """

    def __init__(
        self, model: FrozenCLIP, config: SCCLIPConfig | None = None, layers: Sequence[Tensor] = ()
    ):
        super().__init__(model, config)
        self.layers = list(layers)

    def encode(self, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        """The layers, whatever the images."""
        return self.layers

    def repaired_at(self, images: Tensor, layers: list[Tensor], flags: Tensor) -> Tensor:
        """Features [B, rows, cols, D] where the patches `flags`, bool [B, N], are repaired."""
        self.layers = layers
        return self.run_with_hooks(images, {"stage3.anomalous": lambda _: flags})
