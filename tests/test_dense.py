"""What every method promises: frozen, repeatable, batched, and its tensors open to a look."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from scclip_core import METHODS, SCCLIP, DenseCLIP, FrozenCLIP, SCCLIPConfig, make_method
from scclip_core.gem import GEM
from scclip_core.last_block import NACLIP, Vanilla
from scclip_core.registers import Registers
from scclip_core.resclip import ResCLIP
from scclip_core.rfclip import RFCLIP
from scclip_core.segmentation import upsample
from scclip_core.text import max_over_names
from tests.conftest import TEXT, tiny_clip

# The tiny model finds each of these in a picture of noise.
WORDS = ["car", "cup|train", "road"]


@pytest.fixture(params=METHODS)
def method(request, model):
    """Every method, one after the other."""
    return make_method(request.param, model)


@pytest.fixture(scope="module")
def segmenter(model):
    return SCCLIP(model)


# The promises of every method.


def test_nothing_of_the_model_and_of_the_images_changes(method, images, picture):
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    given = images.clone()
    method.segment(images, WORDS)
    method.trace(images, WORDS)
    method.predict(picture, WORDS, scores=True)
    method.run_with_hooks(images, {"stage8.features": lambda features: -features})
    after = method.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(images, given)
    assert not any(p.requires_grad for p in method.parameters())
    assert not any(module.training for module in method.modules())


def test_no_output_carries_a_gradient(method, images):
    assert not method(images.clone().requires_grad_()).requires_grad
    _, text = method.embed_classes(WORDS)
    assert not method.logits(images, text.clone().requires_grad_()).requires_grad


def test_outputs_repeat_bit_for_bit(method, images):
    assert torch.equal(method.features(images), method.features(images))


def test_a_batch_equals_its_images_one_by_one(method, images):
    apart = torch.cat([method.features(one) for one in images.split(1)])
    assert (method.features(images) - apart).abs().max() <= 1e-5


def test_features_have_the_images_grid_and_unit_length(method):
    features = method.features(torch.randn(2, 3, 48, 80))
    assert features.shape == (2, 3, 5, 24)
    assert torch.allclose(features.norm(dim=-1), torch.ones(2, 3, 5), atol=1e-5)


def test_features_that_are_not_normalised_are_the_projected_tokens(method, images):
    plain = method.features(images, normalize=False)
    assert torch.allclose(nn.functional.normalize(plain, dim=-1), method(images), atol=1e-6)
    assert (plain.norm(dim=-1) - 1).abs().max() > 0.1


def test_label_maps_have_image_size_and_index_the_classes(method, images):
    labels = method.segment(images, WORDS)
    assert labels.shape == (3, 128, 128)
    assert labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_segment_is_the_largest_upsampled_logit(method, images):
    words = ["car", "cup", "road"]
    _, text = method.embed_classes(words)
    expected = upsample(method.logits(images, text), (128, 128)).argmax(1)
    assert torch.equal(method.segment(images, words), expected)
    assert len(expected.unique()) > 1


def test_one_class_covers_everything(segmenter, images):
    assert not segmenter.segment(images, ["dog"]).any()


def test_a_segmenter_is_called_like_any_module(method, images):
    assert torch.equal(method(images), method.features(images))


def test_train_leaves_everything_in_evaluation_mode(method):
    whole = nn.Sequential(method)
    for change in (method.train, method.model.train, whole.train):
        change()
        assert not any(module.training for module in method.modules())
    assert method.train() is method
    assert method.model.train(True) is method.model


def test_the_features_compile_into_one_graph(method, images):
    torch.compiler.reset()  # what other methods compiled counts towards a limit
    compiled = torch.compile(method.features, fullgraph=True, backend="aot_eager")
    assert (compiled(images) - method.features(images)).abs().max() <= 1e-4


def test_a_plain_open_clip_model_is_frozen_in_place():
    clip = tiny_clip().train()
    for name in METHODS:
        method = make_method(name, clip)
        assert method.model.clip is clip
        assert not any(module.training for module in method.modules())
    assert not any(p.requires_grad for p in clip.parameters())


def test_a_method_without_dense_tokens_cannot_be_made(model):
    class Unfinished(DenseCLIP):
        config_class = SCCLIPConfig

    with pytest.raises(TypeError, match="dense_tokens"):
        Unfinished(model)


def test_a_sentence_is_cut_where_the_models_own_context_ends(model):
    words = ["word"] * TEXT["context_length"]
    long, longer = model.encode_text([" ".join(words), " ".join(words * 3)])
    assert torch.equal(long, longer)


# What is refused.


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((3, 128, 128), "images must be .batch, 3, height, width., got shape .3, 128, 128."),
        ((3, 3, 128), "images must be .batch, 3, height, width."),
        ((1, 3, 128, 128, 1), "images must be .batch, 3, height, width."),
        ((1, 4, 128, 128), "images must be .batch, 3, height, width."),
        ((1, 1, 128, 128), "images must be .batch, 3, height, width."),
        ((0, 3, 128, 128), "images must be .batch, 3, height, width."),
        ((1, 3, 128, 120), "multiples of the patch, 16, got 128 x 120"),
        ((1, 3, 120, 128), "multiples of the patch, 16, got 120 x 128"),
        ((1, 3, 0, 16), "multiples of the patch, 16, got 0 x 16"),
    ],
)
def test_images_of_another_shape_are_refused(segmenter, shape, told):
    with pytest.raises(ValueError, match=told):
        segmenter.features(torch.zeros(shape))


def test_images_of_another_precision_are_refused_and_not_converted(segmenter, images):
    told = r"images must be torch.float32 on cpu like the model, got torch.float64 on cpu"
    with pytest.raises(ValueError, match=told):
        segmenter.features(images.double())


@pytest.mark.parametrize("shape", [(2, 7), (2, 25), (24,), (1, 2, 24), (2, 24, 1)])
def test_text_of_another_shape_is_refused(segmenter, images, shape):
    told = rf"text must be \[names, 24\], got shape \({', '.join(map(str, shape))}"
    with pytest.raises(ValueError, match=told):
        segmenter.logits(images, torch.zeros(shape))


FILE = "dog.png"
ARRAY = np.zeros((1, 3, 32, 32), np.float32)
NO_IMAGES = "call predict(picture, classes), or preprocess(picture) first"
NO_TEXT = "call names, text = embed_classes(classes) first"
NO_MODEL = "load one with load_clip(name, pretrained)"
# what is called, the argument that has a wrong type, what was given, what to do instead
WRONG = {
    "a path as images": (lambda s, _: s.features(FILE), "images", "str", NO_IMAGES),
    "an array as images": (lambda s, _: s.features(ARRAY), "images", "ndarray", NO_IMAGES),
    "a PIL image as images": (lambda s, p: s.features(p), "images", "Image", NO_IMAGES),
    "a call with a path": (lambda s, _: s(FILE), "images", "str", NO_IMAGES),
    "a list of images": (lambda s, _: s.segment([ARRAY], WORDS), "images", "list", NO_IMAGES),
    "a picture to segment": (lambda s, p: s.segment(p, WORDS), "images", "Image", NO_IMAGES),
    "a path to trace": (lambda s, _: s.trace(FILE, WORDS), "images", "str", NO_IMAGES),
    "a path to cache": (lambda s, _: s.run_with_cache(FILE), "images", "str", NO_IMAGES),
    "a path to hooks": (lambda s, _: s.run_with_hooks(FILE, {}), "images", "str", NO_IMAGES),
    "words as text": (lambda s, _: s.logits(torch.zeros(1), WORDS), "text", "list", NO_TEXT),
    "both embeddings as text": (
        lambda s, _: s.logits(torch.zeros(1), ([("dog",)], torch.zeros(1, 24))),
        "text",
        "tuple",
        NO_TEXT,
    ),
    "a string as classes to segment": (
        lambda s, _: s.segment(torch.zeros(1, 3, 32, 32), "dog, cat"),
        "classes",
        "'dog, cat'",
        "must be a list of names, such as ['dog', 'cat']",
    ),
    "a string as classes to predict": (
        lambda s, p: s.predict(p, "dog"),
        "classes",
        "'dog'",
        "must be a list of names",
    ),
    "a string as classes to trace": (
        lambda s, _: s.trace(torch.zeros(1, 3, 32, 32), "dog"),
        "classes",
        "'dog'",
        "must be a list of names",
    ),
    "a number as a picture": (
        lambda s, _: s.predict(3, WORDS),
        "picture",
        "int",
        "must be a path, a PIL image, an array or a tensor",
    ),
    "a half window": (
        lambda s, p: s.predict(p, WORDS, window=128.0),
        "window",
        "float 128.0",
        "must be a whole number of pixels",
    ),
    "a side in words": (
        lambda s, p: s.predict(p, WORDS, short_side="128"),
        "short_side",
        "str '128'",
        "must be a whole number of pixels",
    ),
    "a stride in words": (
        lambda s, p: s.predict(p, WORDS, stride="64"),
        "stride",
        "str '64'",
        "must be a whole number of pixels",
    ),
    "a dictionary as config": (
        lambda s, _: SCCLIP(s.model, {"beta": 0.5}),
        "config",
        "dict",
        "make one with SCCLIPConfig(name=value)",
    ),
    "a baseline's config": (
        lambda s, _: SCCLIP(s.model, Vanilla(s.model).config),
        "config",
        "BaselineConfig",
        "make one with SCCLIPConfig(name=value)",
    ),
    "a dictionary as a baseline's config": (
        lambda s, _: NACLIP(s.model, {"sigma": 3.0}),
        "config",
        "dict",
        "make one with NACLIPConfig(name=value)",
    ),
    "a config before the model": (
        lambda s, _: SCCLIP(SCCLIPConfig(), s.model),
        "config",
        "FrozenCLIP",
        "SCCLIPConfig",
    ),
    "a name as the model": (lambda s, _: SCCLIP("mini"), "model", "str", NO_MODEL),
    "no model": (lambda s, _: SCCLIP(None), "model", "NoneType", NO_MODEL),
    "another module as the model": (
        lambda s, _: GEM(nn.Linear(2, 2)),
        "model",
        "Linear",
        NO_MODEL,
    ),
    "a name as the model of make_method": (
        lambda s, _: make_method("gem", "mini"),
        "model",
        "str",
        NO_MODEL,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_is_told_with_what_to_call_instead_before_any_computing(
    case, segmenter, picture, monkeypatch
):
    call, argument, given, instead = WRONG[case]
    for computing in ("embed", "encode_text"):
        monkeypatch.setattr(FrozenCLIP, computing, lambda *_: pytest.fail("something was computed"))
    with pytest.raises(TypeError) as error:
        call(segmenter, picture)
    told = str(error.value)
    assert told.startswith(f"{argument} must be ")
    assert f"got {given}" in told
    assert instead in told
    assert "\n" not in told


# Named tensors.


def test_a_cache_holds_every_tensor_in_the_order_of_the_computation(segmenter, images):
    _, cache = segmenter.run_with_cache(images)
    blocks = [f"blocks.{i}.hook_resid_post" for i in range(11)]
    assert list(cache)[:12] == ["hook_embed", *blocks]
    assert list(cache)[12:] == [
        "stage3.lof_scores",
        "stage3.anomalous",
        "stage3.repaired",
        "stage4.repaired",
        "stage4.similarity",
        "stage4.thresholded",
        "stage4.aggregated",
        "stage5.content_attention",
        "stage5.attention",
        "stage5.class_residual",
        "stage6.similarity",
        "stage6.thresholded",
        "stage6.aggregated",
        "stage7.summed_layers",
        "stage7.attention",
        "stage7.class_residual",
        "stage7.aggregated",
        "stage7.fused",
        "stage8.projected",
        "stage8.features",
    ]


def test_a_run_with_a_cache_is_a_plain_run_bit_for_bit(method, images):
    features, cache = method.run_with_cache(images)
    assert torch.equal(features, method.features(images))
    assert torch.equal(cache["stage8.features"].unflatten(1, (8, 8)), features)
    _, again = method.run_with_cache(images)
    assert list(cache) == list(again)
    assert all(torch.equal(cache[name], again[name]) for name in cache)


def test_the_cached_blocks_are_those_of_the_model_itself(method, images):
    _, cache = method.run_with_cache(images)
    tokens = method.model.embed(images)
    assert torch.equal(cache["hook_embed"], tokens)
    for i, block in enumerate(method.model.blocks):
        tokens = block(tokens)
        name = f"blocks.{i}.hook_resid_post"
        if name not in cache or isinstance(method, Registers | RFCLIP):
            continue  # these two change what goes into the blocks
        if isinstance(method, ResCLIP):  # forms the attention of some blocks itself
            assert torch.allclose(cache[name], tokens, atol=1e-4), name
        else:
            assert torch.equal(cache[name], tokens), name
    # all but the last are run by every method
    assert {f"blocks.{i}.hook_resid_post" for i in range(11)} <= set(cache)


def test_names_and_patterns_filter_the_cache(segmenter, images):
    features, cache = segmenter.run_with_cache(images, "stage5.attention")
    assert list(cache) == ["stage5.attention"]
    assert torch.equal(features, segmenter.features(images))
    _, cache = segmenter.run_with_cache(images, ["blocks.[38].*", "stage8.*"])
    assert list(cache) == [
        "blocks.3.hook_resid_post",
        "blocks.8.hook_resid_post",
        "stage8.projected",
        "stage8.features",
    ]
    _, everything = segmenter.run_with_cache(images)
    assert all(torch.equal(cache[name], everything[name]) for name in cache)


@pytest.mark.parametrize("pattern", ["stage9.*", "Stage4.*", "stage4", "blocks.11.hook_resid_post"])
def test_a_pattern_that_matches_nothing_lists_what_there_is(segmenter, images, pattern):
    told = rf"names must match a named tensor, got '{pattern}'.*; of: hook_embed, .*features$"
    told = told.replace("*'", r"\*'")
    with pytest.raises(ValueError, match=told):
        segmenter.run_with_cache(images, ["stage3.*", pattern])


def recorded(segmenter, images, changes):
    """Every named tensor of a run in which `changes` (name -> function) replace some."""
    _, names = segmenter.run_with_cache(images)
    found = {}

    def hook(name):
        def observe(tensor):
            found[name] = changes[name](tensor) if name in changes else tensor
            return found[name]

        return observe

    segmenter.run_with_hooks(images, {name: hook(name) for name in names})
    return found


def test_a_hook_that_returns_what_it_gets_changes_nothing_bit_for_bit(method, images):
    plain, cache = method.run_with_cache(images)
    for identity in (lambda tensor: tensor, lambda tensor: None):
        hooked = method.run_with_hooks(images, dict.fromkeys(cache, identity))
        assert torch.equal(hooked, plain)


# a tensor that is replaced, and the first and some of the tensors that it reaches or does not
REACHES = {
    "blocks.9.hook_resid_post": (
        {"blocks.10.hook_resid_post", "stage3.lof_scores", "stage7.summed_layers"},
        {"blocks.8.hook_resid_post", "stage6.similarity"},
    ),
    "stage4.similarity": (
        {"stage4.thresholded", "stage5.content_attention", "stage7.attention"},
        {"stage3.repaired", "stage6.similarity", "stage7.summed_layers"},
    ),
    "stage5.content_attention": (
        {"stage5.attention", "stage7.attention", "stage8.features"},
        {"stage4.aggregated", "stage6.thresholded"},
    ),
    "stage5.attention": (
        {"stage5.class_residual", "stage6.aggregated", "stage7.fused"},
        {"stage7.attention", "stage7.aggregated"},
    ),
    "stage7.attention": (
        {"stage7.class_residual", "stage7.aggregated", "stage7.fused"},
        {"stage5.attention", "stage6.aggregated"},
    ),
}


@pytest.mark.parametrize("name", REACHES)
def test_a_replaced_tensor_changes_what_follows_from_it_and_only_that(segmenter, images, name):
    plain = recorded(segmenter, images, {})
    changed = recorded(segmenter, images, {name: lambda tensor: tensor.roll(1, 1)})
    order, (reached, untouched) = list(plain), REACHES[name]
    different = {n for n in order if not torch.equal(plain[n], changed[n])}
    assert min(map(order.index, different)) == order.index(name)
    assert reached | {"stage8.projected", "stage8.features"} <= different
    assert not untouched & different


def test_the_replacement_itself_is_what_goes_on(segmenter, images):
    features = torch.randn(3, 64, 24)
    hooked = segmenter.run_with_hooks(images, {"stage8.features": lambda _: features})
    assert torch.equal(hooked, features.unflatten(1, (8, 8)))


def test_an_ablation_by_hooks_is_the_ablation_by_a_switch(model, images):
    _, cache = SCCLIP(model).run_with_cache(images, "blocks.10.*")
    _, middle = SCCLIP(model).run_with_cache(images, "blocks.8.*")
    hooked = SCCLIP(model).run_with_hooks(
        images,
        {
            "stage3.repaired": lambda _: cache["blocks.10.hook_resid_post"][:, 1:],
            "stage4.repaired": lambda _: middle["blocks.8.hook_resid_post"][:, 1:],
        },
    )
    switched = SCCLIP(model, replace(SCCLIPConfig(), repair=False)).features(images)
    assert torch.equal(hooked, switched)


@pytest.mark.parametrize("name", ["stage9.features", "stage4.*", "stage8.logits"])
def test_a_hook_that_is_never_reached_is_refused(segmenter, images, name):
    told = "hooks must match a named tensor, got '" + name.replace("*", r"\*") + "'; of: hook_embed"
    with pytest.raises(ValueError, match=told):
        segmenter.run_with_hooks(images, {name: lambda tensor: tensor})


def test_an_exception_takes_the_observer_along(segmenter, images):
    plain, calls = segmenter.features(images), []

    def fail(tensor):
        calls.append(len(tensor))
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        segmenter.run_with_hooks(images, {"stage4.similarity": fail})
    with pytest.raises(TypeError, match="images must be a tensor"):
        segmenter.run_with_cache("dog.png")
    assert torch.equal(segmenter.features(images), plain)
    assert calls == [3]


def test_a_plain_run_after_a_watched_one_is_not_watched(segmenter, images):
    calls = []
    segmenter.run_with_hooks(images, {"stage8.features": lambda tensor: calls.append(1)})
    segmenter.features(images)
    assert calls == [1]


# The table.


def test_a_trace_walks_from_the_images_to_the_segmentation(segmenter, images):
    rows = segmenter.trace(images, WORDS)
    assert list(rows[0]) == ["stage", "tensor", "shape", "what happened"]
    shapes = {row["tensor"]: row["shape"] for row in rows}
    assert shapes["images"] == "[3, 3, 128, 128]"
    for name in ("hook_embed", "blocks.0.hook_resid_post", "blocks.10.hook_resid_post"):
        assert shapes[name] == "[3, 65, 64]"
    assert shapes["stage3.lof_scores"] == "[3, 64]"
    assert shapes["stage4.thresholded"] == shapes["stage5.content_attention"] == "[3, 64, 64]"
    assert shapes["stage8.projected"] == "[3, 64, 24]"
    assert shapes["stage8.text"] == "[4, 24]"  # four names
    assert shapes["stage8.logits"] == "[3, 8, 8, 3]"  # three classes
    assert shapes["stage8.segmentation"] == "[3, 3, 128, 128]"
    stages = [row["stage"] for row in rows]
    assert set(stages) == set(range(1, 9))
    assert (stages[0], stages[-1]) == (1, 8)


def test_a_trace_tells_the_configuration_that_ran(model, images):
    config = SCCLIPConfig(beta=0.25, contamination=0.1, res_cls=0.7, pre_adjust_idx=6)
    notes = {row["tensor"]: row["what happened"] for row in SCCLIP(model, config).trace(images[:1])}
    assert notes["stage3.anomalous"] == "scores above the quantile 1 - 0.1 of the image"
    assert notes["stage4.similarity"] == "cosine similarity at layer 6"
    assert notes["stage4.thresholded"] == "similarities below 0.25 set to 0"
    assert notes["stage5.class_residual"] == "plus 0.7 of the class token"
    assert notes["blocks.0.hook_resid_post"] == "output of block 1 of 12"


def test_every_tensor_of_every_method_has_a_stage_and_a_note(method, images):
    rows = method.trace(images[:1], WORDS)
    names = [row["tensor"] for row in rows]
    assert len(names) == len(set(names))
    assert names[:2] == ["images", "hook_embed"]
    assert all(1 <= row["stage"] <= 8 and row["what happened"] for row in rows)
    without_classes = [row["tensor"] for row in method.trace(images[:1])]
    assert names[: len(without_classes)] == without_classes
    assert names[len(without_classes) :] == ["stage8.text", "stage8.logits", "stage8.segmentation"]


def test_logits_are_cosines_and_a_class_takes_its_best_name(segmenter, images):
    names, text = segmenter.embed_classes(WORDS)
    logits = segmenter.logits(images, text)
    assert logits.shape == (3, 8, 8, 4)
    assert torch.allclose(logits, segmenter.features(images) @ text.T, atol=1e-6)
    labels = upsample(max_over_names(logits, names), (128, 128)).argmax(1)
    assert torch.equal(labels, segmenter.segment(images, WORDS))
