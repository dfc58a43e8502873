"""A training of six steps: its phases, its batches, and a model that is not yet trained."""

import torch

from scclip_lab.training.curriculum import Batches, Phase
from scclip_lab.training.model import MiniCLIP

SHORT = (
    Phase(64, 4, 3, (1,), {1: (0.65, 1.05)}),
    Phase(112, 2, 3, (1, 2), {1: (0.5, 0.9), 2: (0.4, 0.6)}),
)


def short_batches() -> Batches:
    return Batches(SHORT, seed=5, painted=2)


def lively_model() -> MiniCLIP:
    """As initialised, blocks hardly change their input; here they do."""
    torch.manual_seed(0)
    mini = MiniCLIP().requires_grad_(False)
    with torch.no_grad():
        for block in mini.clip.visual.transformer.resblocks:
            block.attn.out_proj.weight.mul_(5)
            block.mlp.c_proj.weight.mul_(5)
    return mini
