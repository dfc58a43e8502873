"""The promises of the whole pipeline: frozen, repeatable, batched, and each switch its own stage."""

import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig
from scclip_core.pipeline import upsample
from tests.conftest import TEXT, tiny_clip

PRESETS = {
    "seed": SCCLIPConfig(),
    "reference": SCCLIPConfig.reference(),
    "maskclip": SCCLIPConfig.maskclip(),
    "vanilla": SCCLIPConfig.vanilla(),
}
WORDS = ["dog", "cat|kitten", "grass"]


@pytest.fixture(params=PRESETS)
def segmenter(request, model):
    return SCCLIP(model, PRESETS[request.param])


def test_nothing_of_the_model_changes(segmenter, images):
    before = {name: tensor.clone() for name, tensor in segmenter.model.state_dict().items()}
    given = images.clone()
    segmenter.segment(images, WORDS)
    segmenter.trace(images, WORDS)
    after = segmenter.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(images, given)
    assert not any(p.requires_grad for p in segmenter.parameters())
    assert not segmenter.model.clip.training


def test_outputs_repeat_bit_for_bit(segmenter, images):
    assert torch.equal(segmenter.features(images), segmenter.features(images))


def test_a_batch_equals_its_images_one_by_one(segmenter, images):
    apart = torch.cat([segmenter.features(one) for one in images.split(1)])
    assert (segmenter.features(images) - apart).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (32, 32), (96, 160), (160, 64)])
def test_any_grid_gives_features_of_that_grid(segmenter, size):
    features = segmenter.features(torch.randn(2, 3, *size))
    assert features.shape == (2, size[0] // 16, size[1] // 16, 24)
    assert torch.allclose(features.norm(dim=-1), torch.ones(features.shape[:-1]), atol=1e-5)


def test_label_maps_have_image_size_and_index_the_classes(segmenter, images):
    labels = segmenter.segment(images, WORDS)
    assert labels.shape == (3, 128, 128)
    assert labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_one_class_covers_everything(segmenter, images):
    assert not segmenter.segment(images, ["dog"]).any()


def test_segment_is_the_largest_upsampled_logit(segmenter, images):
    words = ["dog", "cat", "grass"]
    _, text = segmenter.embed_classes(words)
    expected = upsample(segmenter.logits(images, text), (128, 128)).argmax(1)
    assert torch.equal(segmenter.segment(images, words), expected)


def test_vanilla_is_open_clips_own_forward_read_densely(model, images):
    visual = model.clip.visual
    kept = visual.output_tokens
    visual.output_tokens = True
    _, tokens = visual(images)  # patch tokens after ln_post
    visual.output_tokens = kept
    ours = SCCLIP(model, SCCLIPConfig.vanilla()).features(images, normalize=False).flatten(1, 2)
    assert (ours - tokens @ visual.proj).abs().max() <= 1e-5


def test_maskclip_is_the_last_blocks_values_alone(model, images):
    trace = SCCLIP(model, PRESETS["maskclip"]).trace(images)
    last, visual = model.blocks[-1], model.clip.visual
    tokens = last.ln_1(trace["block_10"].tensor[:, 1:])
    width = tokens.shape[-1]
    values = F.linear(tokens, last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :])
    expected = visual.ln_post(last.attn.out_proj(values)) @ visual.proj
    assert torch.allclose(trace["projected"].tensor, expected, atol=1e-5)


# switch -> the tensors of its own stage, and the first of the others that it changes
OWN = {
    "repair": {"lof_scores", "anomalous", "repaired_penultimate", "repaired_mid"},
    "first_aggregation": {"similarity_mid", "aggregated_pre"},
    "calibrated_attention": {"content_attention"},
    "class_residual": {"residual_main", "residual_aux"},
    "second_aggregation": {"similarity_shallow", "aggregated_post_main", "aggregated_post_aux"},
    "fusion": {"fused_layers", "attention_aux", "residual_aux", "aggregated_post_aux", "fused"},
}
FIRST_CHANGED = {
    "repair": "similarity_mid_raw",
    "first_aggregation": "attention_main",
    "calibrated_attention": "attention_main",
    "class_residual": "aggregated_post_main",
    "second_aggregation": "fused",
    "fusion": "projected",
}


@pytest.mark.parametrize("switch", OWN)
def test_a_switch_removes_its_own_stage_and_changes_only_what_follows(model, images, switch):
    full = SCCLIP(model, SCCLIPConfig()).trace(images)
    without = SCCLIP(model, replace(SCCLIPConfig(), **{switch: False})).trace(images)
    assert set(full) - set(without) == OWN[switch]
    shared = [name for name in full if name in without]
    assert shared == list(without)
    changed = [name for name in shared if not torch.equal(full[name].tensor, without[name].tensor)]
    assert changed[0] == FIRST_CHANGED[switch]
    assert changed[-1] == "features"


def test_the_second_aggregation_leaves_the_attention_of_both_branches_alone(model, images):
    full = SCCLIP(model, SCCLIPConfig()).trace(images)
    without = SCCLIP(model, SCCLIPConfig(second_aggregation=False)).trace(images)
    for name in ("attention_main", "attention_aux", "residual_main", "residual_aux"):
        assert torch.equal(full[name].tensor, without[name].tensor)


def test_fusion_adds_the_auxiliary_branch_to_the_main_one(model, images):
    trace = SCCLIP(model).trace(images)
    layers = sum(trace[f"block_{i}"].tensor for i in range(3, 10))
    assert torch.allclose(trace["fused_layers"].tensor, layers, atol=1e-5)
    both = trace["aggregated_post_main"].tensor + trace["aggregated_post_aux"].tensor
    assert torch.equal(trace["fused"].tensor, both)


def test_a_trace_walks_from_the_image_to_the_segmentation(model, images):
    trace = SCCLIP(model).trace(images, WORDS)
    shapes = {row["tensor"]: row["shape"] for row in trace.rows()}
    assert shapes["images"] == "[3, 3, 128, 128]"
    assert shapes["embedded"] == shapes["block_0"] == shapes["block_10"] == "[3, 65, 64]"
    assert shapes["lof_scores"] == "[3, 64]"
    assert shapes["similarity_mid"] == shapes["content_attention"] == "[3, 64, 64]"
    assert shapes["projected"] == "[3, 64, 24]"
    assert shapes["logits"] == "[3, 8, 8, 3]"
    assert shapes["segmentation"] == "[3, 3, 128, 128]"
    stages = [row["stage"] for row in trace.rows()]
    assert set(stages) == set(range(1, 9))


def test_a_trace_is_the_same_run(segmenter, images):
    features = segmenter.trace(images)["features"].tensor.unflatten(1, (8, 8))
    assert torch.equal(features, segmenter.features(images))


def test_a_grid_with_fewer_patches_than_neighbours_lowers_k(model):
    trace = SCCLIP(model).trace(torch.randn(1, 3, 64, 64))
    assert "k = 15" in trace["lof_scores"].note
    assert "lof_scores" not in SCCLIP(model).trace(torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_keep_scores_in_float32_at_least(images, dtype):
    segmenter = SCCLIP(FrozenCLIP(tiny_clip()).to(dtype=dtype))
    trace = segmenter.trace(images.to(dtype), WORDS)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name in ("lof_scores", "similarity_mid_raw", "content_attention", "logits", "text"):
        assert trace[name].tensor.dtype == wide, name
    assert trace["features"].tensor.dtype == dtype
    assert segmenter.segment(images.to(dtype), WORDS).shape == (3, 128, 128)


def test_float32_agrees_with_float64(model, images):
    double = SCCLIP(FrozenCLIP(tiny_clip()).double()).features(images.double())
    assert (SCCLIP(model).features(images) - double).abs().max() <= 1e-4


def test_an_open_clip_model_is_taken_as_it_is(images):
    clip = tiny_clip()
    assert torch.equal(SCCLIP(clip).features(images), SCCLIP(FrozenCLIP(clip)).features(images))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's own compiler needs a C++ one")
@pytest.mark.parametrize("config", [SCCLIPConfig(), SCCLIPConfig.reference()])
def test_compiled_features_agree_with_eager_ones(model, images, config):
    segmenter = SCCLIP(model, config)
    compiled = torch.compile(segmenter.features, fullgraph=True)
    assert (compiled(images) - segmenter.features(images)).abs().max() <= 1e-4


def test_the_features_compile_into_one_graph(model, images):
    segmenter = SCCLIP(model)
    eager = segmenter.features(images)
    compiled = torch.compile(segmenter.features, fullgraph=True, backend="aot_eager")
    assert (compiled(images) - eager).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((3, 128, 128), "images must be .batch, 3, height, width., got shape .3, 128, 128."),
        ((1, 1, 128, 128), "images must be .batch, 3, height, width."),
        ((0, 3, 128, 128), "images must be .batch, 3, height, width."),
        ((1, 3, 128, 120), "multiples of the patch, 16, got 128 x 120"),
        ((1, 3, 0, 16), "multiples of the patch, 16, got 0 x 16"),
    ],
)
def test_images_of_another_shape_are_refused(model, shape, told):
    with pytest.raises(ValueError, match=told):
        SCCLIP(model).features(torch.zeros(shape))


def test_images_of_another_precision_are_refused_and_not_converted(model, images):
    with pytest.raises(ValueError, match=r"images must be torch.float32 on cpu like the model"):
        SCCLIP(model).features(images.double())


def test_text_of_another_width_is_refused(model, images):
    with pytest.raises(ValueError, match=r"text must be \[names, 24\], got shape \(2, 7\)"):
        SCCLIP(model).logits(images, torch.zeros(2, 7))


def test_layers_that_the_model_lacks_are_refused_when_the_two_meet():
    with pytest.raises(ValueError, match="pre_adjust_idx must be at most 4 in a model of 6 blocks"):
        SCCLIP(tiny_clip(layers=6), SCCLIPConfig())
    with pytest.raises(ValueError, match="depth must be one with known layers"):
        SCCLIP(tiny_clip(layers=6))


def test_text_configuration_of_the_tests_reads_the_tokenizer(model):
    assert model.encode_text(["a photo of a dog"]).shape == (1, 24)
    assert model.tokenizer.context_length == TEXT["context_length"]
