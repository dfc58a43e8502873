"""The pieces of the frozen forward pass, each against open_clip's own or a loop."""

import pytest
import torch
from torch import nn

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig
from scclip_core.baselines import METHODS, make_method
from scclip_core.segmentation import upsample
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


def test_published_positions_are_read_at_a_scale_of_a_tenth_of_a_patch_more(model):
    table = model.visual.positional_embedding[1:].T.unflatten(1, (8, 8))[None]
    scale = (5.1 / 8, 12.1 / 8)
    expected = nn.functional.interpolate(table, scale_factor=scale, mode="bicubic")[0]
    found = model.positions((5, 12), 0.1)
    assert found.shape == (61, 64) and torch.equal(found[1:], expected.flatten(1).T)
    assert not torch.allclose(found, model.positions((5, 12)), atol=1e-3)
    assert model.positions((8, 8), 0.1) is model.visual.positional_embedding
    image = torch.randn(1, 3, 80, 192, generator=torch.Generator().manual_seed(0))
    for name in METHODS:
        plain, published = (make_method(name, model, position_offset=x) for x in (0.0, 0.1))
        assert not torch.equal(plain(image), published(image)), name


def test_the_projections_are_those_of_the_blocks_own_attention(model, images):
    block, tokens = model.blocks[-1], model.embed(images)
    q, k, v = model.qkv(block, tokens)
    attended = (q @ k.mT / (model.width // model.heads) ** 0.5).softmax(-1) @ v
    ours = block.attn.out_proj(attended.transpose(1, 2).flatten(2))
    normed = block.ln_1(tokens)
    assert torch.allclose(
        ours, block.attn(normed, normed, normed, need_weights=False)[0], atol=1e-5
    )


def test_layer_scale_is_applied_to_the_attention(images):
    model = FrozenCLIP(tiny_clip(ls_init_value=1.0))
    model.blocks[-1].ls_1.gamma.data.fill_(0.5)
    _, halved = SCCLIP(model).run_with_cache(images, "stage5.attention")
    model.blocks[-1].ls_1.gamma.data.fill_(1.0)
    _, whole = SCCLIP(model).run_with_cache(images, "stage5.attention")
    assert torch.allclose(halved["stage5.attention"], whole["stage5.attention"] / 2, atol=1e-6)


def test_the_middle_layer_is_the_one_asked_for_and_repaired_at_the_same_places(model, images):
    _, cache = SCCLIP(model, SCCLIPConfig(pre_adjust_idx=5)).run_with_cache(images)
    middle, repaired = cache["blocks.5.hook_resid_post"][:, 1:], cache["stage4.repaired"]
    changed = (middle != repaired).any(-1)
    assert changed.any()
    assert torch.equal(changed, cache["stage3.anomalous"])
    unit = nn.functional.normalize(repaired, dim=-1)
    assert torch.allclose(cache["stage4.similarity"], unit @ unit.mT, atol=1e-5)


def test_each_branch_adds_its_own_class_token(model, images):
    _, cache = SCCLIP(model).run_with_cache(images)
    sources = {"stage5": "blocks.10.hook_resid_post", "stage7": "stage7.summed_layers"}
    for stage, source in sources.items():
        added = cache[f"{stage}.class_residual"] - cache[f"{stage}.attention"]
        cls = 0.3 * cache[source][:, :1]
        assert torch.allclose(added, cls.expand_as(added), atol=1e-4)


def test_the_shallow_layer_is_not_repaired(model, images):
    _, cache = SCCLIP(model).run_with_cache(images)
    unit = nn.functional.normalize(cache["blocks.3.hook_resid_post"][:, 1:], dim=-1)
    cosine = unit @ unit.mT
    assert torch.allclose(cache["stage6.similarity"], cosine, atol=1e-5)
    kept = cache["stage6.thresholded"]
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
    assert torch.allclose(
        model.encode_text(prompts, batch=3), model.encode_text(prompts), atol=1e-6
    )


def test_images_on_another_device_are_refused_and_not_moved(model):
    told = r"images must be torch\.float32 on cpu like the model, got torch\.float32 on meta"
    with pytest.raises(ValueError, match=told):
        SCCLIP(model).features(torch.zeros(1, 3, 32, 32, device="meta"))
