"""Baselines: each against its paper's formulas in plain loops, and at its limits."""

import math

import pytest
import torch
import torch.nn.functional as F

from scclip_core import METHODS, FrozenCLIP, make_method
from scclip_core.gem import GEM, GEMConfig
from scclip_core.last_block import SCLIP, MaskCLIP, Values, Vanilla, gaussian_window
from tests.conftest import tiny_clip
from tests.slow import by_loops, entering, heads, project, softmax_rows

GRID = (3, 4)


def tokens_of(name, model, images, **parameters):
    """What a method hands to the last layer norm."""
    with torch.no_grad():
        return make_method(name, model, **parameters).dense_tokens(images, GRID)


def slow_last_block(model, images, weigh, whole):
    """The last block with weights [L, L] of each head from `weigh`; residual and MLP if `whole`."""
    block, results = model.blocks[-1], []
    for tokens in entering(model, images)[-1]:
        q, k, v = heads(model, block, tokens)
        outputs = [by_loops(weigh(q[h], k[h]), v[h]) for h in range(model.heads)]
        out = project(block, torch.cat(outputs, 1))
        if whole:
            out = out + tokens
            out = out + block.mlp(block.ln_2(out))
        results.append(out[1:])
    return torch.stack(results)


def qq(q, k):
    return softmax_rows(q @ q.T / math.sqrt(q.shape[1]))


def kk(q, k):
    return softmax_rows(k @ k.T / math.sqrt(k.shape[1]))


def kk_with_window(q, k, sigma=5.0):
    rows, cols = GRID
    logits = k @ k.T / math.sqrt(k.shape[1])
    for a in range(rows * cols):
        for b in range(rows * cols):
            squared = (a // cols - b // cols) ** 2 + (a % cols - b % cols) ** 2
            logits[1 + a, 1 + b] += math.exp(-squared / (2 * sigma**2))
    return softmax_rows(logits)


def itself(q, k):
    return torch.eye(len(q))


# name -> the weights of a head, and whether residual and MLP stay
SLOW = {
    "vanilla": (lambda q, k: softmax_rows(q @ k.T / math.sqrt(q.shape[1])), True),
    "values": (itself, False),
    "maskclip": (itself, True),
    "sclip": (lambda q, k: qq(q, k) + kk(q, k), True),
    "clearclip": (qq, False),
    "naclip": (kk_with_window, False),
}


@torch.no_grad()
@pytest.mark.parametrize("name", SLOW)
def test_a_baseline_is_its_papers_formula(model, few, name):
    expected = slow_last_block(model, few, *SLOW[name])
    assert torch.allclose(tokens_of(name, model, few), expected, atol=1e-4)


def test_every_baseline_has_a_slow_version():
    elsewhere = {"gem", "resclip", "registers", "rfclip"}  # each has a file of its own, or a test
    assert {*SLOW, *elsewhere} == {name for name in METHODS if not name.startswith("scclip")}


def test_vanilla_is_open_clips_own_forward_read_densely(model, images):
    visual = model.clip.visual
    kept = visual.output_tokens
    visual.output_tokens = True
    _, tokens = visual(images)  # patch tokens after ln_post
    visual.output_tokens = kept
    ours = Vanilla(model).features(images, normalize=False).flatten(1, 2)
    assert (ours - tokens @ visual.proj).abs().max() <= 1e-5


def test_values_are_the_last_blocks_values_alone(model, images):
    _, cache = Values(model).run_with_cache(images)
    last, visual = model.blocks[-1], model.clip.visual
    tokens = last.ln_1(cache["blocks.10.hook_resid_post"][:, 1:])
    values = slice(2 * model.width, None)
    weight, bias = last.attn.in_proj_weight[values], last.attn.in_proj_bias[values]
    expected = visual.ln_post(last.attn.out_proj(F.linear(tokens, weight, bias))) @ visual.proj
    assert torch.allclose(cache["stage8.projected"], expected, atol=1e-5)


@torch.no_grad()
def test_maskclip_whose_mlp_adds_nothing_is_the_residual_and_the_values(few):
    model = FrozenCLIP(tiny_clip())
    for parameter in model.blocks[-1].mlp.c_proj.parameters():
        parameter.zero_()
    plus = entering(model, few)[-1][:, 1:] + Values(model).dense_tokens(few, GRID)
    assert torch.allclose(MaskCLIP(model).dense_tokens(few, GRID), plus, atol=1e-5)


@torch.no_grad()
def test_gem_is_its_papers_formula(model, few):
    inputs, results = entering(model, few), []
    for image in range(len(few)):
        path = inputs[-6][image]
        for i in range(-6, 0):
            block, tokens = model.blocks[i], inputs[i][image]
            parts = heads(model, block, tokens)
            lengths = [float(row.norm()) for row in block.ln_1(tokens)]
            scale = sum(lengths) / len(lengths) / math.sqrt(model.width // model.heads)
            joined = []
            for h in range(model.heads):
                outputs = []
                for part in parts:
                    x = F.normalize(part[h], dim=1)
                    x = F.normalize(by_loops(softmax_rows(scale * x @ x.T), x), dim=1)
                    outputs.append(by_loops(softmax_rows(scale * x @ x.T), parts[2][h]))
                joined.append(sum(outputs) / 3)
            path = path + project(block, torch.cat(joined, 1))
        results.append(path[1:])
    assert torch.allclose(tokens_of("gem", model, few), torch.stack(results), atol=1e-4)


@torch.no_grad()
def test_gem_is_that_of_its_authors_package(model, few):
    utils = pytest.importorskip("gem.gem_utils", exc_type=ImportError)
    inputs = entering(model, few)
    state = inputs[-6].transpose(0, 1)  # the package wants [L, B, C]
    for block in model.blocks[-6:]:
        own = utils.SelfSelfAttention(model.width, model.heads, qkv_bias=True, ss_attn_iter=1)
        given, projection = block.attn, block.attn.out_proj
        own.qkv.weight.data, own.qkv.bias.data = given.in_proj_weight, given.in_proj_bias
        own.proj.weight.data, own.proj.bias.data = projection.weight, projection.bias
        added, ordinary = own(block.ln_1(state[1] if isinstance(state, list) else state))
        path, tokens = state if isinstance(state, list) else (state, state)
        tokens = tokens + ordinary
        state = [path + added, tokens + block.mlp(block.ln_2(tokens))]
    expected = state[0].transpose(0, 1)[:, 1:]
    assert torch.allclose(tokens_of("gem", model, few), expected, atol=1e-4)


def test_an_infinitely_wide_window_is_an_even_one():
    assert torch.equal(gaussian_window((3, 4), math.inf), torch.ones(12, 12))


@torch.no_grad()
def test_naclip_with_a_vanishing_window_adds_one_to_the_patch_itself(model, few):
    def one_more(q, k):
        patches = torch.eye(13) * (torch.arange(13) > 0)
        return softmax_rows(k @ k.T / math.sqrt(k.shape[1]) + patches)

    expected = slow_last_block(model, few, one_more, False)
    assert torch.allclose(tokens_of("naclip", model, few, sigma=1e-3), expected, atol=1e-4)


@torch.no_grad()
def test_sclip_with_equal_queries_and_keys_doubles_one_attention(model, few, monkeypatch):
    original = model.qkv

    def equal(block, tokens):
        qkv = original(block, tokens)
        return torch.stack([qkv[1], qkv[1], qkv[2]])

    monkeypatch.setattr(type(model), "qkv", staticmethod(equal))
    twice = slow_last_block(model, few, lambda q, k: 2 * kk(q, k), True)
    assert torch.allclose(SCLIP(model).dense_tokens(few, GRID), twice, atol=1e-4)


@torch.no_grad()
def test_gem_without_iterations_weighs_by_the_projections_themselves(model, few):
    block, tokens = model.blocks[-1], entering(model, few)[-1]
    qkv = model.qkv(block, tokens)
    scale = block.ln_1(tokens).norm(dim=-1).mean(1)[:, None, None, None] / math.sqrt(32)
    read = [(scale * F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).mT).softmax(-1) for x in qkv]
    mean = torch.stack([weights @ qkv[2] for weights in read]).mean(0)
    expected = tokens + block.attn.out_proj(mean.transpose(1, 2).flatten(2))
    found = tokens_of("gem", model, few, blocks=1, iterations=0)
    assert torch.allclose(found, expected[:, 1:], atol=1e-4)


def test_gem_with_more_iterations_is_another_method(model, few):
    once, twice = (tokens_of("gem", model, few, iterations=n) for n in (1, 2))
    assert not torch.allclose(once, twice, atol=1e-3)


@torch.no_grad()
def test_gem_may_begin_with_the_first_block(model, few):
    method = GEM(model, GEMConfig(blocks=12))
    path = method.dense_tokens(few, GRID)
    assert torch.isfinite(path).all()
    assert not torch.allclose(path, GEM(model, GEMConfig(blocks=11)).dense_tokens(few, GRID))


def test_layer_scale_is_part_of_every_changed_block(few):
    scaled, plain = tiny_clip(ls_init_value=1.0), tiny_clip()
    for name in ("values", "maskclip", "sclip", "gem"):
        assert torch.allclose(tokens_of(name, scaled, few), tokens_of(name, plain, few), atol=1e-5)
    scaled.visual.transformer.resblocks[-1].ls_1.gamma.data.fill_(0.5)
    halved = tokens_of("values", scaled, few)
    assert torch.allclose(halved, tokens_of("values", plain, few) / 2, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "resclip"])
def test_every_method_but_one_has_a_configuration_for_few_blocks(name, few):
    found = make_method(name, FrozenCLIP(tiny_clip(layers=4))).features(few)
    assert torch.isfinite(found).all()
