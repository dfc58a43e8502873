"""The configuration follows the article, and refuses what makes no sense."""

import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from scclip_core import SCCLIPConfig
from scclip_core.adapt import candidates
from scclip_core.config import INDICES, LAYERS, SWITCHES, scaled_layer

VARIANTS = {"self_attention": "qk", "lof": "standard", "repair_from": "all"}
VARIANTS |= {"position_offset": 0.0, "templates": ("{}",)}


def test_the_default_is_the_article():
    config = SCCLIPConfig()
    assert (config.pre_adjust_idx, config.post_adjust_idx) == (8, 3)
    assert (config.multi_start_idx, config.multi_end_idx) == (3, 10)
    assert (config.beta, config.res_cls, config.mix, config.content_gain) == (0.4, 0.3, 0.5, 3.0)
    assert (config.lof_neighbors, config.contamination) == (30, 0.05)
    assert (config.self_attention, config.templates) == ("qk", ("a photo of {}",))
    assert (config.lof, config.repair_from, config.depth) == ("standard", "all", 12)
    assert all(getattr(config, name) for name in SWITCHES)


def test_the_published_code_differs_from_the_article_in_five_points():
    article, published = SCCLIPConfig(), SCCLIPConfig.published()
    names = [field.name for field in fields(article)]
    differing = {name for name in names if getattr(article, name) != getattr(published, name)}
    assert differing == {"self_attention", "lof", "repair_from", "position_offset", "templates"}
    kinds = (published.self_attention, published.lof, published.repair_from)
    assert kinds == ("kk", "published", "clean")
    assert (article.position_offset, published.position_offset) == (0.0, 0.1)
    assert len(published.templates) == 80
    assert published.templates[0] == "a bad photo of a {}."


def test_the_authors_values_for_24_blocks():
    config = SCCLIPConfig.for_depth(24)
    assert (config.pre_adjust_idx, config.post_adjust_idx) == (16, 6)
    assert (config.multi_start_idx, config.multi_end_idx) == (8, 19)
    assert (config.res_cls, config.depth) == (0.1, 24)
    assert replace(SCCLIPConfig.published(24), **VARIANTS) == replace(config, **VARIANTS)
    assert SCCLIPConfig.for_depth(12) == SCCLIPConfig()


def test_another_depth_is_refused_with_its_own_values():
    SCCLIPConfig().check_depth(12)
    told = (
        "config must be made for the model's 24 blocks, its layers are meant for 12: "
        "SCCLIPConfig.for_depth(24) has the author's values (pre_adjust_idx=16, "
        "post_adjust_idx=6, multi_start_idx=8, multi_end_idx=19, res_cls=0.1)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        SCCLIPConfig().check_depth(24)
    told = "model's 12 blocks, .* meant for 24: .*for_depth.12.*pre_adjust_idx=8,.*res_cls=0.3"
    with pytest.raises(ValueError, match=told):
        SCCLIPConfig.for_depth(24).check_depth(12)


@pytest.mark.parametrize(
    ("depth", "layers", "residual"),
    [
        (4, (2, 1, 1, 3), 0.3),
        (5, (3, 1, 1, 4), 0.3),
        (8, (5, 2, 2, 7), 0.3),
        (10, (7, 3, 3, 8), 0.3),
        (18, (12, 5, 5, 15), 0.3),
        (19, (13, 5, 5, 16), 0.1),
        (32, (21, 8, 8, 27), 0.1),
        (40, (27, 10, 10, 33), 0.1),
        (48, (32, 12, 12, 40), 0.1),
    ],
)
def test_elsewhere_a_layer_keeps_its_relative_depth(depth, layers, residual):
    config = SCCLIPConfig.for_depth(depth)
    assert tuple(getattr(config, name) for name in INDICES) == layers
    assert (config.res_cls, config.depth) == (residual, depth)
    assert replace(SCCLIPConfig.published(depth), **VARIANTS) == replace(config, **VARIANTS)


@pytest.mark.parametrize("depth", range(4, 65))
def test_every_depth_from_four_on_has_layers_that_are_allowed(depth):
    config = SCCLIPConfig.for_depth(depth)
    config.check_depth(depth)
    assert config.post_adjust_idx < config.pre_adjust_idx < depth - 1
    for name in INDICES if depth not in LAYERS else ():
        assert abs(getattr(config, name) / depth - LAYERS[12][name] / 12) < 1.001 / depth


def test_a_depth_without_known_values_is_refused_with_those_of_the_rule():
    told = (
        "model's 6 blocks, .* meant for 12: SCCLIPConfig.for_depth.6. has layers of the same "
        r"relative depth \(pre_adjust_idx=4, post_adjust_idx=2, multi_start_idx=2, multi_end_idx=5,"
    )
    with pytest.raises(ValueError, match=told):
        SCCLIPConfig().check_depth(6)
    SCCLIPConfig(
        pre_adjust_idx=4, post_adjust_idx=1, multi_start_idx=1, multi_end_idx=5, depth=6
    ).check_depth(6)


def test_a_depth_below_the_rule_is_refused_until_layers_are_chosen():
    told = "model's 3 blocks, .* meant for 12: choose layers for it, and say so with depth=3"
    with pytest.raises(ValueError, match=told):
        SCCLIPConfig().check_depth(3)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SCCLIPConfig().beta = 0.5


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("lof_neighbors", 0, ">= 1"),
        ("lof_neighbors", 3.0, "whole number"),
        ("contamination", 0.0, "(0, 0.5]"),
        ("contamination", 0.6, "(0, 0.5]"),
        ("beta", 1.5, "[-1, 1]"),
        ("beta", float("nan"), "[-1, 1]"),
        ("beta", "0.4", "a number"),
        ("content_gain", 0.0, "> 0"),
        ("mix", -0.1, "[0, 1]"),
        ("res_cls", -1.0, ">= 0"),
        ("position_offset", 1.0, "[0, 1)"),
        ("pre_adjust_idx", -1, ">= 0"),
        ("multi_end_idx", 3, "multi_start_idx (3)"),
        ("self_attention", "kq", "qk, kk, qq, vv"),
        ("lof", "fast", "standard, published"),
        ("repair_from", "some", "all, clean"),
        ("repair", 1, "True or False"),
        ("templates", (), "non-empty"),
        ("templates", ("a photo",), "one {}"),
        ("templates", ("{} and {}",), "one {}"),
        ("templates", ("{} {0}",), "one {}"),
        ("templates", ("{:d}",), "one {}"),
        ("templates", "a photo of {}", "tuple"),
        ("templates", ["{}"], "tuple"),
        ("templates", ("{}", 3), "one {}"),
        ("templates", ("}{",), "one {}"),
        ("depth", 1, ">= 2"),
        ("depth", 12.0, "whole number"),
    ],
)
def test_an_invalid_value_is_refused_by_name(field, value, allowed):
    with pytest.raises(ValueError) as error:
        SCCLIPConfig(**{field: value})
    assert field in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize("field", ["pre_adjust_idx", "post_adjust_idx"])
def test_the_last_block_cannot_be_read(field):
    assert getattr(SCCLIPConfig(**{field: 10}), field) == 10
    told = f"{field} must be at most 10 in a model of 12 blocks, got 11"
    with pytest.raises(ValueError, match=told):
        SCCLIPConfig(**{field: 11})


def test_fusion_ends_before_the_last_block():
    assert SCCLIPConfig(multi_end_idx=11).multi_end_idx == 11
    told = "multi_end_idx must be at most 11 in a model of 12 blocks, got 12"
    with pytest.raises(ValueError, match=told):
        SCCLIPConfig(multi_end_idx=12)


@pytest.mark.parametrize("start", [3, 4, 11])
def test_fusion_has_at_least_one_layer(start):
    with pytest.raises(ValueError, match=rf"multi_end_idx must be > multi_start_idx \({start}\)"):
        SCCLIPConfig(multi_start_idx=start, multi_end_idx=3)


def test_a_model_of_two_blocks_is_the_smallest():
    layers = {"pre_adjust_idx": 0, "post_adjust_idx": 0, "multi_start_idx": 0, "multi_end_idx": 1}
    assert SCCLIPConfig(depth=2, **layers).depth == 2


@pytest.mark.parametrize("depth", [3, 0, -12, 12.0, "12", True])
def test_too_few_blocks_have_no_rule(depth):
    told = rf"depth must be a whole number >= 4, got {re.escape(repr(depth))}; give the layer"
    for make in (SCCLIPConfig.for_depth, SCCLIPConfig.published):
        with pytest.raises(ValueError, match=told):
            make(depth)


@pytest.mark.parametrize("length", [2, 79, 80, 81, 5000])
def test_templates_are_told_up_to_a_length_that_fits_into_a_line(length):
    given = "x" * (length - 2)  # and two quotes
    told = repr(given) if length <= 80 else repr(given)[:80] + "..."
    with pytest.raises(ValueError, match=rf"non-empty tuple .*, got {told}$"):
        SCCLIPConfig(templates=given)


def test_numbers_of_numpy_are_numbers():
    config = SCCLIPConfig(beta=np.float32(0.25), lof_neighbors=np.int64(20), mix=np.float64(1))
    assert (config.beta, config.lof_neighbors, config.mix) == (0.25, 20, 1.0)
    assert type(config.beta) is float and type(config.lof_neighbors) is int
    with pytest.raises(ValueError, match="beta must be a number, got True"):
        SCCLIPConfig(beta=True)


@pytest.mark.parametrize("depth", [6, 8, 18, 36])
def test_candidates_are_placed_by_the_rule_of_for_depth(depth):
    found = candidates(SCCLIPConfig.for_depth(depth)).values()
    placed = {config.post_adjust_idx for config in found}
    assert placed == {scaled_layer(value, depth) for value in (1, 3, 5, 7)} and len(placed) == 4
