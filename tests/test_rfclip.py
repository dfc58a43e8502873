"""RF-CLIP: tokens with over-activated dimensions are filtered, attention is a mean over blocks."""

import math

import pytest
import torch
import torch.nn.functional as F

from scclip_core import FrozenCLIP, make_method
from scclip_core.rfclip import (
    DIMENSIONS,
    RFCLIP,
    RFCLIPConfig,
    filter_tokens,
    find_dimensions,
    shares,
)
from tests.conftest import tiny_clip
from tests.slow import by_loops, heads, project, softmax_rows

GRID = (3, 4)
# Enough of the random model's tokens are filtered with these.
FILTERED = {"dimensions": (3, 17, 40), "factor": 1.7}


def slow_filter(tokens, dimensions, factor, strength=0.4):
    """Patch tokens of one image, [N, C], on the grid; and how many are filtered."""
    rows, cols = GRID
    result, count = tokens.clone(), 0
    for i, token in enumerate(tokens):
        weight = (token - token.min()) / (token - token.min()).sum()
        if max(weight[j] for j in dimensions) > factor / len(token):
            count += 1
            total = torch.zeros_like(token)
            for row in range(i // cols - 1, i // cols + 2):
                for col in range(i % cols - 1, i % cols + 2):
                    if 0 <= row < rows and 0 <= col < cols:
                        total += tokens[row * cols + col]
            result[i] = (1 - strength) * token + strength * total / 9
    return result, count


def slow_rfclip(model, images, dimensions, factor):
    results, filtered = [], 0
    for tokens in model.embed(images):
        attentions, guides = [], []
        for block in model.blocks:
            _, k, _ = heads(model, block, tokens)
            attentions.append([softmax_rows(x @ x.T / math.sqrt(x.shape[1])) for x in k])
            before = tokens
            tokens = block(tokens[None])[0]
            patches, count = slow_filter(tokens[1:], dimensions, factor)
            tokens, filtered = torch.cat([tokens[:1], patches]), filtered + count
            guides.append(tokens)
        guide = sum(guides) / 12
        unit = F.normalize(guide[1:], dim=1)
        similarity = unit @ unit.T
        similarity[similarity < 0.4] = 0
        branches = []
        for entering in (before, guide):
            x = torch.cat([entering[:1], by_loops(similarity, entering[1:])])
            _, k, v = heads(model, model.blocks[-1], x)
            outputs = []
            for h in range(model.heads):
                own = softmax_rows(k[h] @ k[h].T / math.sqrt(k[h].shape[1]))
                mean = (sum(a[h] for a in attentions[:-1]) + own) / 12
                outputs.append(by_loops(mean[1:, 1:], v[h][1:]))
            branches.append(project(model.blocks[-1], torch.cat(outputs, 1)))
        results.append(sum(branches) / 2)
    return torch.stack(results), filtered


@torch.no_grad()
def test_rfclip_is_its_formula(model, few):
    expected, filtered = slow_rfclip(model, few, **FILTERED)
    assert 10 < filtered < 2 * 12 * 12 - 10
    found = make_method("rfclip", model, **FILTERED).dense_tokens(few, GRID)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_batch_equals_its_images_one_by_one(model, few):
    method = make_method("rfclip", model, **FILTERED)
    apart = torch.cat([method.features(one) for one in few.split(1)])
    assert (method.features(few) - apart).abs().max() <= 1e-5


def test_the_shares_of_a_token_sum_to_one_and_its_smallest_dimension_has_none():
    found = shares(torch.randn(2, 5, 8))
    assert torch.allclose(found.sum(-1), torch.ones(2, 5), atol=1e-6)
    assert (found.amin(-1) == 0).all()
    assert torch.isfinite(shares(torch.ones(1, 2, 8))).all()


def test_only_tokens_with_a_spike_are_drawn_to_the_mean_around_them():
    tokens = torch.rand(1, 12, 8, generator=torch.Generator().manual_seed(0))
    tokens[0, 5, 2] = 50.0  # in the middle of the grid
    found = filter_tokens(tokens, GRID, (2,), 5.0, 1.0)
    around = tokens[0].view(3, 4, 8)[:, 0:3].flatten(0, 1).mean(0)
    assert torch.allclose(found[0, 5], around, atol=1e-6)
    others = [i for i in range(12) if i != 5]
    assert torch.equal(found[0, others], tokens[0, others])


def test_a_spike_elsewhere_and_a_strength_of_zero_change_nothing():
    tokens = torch.rand(1, 12, 8)
    tokens[0, 5, 2] = 50.0
    assert torch.equal(filter_tokens(tokens, GRID, (3,), 5.0, 1.0), tokens)
    assert torch.equal(filter_tokens(tokens, GRID, (2,), 5.0, 0.0), tokens)


@torch.no_grad()
def test_a_dimension_that_a_model_over_activates_is_found():
    model = FrozenCLIP(tiny_clip())
    model.blocks[0].mlp.c_proj.bias[11] += 100.0
    assert 11 in find_dimensions(model, 1)
    assert 11 in RFCLIP(model).dimensions and len(RFCLIP(model).dimensions) == 8


def test_the_dimensions_are_the_published_ones_where_the_width_is_that_of_their_models(model):
    assert RFCLIP(model).dimensions == find_dimensions(model)
    wide = FrozenCLIP(tiny_clip(width=768, layers=1))
    assert RFCLIP(wide).dimensions == DIMENSIONS[768]
    assert make_method("rfclip", model, dimensions=(5,)).dimensions == (5,)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dimensions": (64,)}, r"dimensions must be below 64, the model's width, got \(64,\)"),
        ({"dimensions": ()}, r"dimensions must be None or a non-empty tuple .* got \(\)"),
        ({"dimensions": (1.0,)}, "dimensions must be None or a non-empty tuple"),
        ({"dimensions": (-1,)}, "dimensions must be None or a non-empty tuple"),
        ({"dimensions": [4]}, r"dimensions must be None or a non-empty tuple .* got \[4\]"),
        ({"factor": 0}, "factor must be a number > 0, got 0"),
        ({"factor": "5"}, "factor must be a number > 0, got '5'"),
        ({"strength": 1.5}, r"strength must be a number in \[0, 1\], got 1.5"),
        ({"beta": -1.5}, r"beta must be a number in \[-1, 1\], got -1.5"),
        ({"templates": ()}, "templates must be a non-empty tuple"),
    ],
)
def test_parameters_out_of_range_are_refused(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_method("rfclip", model, **parameters)


def test_more_dimensions_than_there_are_cannot_be_looked_for(model):
    for count in (0, 65):
        with pytest.raises(ValueError, match=rf"count must be in 1\.\.64, .* got {count}"):
            find_dimensions(model, count)


def test_the_defaults_are_those_of_the_published_code():
    config = RFCLIPConfig()
    assert (config.factor, config.strength, config.beta) == (5.0, 0.4, 0.4)
