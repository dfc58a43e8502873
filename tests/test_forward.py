"""The pieces of the frozen forward pass, each against open_clip's own or a loop."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig
from scclip_core.pipeline import upsample
from tests.conftest import tiny_clip


def test_the_embedding_is_what_open_clips_first_block_sees(model, images):
    seen = []
    hook = model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.visual(images)
    hook.remove()
    assert torch.equal(model.embed(images), seen[0])


@pytest.mark.parametrize("grid", [(4, 10), (10, 4), (16, 16)])
def test_positions_vary_down_rows_and_along_columns_as_trained(grid):
    model = FrozenCLIP(tiny_clip())
    down = torch.arange(8.0)[:, None].expand(8, 8)  # each position says its row, and its column
    table = torch.stack([down, down.T], -1).flatten(0, 1)  # [64, 2]
    model.visual.positional_embedding.data[1:, :2] = table
    rows, along = model.positions(grid)[1:, :2].unflatten(0, grid).unbind(-1)
    assert torch.allclose(rows, rows[:, :1].expand(grid), atol=1e-4)
    assert torch.allclose(along, along[:1].expand(grid), atol=1e-4)
    assert (rows[:, 0].diff() > 0).all()
    assert (along[0].diff() > 0).all()


def test_positions_of_another_grid_are_bicubic(model):
    maps = model.visual.positional_embedding[1:].T.unflatten(1, (8, 8))[None]
    expected = nn.functional.interpolate(maps, size=(5, 12), mode="bicubic", align_corners=False)
    assert torch.allclose(model.positions((5, 12))[1:], expected[0].flatten(1).T, atol=1e-6)


def test_the_projections_are_those_of_the_blocks_own_attention(model, images):
    block, tokens = model.blocks[-1], model.embed(images)
    q, k, v = model.qkv(block, tokens)
    attended = (q @ k.mT / (model.width // model.heads) ** 0.5).softmax(-1) @ v
    ours = block.attn.out_proj(attended.transpose(1, 2).flatten(2))
    normed = block.ln_1(tokens)
    assert torch.allclose(ours, block.attn(normed, normed, normed, need_weights=False)[0], atol=1e-5)


def test_layer_scale_is_applied_to_the_attention(images):
    model = FrozenCLIP(tiny_clip(ls_init_value=1.0))
    model.blocks[-1].ls_1.gamma.data.fill_(0.5)
    halved = SCCLIP(model, SCCLIPConfig()).trace(images)["attention_main"].tensor
    model.blocks[-1].ls_1.gamma.data.fill_(1.0)
    whole = SCCLIP(model, SCCLIPConfig()).trace(images)["attention_main"].tensor
    assert torch.allclose(halved, whole / 2, atol=1e-6)


def test_the_middle_layer_is_the_one_asked_for_and_repaired_at_the_same_places(model, images):
    trace = SCCLIP(model, SCCLIPConfig(pre_adjust_idx=5)).trace(images)
    middle, repaired = trace["block_5"].tensor[:, 1:], trace["repaired_mid"].tensor
    changed = (middle != repaired).any(-1)
    assert changed.any()
    assert torch.equal(changed, trace["anomalous"].tensor)
    unit = nn.functional.normalize(repaired, dim=-1)
    assert torch.allclose(trace["similarity_mid_raw"].tensor, unit @ unit.mT, atol=1e-5)


def test_each_branch_adds_its_own_class_token(model, images):
    trace = SCCLIP(model).trace(images)
    for name, source in (("main", "block_10"), ("aux", "fused_layers")):
        added = trace[f"residual_{name}"].tensor - trace[f"attention_{name}"].tensor
        cls = 0.3 * trace[source].tensor[:, :1]
        assert torch.allclose(added, cls.expand_as(added), atol=1e-4)


def test_the_shallow_layer_is_not_repaired(model, images):
    trace = SCCLIP(model).trace(images)
    unit = nn.functional.normalize(trace["block_3"].tensor[:, 1:], dim=-1)
    cosine = unit @ unit.mT
    kept = trace["similarity_shallow"].tensor
    assert torch.allclose(kept[kept > 0], cosine[kept > 0], atol=1e-5)


def test_upsampling_is_bilinear_between_the_centres_of_patches():
    logits = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1)  # two patches side by side, one class
    row = upsample(logits, (4, 8))[0, 0, 0]  # centres at 1.5 and 5.5
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    assert row.tolist() == pytest.approx(expected)


def test_pictures_are_normalised_with_the_models_own_statistics(picture):
    clip = tiny_clip()
    clip.visual.image_mean, clip.visual.image_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    assert FrozenCLIP(clip).preprocess(picture).abs().max() <= 2
    clip.visual.image_mean = clip.visual.image_std = None
    assert FrozenCLIP(clip).mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_the_short_side_may_be_chosen(model, picture):
    assert model.preprocess(picture, 64).shape == (3, 64, 96)


def test_the_logit_scale_is_what_cosines_are_multiplied_by(model):
    assert model.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_more_prompts_than_a_batch_are_the_same_prompts(model):
    prompts = [f"a photo of thing {i}" for i in range(7)]
    assert torch.allclose(model.encode_text(prompts, batch=3), model.encode_text(prompts), atol=1e-6)


def test_images_on_another_device_are_refused_and_not_moved(model):
    with pytest.raises(
        ValueError, match=r"images must be torch\.float32 on cpu like the model, got .* on meta"
    ):
        SCCLIP(model).features(torch.zeros(1, 3, 32, 32, device="meta"))


@pytest.mark.parametrize("thing", ["mini", None, SimpleNamespace(visual=nn.Linear(2, 2))])
def test_what_is_no_clip_is_refused_by_its_kind(thing):
    with pytest.raises(ValueError, match=f"open_clip CLIP with a ViT image tower.*{type(thing).__name__}"):
        SCCLIP(thing)
