"""SC-CLIP stage by stage: what each switch removes, which tensors it changes, and any grid."""

import shutil
from dataclasses import replace

import pytest
import torch

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig, make_method
from scclip_core.anomaly import local_outlier_factor
from scclip_core.config import SWITCHES
from tests.conftest import tiny_clip

CONFIGS = {"article": SCCLIPConfig(), "published": SCCLIPConfig.published()}
WORDS = ["dog", "cat|kitten", "grass"]


@pytest.fixture(params=CONFIGS)
def segmenter(request, model):
    return SCCLIP(model, CONFIGS[request.param])


@pytest.fixture(scope="module")
def cache(model, images):
    return SCCLIP(model).run_with_cache(images)[1]


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (32, 32), (96, 160), (160, 64)])
def test_any_grid_gives_features_of_that_grid(segmenter, size):
    features = segmenter.features(torch.randn(2, 3, *size))
    assert features.shape == (2, size[0] // 16, size[1] // 16, 24)
    assert torch.allclose(features.norm(dim=-1), torch.ones(features.shape[:-1]), atol=1e-5)


def test_with_every_switch_off_what_remains_is_the_baseline_values(model, images):
    off = SCCLIP(model, SCCLIPConfig(**dict.fromkeys(SWITCHES, False)))
    values = make_method("values", model)
    assert torch.equal(off.features(images), values.features(images))
    _, names = off.run_with_cache(images)
    assert [name for name in names if name.startswith("stage")] == [
        "stage5.attention",
        "stage8.projected",
        "stage8.features",
    ]


# switch -> the tensors of its own stage, and the first of the others that it changes
OWN = {
    "repair": {"stage3.lof_scores", "stage3.anomalous", "stage3.repaired", "stage4.repaired"},
    "first_aggregation": {"stage4.thresholded", "stage4.aggregated"},
    "calibrated_attention": {"stage5.content_attention"},
    "class_residual": {"stage5.class_residual", "stage7.class_residual"},
    "second_aggregation": {
        "stage6.similarity",
        "stage6.thresholded",
        "stage6.aggregated",
        "stage7.aggregated",
    },
    "fusion": {
        "stage7.summed_layers",
        "stage7.attention",
        "stage7.class_residual",
        "stage7.aggregated",
        "stage7.fused",
    },
}
FIRST_CHANGED = {
    "repair": "stage4.similarity",
    "first_aggregation": "stage5.attention",
    "calibrated_attention": "stage5.attention",
    "class_residual": "stage6.aggregated",
    "second_aggregation": "stage7.fused",
    "fusion": "stage8.projected",
}


def test_every_switch_has_its_tensors():
    assert set(OWN) == set(FIRST_CHANGED) == set(SWITCHES)


@pytest.mark.parametrize("switch", OWN)
def test_a_switch_removes_its_own_stage_and_changes_only_what_follows(model, images, cache, switch):
    config = replace(SCCLIPConfig(), **{switch: False})
    _, without = SCCLIP(model, config).run_with_cache(images)
    assert set(cache) - set(without) == OWN[switch]
    shared = [name for name in cache if name in without]
    assert shared == list(without)
    changed = [name for name in shared if not torch.equal(cache[name], without[name])]
    assert changed[0] == FIRST_CHANGED[switch]
    assert changed[-1] == "stage8.features"


def test_the_second_aggregation_leaves_the_attention_of_both_branches_alone(model, images, cache):
    config = SCCLIPConfig(second_aggregation=False)
    _, without = SCCLIP(model, config).run_with_cache(images)
    for stage in ("stage5", "stage7"):
        for name in (f"{stage}.attention", f"{stage}.class_residual"):
            assert torch.equal(cache[name], without[name])


def test_either_use_of_the_middle_similarity_alone_still_computes_it(model, images):
    for user in ("first_aggregation", "calibrated_attention"):
        switches = dict.fromkeys(SWITCHES, False) | {user: True}
        _, cache = SCCLIP(model, SCCLIPConfig(**switches)).run_with_cache(images)
        assert "stage4.similarity" in cache


def test_fusion_adds_the_auxiliary_branch_to_the_main_one(cache):
    layers = sum(cache[f"blocks.{i}.hook_resid_post"] for i in range(3, 10))
    assert torch.allclose(cache["stage7.summed_layers"], layers, atol=1e-5)
    both = cache["stage6.aggregated"] + cache["stage7.aggregated"]
    assert torch.equal(cache["stage7.fused"], both)


def test_both_branches_attend_by_the_same_content(model, images, cache):
    segmenter = SCCLIP(model)
    content, summed = cache["stage5.content_attention"], cache["stage7.summed_layers"]
    again = segmenter.attend(summed[:, :1], summed[:, 1:], content, "stage7")
    assert torch.equal(again, cache["stage7.class_residual"])


def test_a_grid_with_fewer_patches_than_neighbours_lowers_k(model):
    segmenter = SCCLIP(model)
    _, cache = segmenter.run_with_cache(torch.randn(1, 3, 64, 64))
    patches = cache["blocks.10.hook_resid_post"][:, 1:]  # 16 patches
    assert torch.equal(cache["stage3.lof_scores"], local_outlier_factor(patches, 7))


def test_k_is_the_one_asked_for_where_there_are_patches_enough(model, images, cache):
    patches = cache["blocks.10.hook_resid_post"][:, 1:]  # 64 patches
    assert torch.equal(cache["stage3.lof_scores"], local_outlier_factor(patches, 30))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_keep_scores_in_float32_at_least(images, dtype):
    segmenter = SCCLIP(FrozenCLIP(tiny_clip()).to(dtype=dtype))
    features, cache = segmenter.run_with_cache(images.to(dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name in ("stage3.lof_scores", "stage4.similarity", "stage5.content_attention"):
        assert cache[name].dtype == wide, name
    assert features.dtype == cache["stage8.features"].dtype == dtype
    _, text = segmenter.embed_classes(WORDS)
    assert text.dtype == segmenter.logits(images.to(dtype), text).dtype == wide
    assert segmenter.segment(images.to(dtype), WORDS).shape == (3, 128, 128)


def test_float32_agrees_with_float64(model, images):
    double = SCCLIP(FrozenCLIP(tiny_clip()).double()).features(images.double())
    assert (SCCLIP(model).features(images) - double).abs().max() <= 1e-4


def test_an_open_clip_model_is_taken_as_it_is(images):
    clip = tiny_clip()
    assert torch.equal(SCCLIP(clip).features(images), SCCLIP(FrozenCLIP(clip)).features(images))


def test_without_a_config_the_layers_are_those_of_the_models_depth():
    assert SCCLIP(tiny_clip()).config == SCCLIPConfig()
    for depth in (8, 24):
        assert SCCLIP(tiny_clip(layers=depth)).config == SCCLIPConfig.for_depth(depth)


def test_a_config_for_another_depth_is_refused_with_the_right_values():
    told = "for the model's 24 blocks.*meant for 12: .*pre_adjust_idx=16.*res_cls=0.1"
    with pytest.raises(ValueError, match=told):
        SCCLIP(tiny_clip(layers=24), SCCLIPConfig())
    with pytest.raises(ValueError, match=r"for the model's 12 blocks.*meant for 24"):
        SCCLIP(tiny_clip(), SCCLIPConfig.published(24))
    with pytest.raises(ValueError, match=r"for_depth\(6\) has layers of the same relative"):
        SCCLIP(tiny_clip(layers=6), SCCLIPConfig())
    with pytest.raises(ValueError, match="choose layers for it, and say so with depth=3"):
        SCCLIP(tiny_clip(layers=3), SCCLIPConfig())
    with pytest.raises(ValueError, match="depth must be a whole number >= 4, got 3"):
        SCCLIP(tiny_clip(layers=3))


def test_layers_chosen_for_a_depth_of_ones_own_are_taken():
    layers = {"pre_adjust_idx": 4, "post_adjust_idx": 1, "multi_start_idx": 1, "multi_end_idx": 5}
    segmenter = SCCLIP(tiny_clip(layers=6), SCCLIPConfig(depth=6, **layers))
    _, cache = segmenter.run_with_cache(torch.randn(1, 3, 64, 64))
    layers = sum(cache[f"blocks.{i}.hook_resid_post"] for i in range(1, 5))
    assert torch.allclose(cache["stage7.summed_layers"], layers, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's own compiler needs a C++ one")
def test_compiled_features_agree_with_eager_ones(segmenter, images):
    compiled = torch.compile(segmenter.features, fullgraph=True)
    assert (compiled(images) - segmenter.features(images)).abs().max() <= 1e-4
