"""Many configurations of SC-CLIP on the same images: the blocks run once for all of them.

Configurations differ from stage 3 on; what comes before is most of the computation.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP

Name = TypeVar("Name", bound=Hashable)
# The last images [B, 3, H, W] and their layers, [B, L, C] each; empty before the first run.
Known = dict[str, list[Tensor]]


class SharedSCCLIP(SCCLIP):
    """SC-CLIP that takes the outputs of the blocks from `known` where the images are the same.

    Args:
        model: the frozen CLIP that all segmenters share.
        config: hyper-parameters.
        known: what all segmenters share. It is filled by the one that runs first.
    """

    def __init__(self, model: FrozenCLIP, config: SCCLIPConfig, known: Known):
        super().__init__(model, config)
        self._known = known

    def encode(self, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        """Stages 1 and 2 as in SC-CLIP, computed once for the same images."""
        if blocks is not None:
            return super().encode(images, blocks)
        if not self._known or not torch.equal(self._known["images"][0], images):
            self._known.update(images=[images], layers=super().encode(images))
        return self._known["layers"]


def share_blocks(
    model: FrozenCLIP, configs: Mapping[Name, SCCLIPConfig]
) -> dict[Name, SharedSCCLIP]:
    """A segmenter for each configuration; they share the blocks' outputs.

    Raises ValueError where configurations embed images differently (`position_offset`).
    """
    offsets = {config.position_offset for config in configs.values()}
    if len(offsets) > 1:
        given = ", ".join(map(str, sorted(offsets)))
        raise ValueError(f"configs must have one position_offset, got {given}")
    known: Known = {}
    return {name: SharedSCCLIP(model, config, known) for name, config in configs.items()}
