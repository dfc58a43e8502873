"""A tiny random CLIP with as many blocks as ViT-B/16, and pictures, for all tests."""

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from scclip_core import FrozenCLIP

torch.set_num_threads(1)

VISION = {"layers": 12, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 128}
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def tiny_clip(seed: int = 0, **vision) -> CLIP:
    torch.manual_seed(seed)
    clip = CLIP(24, CLIPVisionCfg(**{**VISION, **vision}), CLIPTextCfg(**TEXT))
    # As initialised, blocks hardly change their input; larger weights make every stage matter.
    with torch.no_grad():
        for block in clip.visual.transformer.resblocks:
            block.attn.in_proj_weight.mul_(3)
            block.attn.out_proj.weight.mul_(3)
    return clip


@pytest.fixture(scope="session")
def model() -> FrozenCLIP:
    return FrozenCLIP(tiny_clip(), "tiny")


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
