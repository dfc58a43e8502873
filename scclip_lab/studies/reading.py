"""What several studies read: labels of patches, label maps of features, another layer's tokens."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from scclip_core import segmentation
from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.dense import DenseCLIP
from scclip_core.pipeline import SCCLIP
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import WORDS, Scene
from scclip_lab.evaluation.mini import parts_right, stack_images
from scclip_lab.studies.drawing import label_rows

# Pixels of a patch's side.
PATCH = 16


def patch_labels(scene: Scene) -> np.ndarray:
    """The label of the centre of every patch, [rows, cols]."""
    return scene.labels[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]


def label_map(segmenter: DenseCLIP, features: Tensor, side: int) -> Tensor:
    """The label map of features [1, rows, cols, D] over all words, int64 [side, side]."""
    text = segmenter.embed_classes(WORDS)[1]
    return segmentation.label_map(features.to(text.dtype) @ text.T, (side, side))[0]


def segment_by_methods(
    model: FrozenCLIP, scene: Scene, methods: Iterable[str]
) -> dict[str, Tensor]:
    """Each method's label map of one scene over all words, int64 [H, W]."""
    images = stack_images(model, [scene])
    with shared_results():
        return {name: make_method(name, model).segment(images, WORDS)[0] for name in methods}


def read_layer(
    segmenter: DenseCLIP, images: Tensor, tokens: Tensor, layer: int | None = None
) -> Tensor:
    """Features [B, rows, cols, D] with `tokens` [B, L, C] in place of a layer's output.

    It is the last layer but one unless another is given. The tokens may be those of another layer,
    for a logit lens, or changed ones.
    """
    layer = segmenter.model.depth - 2 if layer is None else layer
    return segmenter.run_with_hooks(images, {f"blocks.{layer}.hook_resid_post": lambda _: tokens})


def read_scene(model: FrozenCLIP, scene: Scene, methods: Sequence[str]) -> list[tuple[object, ...]]:
    """Label maps of one scene over all words, the truth first, as rows of a table.

    Takes names of methods. A row is one line of a map: whose map it is, the shares `PARTS` of the
    whole map that are right, the line's number and its labels as one text.
    """
    truth = torch.from_numpy(scene.labels)
    rows: list[tuple[object, ...]] = [("truth", 1.0, 1.0, *line) for line in label_rows(truth)]
    for name, labels in segment_by_methods(model, scene, methods).items():
        shares = parts_right(labels, truth)
        rows += [(name, *shares, *line) for line in label_rows(labels)]
    return rows


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
