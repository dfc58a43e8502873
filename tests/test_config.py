"""The configuration follows the seed, and refuses what makes no sense."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from scclip_core import SCCLIPConfig
from scclip_core.config import SWITCHES


def test_the_default_is_the_seed():
    config = SCCLIPConfig()
    assert (config.pre_adjust_idx, config.post_adjust_idx) == (8, 3)
    assert (config.multi_start_idx, config.multi_end_idx) == (3, 10)
    assert (config.beta, config.res_cls, config.mix, config.content_gain) == (0.4, 0.3, 0.5, 3.0)
    assert (config.lof_neighbors, config.contamination) == (30, 0.05)
    assert (config.self_attention, config.templates) == ("qk", ("a photo of {}",))
    assert all(getattr(config, name) for name in SWITCHES)


def test_the_reference_differs_from_the_seed_where_the_published_code_does():
    seed, reference = SCCLIPConfig(), SCCLIPConfig.reference()
    differing = {f.name for f in fields(seed) if getattr(seed, f.name) != getattr(reference, f.name)}
    assert differing == {"self_attention", "lof", "repair_from", "templates"}
    assert len(reference.templates) == 80


def test_the_authors_values_for_24_blocks():
    config = SCCLIPConfig.for_depth(24)
    indices = (config.pre_adjust_idx, config.post_adjust_idx, config.multi_start_idx, config.multi_end_idx)
    assert (*indices, config.res_cls) == (16, 6, 8, 19, 0.1)
    assert SCCLIPConfig.reference(24).pre_adjust_idx == 16
    assert SCCLIPConfig.for_depth(12) == SCCLIPConfig()


def test_vanilla_and_maskclip_switch_every_module_off():
    for config in (SCCLIPConfig.vanilla(), SCCLIPConfig.maskclip()):
        assert not any(getattr(config, name) for name in SWITCHES)
    assert SCCLIPConfig.vanilla().unchanged
    assert not SCCLIPConfig.maskclip().unchanged


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
        ("unchanged", True, "every switch off"),
    ],
)
def test_an_invalid_value_is_refused_by_name(field, value, allowed):
    with pytest.raises(ValueError) as error:
        SCCLIPConfig(**{field: value})
    assert field in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize("field", ["pre_adjust_idx", "post_adjust_idx"])
def test_the_last_block_cannot_be_read(field):
    replace(SCCLIPConfig(), **{field: 10}).check_depth(12)
    with pytest.raises(ValueError, match=f"{field} must be at most 10 in a model of 12 blocks, got 11"):
        replace(SCCLIPConfig(), **{field: 11}).check_depth(12)


def test_fusion_ends_before_the_last_block():
    replace(SCCLIPConfig(), multi_end_idx=11).check_depth(12)
    with pytest.raises(ValueError, match="multi_end_idx must be at most 11"):
        replace(SCCLIPConfig(), multi_end_idx=12).check_depth(12)


def test_an_unknown_depth_lists_the_known_ones():
    with pytest.raises(ValueError, match="12 and 24"):
        SCCLIPConfig.for_depth(13)
