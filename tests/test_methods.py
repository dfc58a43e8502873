"""Peers: each against its paper's formulas in plain loops, and at its limits."""

import math

import pytest
import torch
import torch.nn.functional as F

from scclip_core import SCCLIP, SCCLIPConfig
from scclip_core.methods import METHODS, PEERS, gaussian_window, gem, make_method, naclip, sclip


@pytest.fixture(scope="module")
def few(model):
    return torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(4))


def entering(model, images):
    """Every block's input, by open_clip's own blocks."""
    found, tokens = [], model.embed(images)
    for block in model.blocks:
        found.append(tokens)
        tokens = block(tokens)
    return found


def heads(model, block, tokens):
    """q, k, v of one image [L, C] by slicing the weights, [heads][L, d] each."""
    x = block.ln_1(tokens)
    d = model.width // model.heads
    parts = []
    for i in range(3):
        rows = slice(i * model.width, (i + 1) * model.width)
        projected = x @ block.attn.in_proj_weight[rows].T + block.attn.in_proj_bias[rows]
        parts.append([projected[:, h * d : (h + 1) * d] for h in range(model.heads)])
    return parts


def by_loops(weights, values):
    """Each row of the result is a sum over what it attends to."""
    return torch.stack([sum(w * v for w, v in zip(row, values, strict=True)) for row in weights])


def project(block, joined):
    return joined @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def slow_last_block(model, images, weigh, whole):
    """The last block with per-head weights [L, L] from `weigh`; with residual and MLP where `whole`."""
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


def softmax_rows(logits):
    return torch.stack([torch.exp(r - r.max()) / torch.exp(r - r.max()).sum() for r in logits])


def qq(q, k):
    return softmax_rows(q @ q.T / math.sqrt(q.shape[1]))


def kk(q, k):
    return softmax_rows(k @ k.T / math.sqrt(k.shape[1]))


def near(q, k, sigma=5.0, rows=3, cols=4):
    logits = k @ k.T / math.sqrt(k.shape[1])
    for a in range(rows * cols):
        for b in range(rows * cols):
            squared = (a // cols - b // cols) ** 2 + (a % cols - b % cols) ** 2
            logits[1 + a, 1 + b] += math.exp(-squared / (2 * sigma**2))
    return softmax_rows(logits)


SLOW = {"sclip": (lambda q, k: qq(q, k) + kk(q, k), True), "clearclip": (qq, False), "naclip": (near, False)}


@torch.no_grad()
@pytest.mark.parametrize("name", SLOW)
def test_a_peer_is_its_papers_formula(model, few, name):
    expected = slow_last_block(model, few, *SLOW[name])
    assert torch.allclose(PEERS[name](model, few), expected, atol=1e-4)


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
    assert torch.allclose(gem(model, few), torch.stack(results), atol=1e-4)


@torch.no_grad()
def test_gem_is_that_of_its_authors_package(model, few):
    utils = pytest.importorskip("gem.gem_utils", exc_type=ImportError)
    inputs = entering(model, few)
    state = inputs[-6].transpose(0, 1)  # the package wants [L, B, C]
    for block in model.blocks[-6:]:
        own = utils.SelfSelfAttention(model.width, model.heads, qkv_bias=True, ss_attn_iter=1)
        own.qkv.weight.data, own.qkv.bias.data = block.attn.in_proj_weight, block.attn.in_proj_bias
        own.proj.weight.data, own.proj.bias.data = block.attn.out_proj.weight, block.attn.out_proj.bias
        added, ordinary = own(block.ln_1(state[1] if isinstance(state, list) else state))
        path, tokens = state if isinstance(state, list) else (state, state)
        tokens = tokens + ordinary
        state = [path + added, tokens + block.mlp(block.ln_2(tokens))]
    assert torch.allclose(gem(model, few), state[0].transpose(0, 1)[:, 1:], atol=1e-4)


def test_an_infinitely_wide_window_is_an_even_one():
    assert torch.equal(gaussian_window((3, 4), math.inf), torch.ones(12, 12))


@torch.no_grad()
def test_naclip_with_a_vanishing_window_adds_one_to_the_patch_itself(model, few):
    def itself(q, k):
        return softmax_rows(k @ k.T / math.sqrt(k.shape[1]) + torch.eye(13) * (torch.arange(13) > 0))

    assert torch.allclose(
        naclip(model, few, sigma=1e-3), slow_last_block(model, few, itself, False), atol=1e-4
    )


@torch.no_grad()
def test_sclip_with_equal_queries_and_keys_doubles_one_attention(model, few, monkeypatch):
    original = type(model).qkv

    def equal(self, block, tokens):
        qkv = original(self, block, tokens)
        return torch.stack([qkv[1], qkv[1], qkv[2]])

    monkeypatch.setattr(type(model), "qkv", equal)
    twice = slow_last_block(model, few, lambda q, k: 2 * kk(q, k), True)
    assert torch.allclose(sclip(model, few), twice, atol=1e-4)


@torch.no_grad()
def test_gem_without_iterations_weighs_by_the_projections_themselves(model, few):
    assert not torch.allclose(gem(model, few, iterations=0), gem(model, few, iterations=1), atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_interface_of_scclip(model, few, name):
    method = make_method(name, model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    features = method.features(few)
    assert features.shape == (2, 3, 4, model.embed_dim)
    assert torch.allclose(features.norm(dim=-1), torch.ones(2, 3, 4), atol=1e-5)
    assert torch.equal(features, method.features(few))
    singles = torch.cat([method.features(one) for one in few.split(1)])
    assert torch.allclose(features, singles, atol=1e-5)
    assert method.segment(few, ["dog", "cat"]).shape == (2, 48, 64)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_presets_are_scclip_itself(model, few):
    own = SCCLIP(model, SCCLIPConfig.reference()).features(few)
    assert torch.equal(make_method("reference", model).features(few), own)


def test_unknown_names_and_parameters_list_what_exists(model):
    with pytest.raises(ValueError, match=r"name must be one of vanilla, .*gem.*, got 'gemm'"):
        make_method("gemm", model)
    with pytest.raises(ValueError, match="parameters of naclip must be of: sigma; got width"):
        make_method("naclip", model, width=3)
    with pytest.raises(ValueError, match="seed takes no parameters, got sigma"):
        make_method("seed", model, sigma=3)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("naclip", {"sigma": 0}, "sigma must be > 0"),
        ("gem", {"blocks": 13}, r"blocks must be in 1\.\.12"),
        ("gem", {"iterations": -1}, "iterations must be >= 0"),
    ],
)
def test_parameters_out_of_range_are_refused(model, few, name, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, model, **parameters).features(few)
