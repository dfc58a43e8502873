"""Test-time registers: a token beside the patches takes the activations of register neurons."""

import pytest
import torch

from scclip_core import FrozenCLIP, make_method
from scclip_core.registers import (
    Registers,
    RegistersConfig,
    find_register_neurons,
    move_to_register,
    neuron_scores,
)
from tests.conftest import tiny_clip
from tests.slow import entering

GRID = (3, 4)
NEURONS = ((0, 3), (2, 7), (2, 200), (5, 1), (11, 9))


def slow_move(active, neurons):
    """Activations of one image [L, M], the class token first and the register last."""
    moved = active.clone()
    if neurons:
        extreme = 0.0
        for token in active:
            for n in neurons:
                extreme = token[n] if abs(token[n]) > abs(extreme) else extreme
        for n in neurons:
            moved[1:-1, n] = 0
            moved[-1, n] = extreme
    return moved


def slow_registers(model, image, neurons):
    tokens = model.embed(image[None])[0]
    tokens = torch.cat([tokens, model.visual.ln_pre(torch.zeros(1, model.width))])
    for i, block in enumerate(model.blocks):
        x = block.ln_1(tokens)[None]
        tokens = tokens + block.attn(x, x, x)[0][0]
        active = block.mlp.gelu(block.mlp.c_fc(block.ln_2(tokens)))
        moved = slow_move(active, [n for b, n in neurons if b == i])
        tokens = tokens + block.mlp.c_proj(moved)
    return tokens[1:-1]


def slow_neurons(model, image, count=10, highest=5):
    """The neurons of the largest magnitude at the longest patch of an image."""
    inputs = [tokens[0] for tokens in entering(model, image[None])]
    last = model.blocks[-1](inputs[-1][None])[0]
    longest = 1 + max(range(len(last) - 1), key=lambda i: float(last[1 + i].norm()))
    scored = []
    for i in range(highest + 1):
        block, x = model.blocks[i], model.blocks[i].ln_1(inputs[i])[None]
        attended = inputs[i] + block.attn(x, x, x)[0][0]
        active = block.mlp.gelu(block.mlp.c_fc(block.ln_2(attended)))[longest]
        scored += [(float(value.abs()), (i, n)) for n, value in enumerate(active)]
    return [pair for _, pair in sorted(scored, reverse=True)[:count]]


@torch.no_grad()
def test_given_neurons_are_moved_by_their_formula(model, few):
    found = make_method("registers", model, neurons=NEURONS).dense_tokens(few, GRID)
    expected = torch.stack([slow_registers(model, image, NEURONS) for image in few])
    assert torch.allclose(found, expected, atol=1e-4)


@torch.no_grad()
def test_without_neurons_those_of_each_image_are_found_first(model, few):
    found = make_method("registers", model).dense_tokens(few, GRID)
    expected = [slow_registers(model, image, slow_neurons(model, image)) for image in few]
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


def test_no_neurons_leave_a_register_that_only_attends(model, few):
    with_register = make_method("registers", model, neurons=()).features(few)
    vanilla = make_method("vanilla", model).features(few)
    assert 1e-4 < (with_register - vanilla).abs().max() < 1.0


def test_a_batch_equals_its_images_one_by_one(model, few):
    for parameters in ({}, {"neurons": NEURONS}):
        method = make_method("registers", model, **parameters)
        apart = torch.cat([method.features(one) for one in few.split(1)])
        assert (method.features(few) - apart).abs().max() <= 1e-5


def test_activations_leave_the_patches_for_the_register():
    active = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([[True, False, True, False, False], [False] * 5])
    moved = move_to_register(active, chosen)
    assert not moved[0, 1:-1, [0, 2]].any()
    assert torch.equal(moved[0, 0], active[0, 0])  # the class token
    largest = active[0][:, [0, 2]].flatten()
    assert (moved[0, -1, [0, 2]] == largest[largest.abs().argmax()]).all()
    assert torch.equal(moved[0][:, [1, 3, 4]], active[0][:, [1, 3, 4]])
    assert torch.equal(moved[1], active[1])


@torch.no_grad()
def test_the_neuron_that_makes_outliers_is_found_and_its_outlier_moves(few):
    model = FrozenCLIP(tiny_clip())
    block, spike = model.blocks[3], torch.zeros(64)
    spike[5] = 60.0
    # Neuron 17 fires at few tokens only, and then makes them long.
    block.mlp.c_fc.weight[17] *= 40
    block.mlp.c_fc.bias[17] = -20.0
    block.mlp.c_proj.weight[:, 17] = spike
    lengths = make_method("vanilla", model).dense_tokens(few, GRID).norm(dim=-1)
    assert lengths.max() > 3 * lengths.median()
    threshold = float(2 * lengths.median())
    assert find_register_neurons(model, few, 1, threshold=threshold) == ((3, 17),)
    method = make_method("registers", model, neurons=((3, 17),))
    calm = method.dense_tokens(few, GRID).norm(dim=-1)
    assert calm.max() < lengths.max() / 2
    _, cache = method.run_with_cache(few, "blocks.11.*")
    register = cache["blocks.11.hook_resid_post"][:, -1].norm(dim=-1)  # [B]
    has_outlier = lengths.amax(1) > threshold
    assert has_outlier.any() and (register > 2 * calm.amax(1))[has_outlier].all()


@torch.no_grad()
def test_images_without_outliers_do_not_count(model, few):
    lengths = make_method("vanilla", model).dense_tokens(few, GRID).norm(dim=-1)
    longest = lengths.amax(1)
    between = float(longest.mean())  # the outliers of one image alone
    with_both = find_register_neurons(model, few, 3, threshold=between)
    alone = few[longest.argmax()][None]
    assert with_both == find_register_neurons(model, alone, 3, threshold=between)
    scores = neuron_scores(model, few, 5, between)
    assert scores.shape == (2, 6, 256)
    assert scores.flatten(1).any(1).tolist() == (longest > between).tolist()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"neurons": ((12, 0),)}, r"neurons must be pairs below \(12, 256\), got \(\(12, 0\),\)"),
        ({"neurons": ((0, 256),)}, r"neurons must be pairs below \(12, 256\)"),
        ({"neurons": ((0,),)}, r"neurons must be None or a tuple of pairs .* got \(\(0,\),\)"),
        ({"neurons": ((0, -1),)}, "neurons must be None or a tuple of pairs"),
        ({"neurons": ((0, 1.0),)}, "neurons must be None or a tuple of pairs"),
        ({"neurons": [(0, 1)]}, "neurons must be None or a tuple of pairs"),
        ({"count": 0}, "count must be a whole number >= 1, got 0"),
        ({"count": 2.0}, "count must be a whole number >= 1, got 2.0"),
        ({"count": 257, "highest": 0}, r"count must be in 1\.\.256, .* got 257"),
        ({"highest": -1}, "highest must be a whole number >= 0, got -1"),
        ({"highest": 12}, r"highest must be in 0\.\.11, the model's blocks, got 12"),
        ({"templates": ()}, "templates must be a non-empty tuple"),
    ],
)
def test_parameters_out_of_range_are_refused(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_method("registers", model, **parameters)


def test_what_cannot_be_found_is_refused(model, few):
    with pytest.raises(ValueError, match="threshold must be below the length of some token, got 1"):
        find_register_neurons(model, few, threshold=1e6)
    with pytest.raises(ValueError, match=r"highest must be in 0\.\.11"):
        find_register_neurons(model, few, highest=12)
    with pytest.raises(ValueError, match=r"count must be in 1\.\.1536"):
        find_register_neurons(model, few, count=0)
    with pytest.raises(TypeError, match="images must be a tensor"):
        find_register_neurons(model, "a.png")


def test_the_defaults_are_those_of_the_published_code(model):
    assert Registers(model).config == RegistersConfig(neurons=None, count=10, highest=5)
