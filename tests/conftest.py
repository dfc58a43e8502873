"""A tiny random CLIP as deep as ViT-B/16, methods on it, the bundled model, and pictures."""

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image

from scclip_core import METHODS, SCCLIP, DenseCLIP, FrozenCLIP, load_clip, make_method

torch.set_num_threads(1)

VISION = {"layers": 12, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 128}
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
# The tiny model finds each of these in a picture of noise.
CLASSES = ["car", "cup|train", "road"]


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
def mini() -> FrozenCLIP:
    """The bundled model, which tells things apart; random weights call everything the same."""
    return load_clip("mini")


@pytest.fixture(scope="session")
def segmenter(model) -> SCCLIP:
    return SCCLIP(model)


@pytest.fixture(params=METHODS)
def method(request, model) -> DenseCLIP:
    """Every method, one after the other."""
    return make_method(request.param, model)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def few() -> torch.Tensor:
    """Two images of 3 x 4 patches."""
    return torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
