"""Methods are made by name: their configurations, their defaults, and what is refused."""

import math

import pytest
import torch

from scclip_core import METHODS, SCCLIP, SCCLIPConfig, make_method
from scclip_core.gem import GEM, GEMConfig
from scclip_core.last_block import NACLIP, BaselineConfig, NACLIPConfig, Vanilla


def test_the_methods_have_the_fields_own_names():
    assert list(METHODS) == [
        "vanilla",
        "values",
        "maskclip",
        "sclip",
        "clearclip",
        "naclip",
        "gem",
        "resclip",
        "registers",
        "rfclip",
        "scclip",
        "scclip-published",
    ]


def test_scclip_follows_the_article_and_scclip_published_the_published_code(model, few):
    for name, config in (
        ("scclip", SCCLIPConfig()),
        ("scclip-published", SCCLIPConfig.published()),
    ):
        method = make_method(name, model)
        assert method.config == config
        assert torch.equal(method.features(few), SCCLIP(model, config).features(few))


def test_every_method_has_a_configuration_of_its_own(model):
    kinds = {name: type(make_method(name, model).config).__name__ for name in METHODS}
    assert kinds == {
        "vanilla": "BaselineConfig",
        "values": "BaselineConfig",
        "maskclip": "BaselineConfig",
        "sclip": "BaselineConfig",
        "clearclip": "BaselineConfig",
        "naclip": "NACLIPConfig",
        "gem": "GEMConfig",
        "resclip": "ResCLIPConfig",
        "registers": "RegistersConfig",
        "rfclip": "RFCLIPConfig",
        "scclip": "SCCLIPConfig",
        "scclip-published": "SCCLIPConfig",
    }


def test_the_defaults_are_those_of_the_papers():
    assert NACLIPConfig().sigma == 5.0
    assert (GEMConfig().blocks, GEMConfig().iterations) == (6, 1)
    assert BaselineConfig().templates == ("a photo of {}",)


def test_a_baseline_needs_no_configuration(model, few):
    for method, name in ((Vanilla, "vanilla"), (NACLIP, "naclip"), (GEM, "gem")):
        assert torch.equal(method(model)(few), make_method(name, model)(few))


def test_parameters_replace_fields_of_the_configuration(model):
    assert make_method("naclip", model, sigma=0.3).config == NACLIPConfig(sigma=0.3)
    assert make_method("gem", model, blocks=2).config == GEMConfig(blocks=2)
    assert make_method("scclip", model, beta=0.1).config == SCCLIPConfig(beta=0.1)
    assert make_method("vanilla", model, templates=("{}",)).config.templates == ("{}",)


def test_unknown_names_and_parameters_list_what_exists(model):
    with pytest.raises(ValueError, match=r"name must be one of vanilla, .*gem.*, got 'gemm'"):
        make_method("gemm", model)
    told = "parameters of naclip must be of: templates, position_offset, sigma; got width"
    with pytest.raises(ValueError, match=told):
        make_method("naclip", model, width=3)
    told = "parameters of vanilla must be of: templates, position_offset; got sigma, beta"
    with pytest.raises(ValueError, match=told):
        make_method("vanilla", model, sigma=3, templates=("{}",), beta=1)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("naclip", {"sigma": 0}, "sigma must be a number > 0, in patches, got 0"),
        ("naclip", {"sigma": -1.0}, "sigma must be a number > 0"),
        ("naclip", {"sigma": math.nan}, "sigma must be a number > 0"),
        ("naclip", {"sigma": "5"}, "sigma must be a number > 0, in patches, got '5'"),
        ("gem", {"blocks": 13}, r"blocks must be in 1\.\.12, the model's depth, got 13"),
        ("gem", {"blocks": 0}, "blocks must be a whole number >= 1, got 0"),
        ("gem", {"blocks": 2.0}, "blocks must be a whole number >= 1, got 2.0"),
        ("gem", {"iterations": -1}, "iterations must be a whole number >= 0, got -1"),
        ("gem", {"iterations": 1.5}, "iterations must be a whole number >= 0"),
        ("vanilla", {"templates": "a photo of {}"}, "templates must be a non-empty tuple"),
        ("values", {"position_offset": -0.1}, r"position_offset must be a number in \[0, 1\)"),
        ("naclip", {"templates": ()}, "templates must be a non-empty tuple"),
        ("gem", {"templates": ("{} {}",)}, "templates must be a non-empty tuple"),
        ("scclip", {"beta": 2}, "beta must be in"),
    ],
)
def test_parameters_out_of_range_are_refused(model, name, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, model, **parameters)


def test_the_ends_of_a_range_are_allowed(model):
    assert make_method("gem", model, blocks=12, iterations=0).config.blocks == 12
    assert make_method("gem", model, blocks=1).config.blocks == 1
    assert make_method("naclip", model, sigma=1).config.sigma == 1
