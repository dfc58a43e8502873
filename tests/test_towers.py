"""Other image towers: read one patch at a time where that makes sense, refused where not."""

import open_clip
import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.timm_model import TimmModel
from torch.nn import functional as F

from scclip_core.towers import read_alone, refusal
from tests.conftest import TEXT, VISION, tiny_clip


@pytest.fixture(scope="module")
def siglip():
    """A small tower of timm that pools its patches by attention, as SigLIP's does."""
    torch.manual_seed(0)
    tower = TimmModel("test_vit", 24, image_size=64, pool="map", proj="none", pretrained=False)
    return tower.eval()


@pytest.fixture(scope="module")
def coca():
    """A small ViT with CoCa's pooler."""
    torch.manual_seed(0)
    config = CLIPVisionCfg(**{**VISION, "layers": 2, "attentional_pool": True})
    return _build_vision_tower(24, config).eval()


def images(side, batch=2):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def values_of_the_head(pool, tokens):
    """The head's value path by its weights: v = W_v x, W_o v, and the MLP around it."""
    weight, bias = pool.kv.weight.chunk(2)[1], pool.kv.bias.chunk(2)[1]
    read = pool.proj(tokens @ weight.T + bias)
    return read + pool.mlp(pool.norm(read))


def test_alone_a_patch_is_the_value_path_of_the_pooling_head(siglip):
    given = read_alone(siglip, images(64))
    trunk = siglip.trunk
    rows = 64 // trunk.patch_embed.patch_size[0]
    tokens = trunk.forward_features(images(64))[:, trunk.num_prefix_tokens :]
    expected = F.normalize(trunk.fc_norm(values_of_the_head(trunk.attn_pool, tokens)), dim=-1)
    assert given.shape[:3] == (2, rows, rows)
    assert torch.allclose(given.flatten(1, 2), expected, atol=1e-5)


def test_where_all_patches_are_equal_each_is_the_image(siglip, coca, monkeypatch):
    trunk = siglip.trunk
    monkeypatch.setattr(trunk, "forward_features", lambda x, **_: torch.full((len(x), 17, 64), 0.3))
    whole = F.normalize(siglip(images(64)), dim=-1)
    assert torch.allclose(read_alone(siglip, images(64))[:, 0, 0], whole, atol=1e-5)
    monkeypatch.setattr(coca.transformer, "forward", lambda x, **_: torch.full_like(x, 0.3))
    whole = F.normalize(coca(images(128)), dim=-1)
    features = read_alone(coca, images(128))
    assert features.shape == (2, 8, 8, 24)
    assert torch.allclose(features[:, 3, 5], whole, atol=1e-5)


def test_a_patch_that_is_read_alone_depends_on_its_own_token(coca):
    features = read_alone(coca, images(128))
    assert torch.allclose(features.norm(dim=-1), torch.ones(2, 8, 8))
    assert not torch.allclose(features[0, 0, 0], features[0, 4, 4], atol=1e-3)


def test_a_tower_that_reads_its_class_token_is_refused():
    with pytest.raises(TypeError, match="must be a tower that pools by attention, got Vision"):
        read_alone(tiny_clip().visual, images(128))


def test_every_model_of_open_clip_is_taken_or_has_a_reason():
    reasons = {name: refusal(open_clip.get_model_config(name)) for name in open_clip.list_models()}
    taken = {name for name, reason in reasons.items() if reason is None}
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"} <= taken
    assert not [name for name in taken if "SigLIP" in name or "coca" in name or "RN" in name]
    assert all(
        reason.startswith(("is ", "has ", "reads ")) for reason in reasons.values() if reason
    )


def test_a_text_tower_that_stands_apart_is_a_reason():
    config = {"vision_cfg": VISION, "text_cfg": TEXT}
    assert refusal(config) is None
    assert "its text tower stands apart" in str(refusal({**config, "custom_text": True}))
