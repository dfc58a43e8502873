"""Attention patterns and values, named on request: what they are, and what writing them does."""

import pytest
import torch

from scclip_core import METHODS, SCCLIP, SCCLIPConfig, make_method
from scclip_core.clip import join_heads

PATTERNS, VALUES = "blocks.*.attn.hook_pattern", "blocks.*.attn.hook_v"
LAST = "blocks.11.attn.hook_pattern"
# How many tokens are read in the middle blocks and in the last one, where it is not 65: SC-CLIP and
# RF-CLIP read the patches alone there, and a register is one more everywhere.
TOKENS = {
    "scclip": (65, 64),
    "scclip-published": (65, 64),
    "rfclip": (65, 64),
    "registers": (66, 66),
}
# What the weights of a token in the last block sum to, where it is not 1; those of RF-CLIP sum to
# less, since it leaves the class token out after the softmax.
SUMS = {"sclip": 2.0, "resclip": 2.0}


@pytest.fixture(params=METHODS)
def name(request):
    """The name of every method, one after the other."""
    return request.param


def apart(found, expected):
    """The largest difference, as a share of the largest value."""
    return (found - expected).abs().max() / expected.abs().max()


def identity(pattern):
    return torch.eye(pattern.shape[-1]).expand_as(pattern)


def test_every_block_has_a_pattern_and_values_for_every_head(model, images, name):
    _, cache = make_method(name, model).run_with_cache(images, [PATTERNS, VALUES])
    for i in range(12):
        n = TOKENS.get(name, (65, 65))[i == 11]
        assert cache[f"blocks.{i}.attn.hook_pattern"].shape == (3, 2, n, n)
        assert cache[f"blocks.{i}.attn.hook_v"].shape == (3, 2, n, 32)


def test_the_weights_of_a_token_sum_to_one(model, images, name):
    _, cache = make_method(name, model).run_with_cache(images, PATTERNS)
    for place, pattern in cache.items():
        assert (pattern >= 0).all()
        expected, sums = SUMS.get(name, 1.0) if place == LAST else 1.0, pattern.sum(-1)
        if (name, place) == ("rfclip", LAST):
            assert (sums <= 1 + 1e-5).all() and (sums > 0.5).all()
        else:
            assert (sums - expected).abs().max() <= 1e-5, place


def test_a_middle_blocks_pattern_and_output_are_those_of_its_own_attention(model, images):
    names = [PATTERNS, VALUES, "hook_embed", "blocks.*.hook_resid_post"]
    _, cache = make_method("vanilla", model).run_with_cache(images, names)
    entering = cache["hook_embed"]
    for i, block in enumerate(model.blocks):
        x = block.ln_1(entering)
        output, weights = block.attn(x, x, x, need_weights=True, average_attn_weights=False)
        pattern, values = (cache[f"blocks.{i}.attn.hook_{what}"] for what in ("pattern", "v"))
        assert (pattern - weights).abs().max() <= 1e-5
        assert apart(join_heads(block, pattern @ values), output) <= 1e-5
        entering = cache[f"blocks.{i}.hook_resid_post"]


@pytest.mark.parametrize("name", ["values", "clearclip", "naclip"])
def test_without_residual_the_output_is_the_pattern_times_the_values(model, images, name):
    method = make_method(name, model)
    _, cache = method.run_with_cache(images, ["blocks.11.attn.*", "stage8.projected"])
    read = cache[LAST] @ cache["blocks.11.attn.hook_v"]
    expected = model.project(join_heads(model.blocks[-1], read)[:, 1:])
    assert apart(cache["stage8.projected"], expected) <= 1e-5


@pytest.mark.parametrize("config", [SCCLIPConfig(), SCCLIPConfig.published()])
@pytest.mark.parametrize(("place", "stage"), [("blocks.11", "stage5"), ("stage7", "stage7")])
def test_scclips_attention_is_its_pattern_times_its_values(model, images, config, place, stage):
    _, cache = SCCLIP(model, config).run_with_cache(images, [f"{place}.attn.*", f"{stage}.*"])
    pattern, values = (cache[f"{place}.attn.hook_{what}"] for what in ("pattern", "v"))
    assert (pattern.sum(-1) - 1).abs().max() <= 1e-5
    output = join_heads(model.blocks[-1], pattern @ values)
    assert apart(cache[f"{stage}.attention"], output) <= 1e-5


def test_half_of_scclips_pattern_is_the_content_attention(model, images):
    _, alone = SCCLIP(model, SCCLIPConfig(mix=1.0)).run_with_cache(images, LAST)
    _, cache = SCCLIP(model).run_with_cache(images, [LAST, "stage5.content_attention"])
    content = cache["stage5.content_attention"][:, None]
    assert torch.allclose(alone[LAST], content.expand_as(alone[LAST]), atol=1e-6)
    assert ((2 * cache[LAST] - content).sum(-1) - 1).abs().max() <= 1e-5


def test_what_is_asked_for_changes_outputs_by_rounding_alone(model, images, name):
    method = make_method(name, model)
    plain = method.features(images)
    asked, cache = method.run_with_cache(images, PATTERNS)
    assert (asked - plain).abs().max() <= 1e-4
    written = method.run_with_hooks(images, {place: lambda pattern: pattern for place in cache})
    assert torch.equal(written, asked)


def test_a_star_asks_for_no_pattern_and_changes_no_bit(model, images, name):
    method = make_method(name, model)
    features, cache = method.run_with_cache(images)
    assert not [place for place in cache if ".attn." in place]
    assert torch.equal(features, method.features(images))


# a method whose pattern is replaced by the identity, and the method that it then is
VALUE_PATHS = {
    "values": "values",
    "clearclip": "values",
    "naclip": "values",
    "vanilla": "maskclip",
    "maskclip": "maskclip",
    "sclip": "maskclip",
}


@pytest.mark.parametrize("name", VALUE_PATHS)
def test_the_identity_as_pattern_gives_the_value_path(model, images, name):
    written = make_method(name, model).run_with_hooks(images, {LAST: identity})
    expected = make_method(VALUE_PATHS[name], model).features(images)
    assert (written - expected).abs().max() <= 1e-5


def test_the_identity_as_scclips_pattern_is_its_attention_switched_off(model, images):
    rest = {"repair": False, "fusion": False, "first_aggregation": False}
    attending = make_method("scclip", model, **rest)
    off = make_method("scclip", model, **rest, calibrated_attention=False)
    written = attending.run_with_hooks(images, {LAST: identity})
    assert (written - off.features(images)).abs().max() <= 1e-5
    assert (attending.features(images) - off.features(images)).abs().max() > 1e-2


def test_a_pattern_written_into_a_middle_block_changes_it_and_what_follows(model, images):
    place = "blocks.4.attn.hook_pattern"
    found = {}
    hooks = {f"blocks.{i}.hook_resid_post": lambda x, i=i: found.update({i: x}) for i in range(11)}
    method = make_method("clearclip", model)
    written = method.run_with_hooks(images, {place: identity, **hooks})
    _, plain = method.run_with_cache(images, "blocks.*.hook_resid_post")
    for i, tokens in found.items():
        same = torch.equal(tokens, plain[f"blocks.{i}.hook_resid_post"])
        assert same == (i < 4), i
    assert (written - method.features(images)).abs().max() > 1e-3


def test_values_of_zero_leave_the_bias_of_the_output_projection(model, images):
    method = make_method("naclip", model)
    hooks = {"blocks.11.attn.hook_v": torch.zeros_like}
    written = method.run_with_hooks(images, {**hooks, "stage8.features": lambda x: x * 1})
    bias = model.project(model.blocks[-1].attn.out_proj.bias.expand(1, 1, -1))
    expected = torch.nn.functional.normalize(bias, dim=-1)
    assert (written - expected[0, 0]).abs().max() <= 1e-5


def test_a_name_that_is_not_there_is_told_with_the_patterns_that_are(model, images):
    with pytest.raises(ValueError, match=r"got 'blocks.12.attn.hook_pattern'; of: .*" + LAST):
        make_method("gem", model).run_with_hooks(images, {"blocks.12.attn.hook_pattern": identity})
    with pytest.raises(ValueError, match=r"names must match a named tensor, got 'blocks.12.attn"):
        make_method("gem", model).run_with_cache(images, "blocks.12.attn.*")
