"""A run's named tensors: kept in a cache, replaced by hooks, and listed by a trace."""

from dataclasses import replace

import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig
from scclip_core.registers import Registers
from scclip_core.resclip import ResCLIP
from scclip_core.rfclip import RFCLIP
from tests.conftest import CLASSES

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
    rows = segmenter.trace(images, CLASSES)
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
    rows = method.trace(images[:1], CLASSES)
    names = [row["tensor"] for row in rows]
    assert len(names) == len(set(names))
    assert names[:2] == ["images", "hook_embed"]
    assert all(1 <= row["stage"] <= 8 and row["what happened"] for row in rows)
    without_classes = [row["tensor"] for row in method.trace(images[:1])]
    assert names[: len(without_classes)] == without_classes
    assert names[len(without_classes) :] == ["stage8.text", "stage8.logits", "stage8.segmentation"]


def test_a_hook_may_look_into_the_same_method(segmenter, images):
    seen = []

    def look(tokens):
        segmenter.run_with_cache(images, "stage3.anomalous")
        return None

    hooks = {"stage4.similarity": look, "stage8.features": seen.append}
    segmenter.run_with_hooks(images, hooks)
    assert len(seen) == 1
