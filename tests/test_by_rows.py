"""SC-CLIP by rows gives what SC-CLIP gives, and holds no matrix of all pairs of patches."""

import sys
from dataclasses import replace

import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig, load_clip
from scclip_core.by_rows import SCCLIPByRows
from scclip_lab.evaluation.memory import numbers_of

CONFIGS = {
    "default": SCCLIPConfig(),
    "published": SCCLIPConfig.published(),
    "grid detector": SCCLIPConfig(detector="grid"),
    "no attention": SCCLIPConfig(calibrated_attention=False),
    "no aggregation": SCCLIPConfig(first_aggregation=False, second_aggregation=False),
    "nothing": SCCLIPConfig(
        repair=False,
        first_aggregation=False,
        calibrated_attention=False,
        second_aggregation=False,
    ),
}


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini")


def pictures(*size, count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("at_once", [1, 13, 60, 500])
def test_features_by_rows_are_those_of_the_whole(mini, config, at_once):
    images = pictures(96, 160)
    by_rows = SCCLIPByRows(mini, config, at_once).features(images)
    torch.testing.assert_close(by_rows, SCCLIP(mini, config).features(images), atol=2e-5, rtol=0)


def test_a_batch_equals_its_images_one_by_one(mini):
    segmenter, images = SCCLIPByRows(mini, rows_at_once=50), pictures(224, 224)
    each = torch.cat([segmenter.features(image[None]) for image in images])
    torch.testing.assert_close(segmenter.features(images), each, atol=1e-5, rtol=0)


def test_what_exists_has_the_same_names_and_numbers_and_no_matrix_is_whole(mini):
    images = pictures(224, 224, count=1)
    _, whole = SCCLIP(mini).run_with_cache(images)
    _, rows = SCCLIPByRows(mini, rows_at_once=50).run_with_cache(images)
    large = {name for name, tensor in whole.items() if tensor.shape[-2:] == (196, 196)}
    assert whole.keys() - rows.keys() == large and large
    for name in rows:
        torch.testing.assert_close(rows[name].float(), whole[name].float(), atol=2e-4, rtol=1e-3)


def test_weights_that_are_asked_for_are_those_of_the_blocks(mini):
    images, name = pictures(96, 96), "blocks.3.attn.hook_pattern"
    by_rows, whole = (
        segmenter.run_with_cache(images, name)[1][name]
        for segmenter in (SCCLIPByRows(mini, rows_at_once=10), SCCLIP(mini))
    )
    torch.testing.assert_close(by_rows, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("given", [0, -1, 2.0, True, None])
def test_a_number_of_rows_that_makes_no_sense_is_refused(mini, given):
    with pytest.raises(ValueError, match="rows_at_once must be a whole number >= 1, got"):
        SCCLIPByRows(mini, rows_at_once=given)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux tells it")
def test_a_large_picture_takes_a_fraction_of_the_memory():
    rows, whole = (
        numbers_of("scclip_lab.studies.ch13_cost", "mini", 1024, "scclip", 12, at_once)[0]
        for at_once in (256, 0)
    )
    assert rows < 0.5 * whole


def test_the_configuration_is_that_of_the_model(mini):
    config = replace(SCCLIPConfig(), beta=0.6)
    assert SCCLIPByRows(mini, config).config == config
    assert SCCLIPByRows(mini).config == SCCLIPConfig()


@pytest.mark.parametrize("sides", [(96, 96), (192, 256)])  # at 12 x 16 patches N is the width
def test_weights_of_the_last_block_are_those_of_the_whole_matrix(mini, sides):
    images, names = pictures(*sides), ["blocks.11.attn.hook_pattern", "stage7.attn.hook_pattern"]
    (rows, found), (whole, expected) = (
        segmenter.run_with_cache(images, names)
        for segmenter in (SCCLIPByRows(mini, rows_at_once=50), SCCLIP(mini))
    )
    torch.testing.assert_close(rows, whole, atol=1e-5, rtol=0)
    for name in names:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0)
