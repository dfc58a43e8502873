"""Plans of training steps: each change of the forward pass does what it says, and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scclip_core.images import normalise
from scclip_lab.datasets.scenes import WORDS
from scclip_lab.training.layers import cut, join, similarity_across_images
from scclip_lab.training.losses import contrastive_loss, pool_windows, window_loss
from scclip_lab.training.model import (
    ACROSS_IMAGES,
    CLASS_LENGTH,
    DEPTH,
    MEAN,
    PENALISED,
    SHORT_FROM,
    STD,
)
from scclip_lab.training.plan import StepPlan, draw_plan
from tests.short_training import lively_model, short_batches

PLAIN = StepPlan(
    position=(0, 0),
    crop=0,
    crop_offset=(0, 0),
    blind=False,
    dropped=(False,) * DEPTH,
    summed=None,
    by_attention=False,
    skip_attention=False,
    residual=1.0,
    skip_mlp=False,
    pool=1,
    power=1.0,
    background=0.0,
    seed=0,
)


@pytest.fixture(scope="module")
def batches():
    return short_batches()


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.fixture(scope="module")
def images(batches):
    return normalise(batches[3].images, MEAN, STD)  # [2, 3, 112, 112], 7 x 7 patches


def patch_gradient(model, images, plan, of):
    """Which patches of the first image `of(encoded)` depends on, bool [7, 7]."""
    given = images[:1].clone().requires_grad_(True)
    of(model.encode_image(given, plan)).sum().backward()
    per_patch = F.avg_pool2d(given.grad.abs().sum(1, keepdim=True), 16)[0, 0]
    return per_patch > 0


def test_without_changes_the_image_is_embedded_as_open_clip_does(model):
    scene = normalise(torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8), MEAN, STD)
    ours = model.encode_image(scene, PLAIN).image
    assert torch.allclose(ours, F.normalize(model.clip.encode_image(scene), dim=-1), atol=1e-4)


def test_a_blind_class_token_reads_patches_in_the_last_block_alone(model, images):
    without_last = replace(PLAIN, blind=True)
    a, b = images, images.flip(0)
    seeing = model.encode_image(a, PLAIN).image - model.encode_image(b, PLAIN).image
    assert seeing.abs().max() > 1e-4
    tokens = []
    for given in (a, b):
        store = []
        last = model.clip.visual.transformer.resblocks[-1]
        hook = last.ln_1.register_forward_pre_hook(lambda _, args, s=store: s.append(args[0]))
        model.encode_image(given, without_last)
        hook.remove()
        tokens.append(store[-1])
    assert torch.allclose(tokens[0][:, 0], tokens[1][:, 0], atol=1e-5)
    assert not torch.allclose(tokens[0][:, 1:], tokens[1][:, 1:], atol=1e-3)


def test_crops_are_separate(model, images):
    plan = replace(PLAIN, crop=3, crop_offset=(1, 0), blind=True)
    encoded = model.encode_image(images, plan)
    assert encoded.side == 6 and encoded.patches.shape[1] == 36
    seen = patch_gradient(model, images, plan, lambda e: e.patches[0, 0])
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:4, 0:3] = True
    assert torch.equal(seen, expected)
    assert patch_gradient(model, images, PLAIN, lambda e: e.patches[0, 0]).all()
    assert patch_gradient(model, images, plan, lambda e: e.image).sum() == 36


def test_cutting_and_joining_give_the_patches_back():
    x = torch.arange(2 * 49 * 3.0).view(2, 49, 3)
    cells, side = cut(x, 7, 2, (1, 0))
    assert cells.shape == (2 * 9, 4, 3) and side == 6
    expected = x.view(2, 7, 7, 3)[:, 1:7, 0:6].flatten(1, 2)
    assert torch.equal(join(cells, 2, 6, 2), expected)
    assert torch.equal(join(x, 2, 7, 0), x)


def test_a_dropped_block_changes_nothing_but_the_first_and_the_penalised_stay(model, images):
    whole = model.encode_image(images, PLAIN).patches
    only = [i == 5 for i in range(DEPTH)]
    assert not torch.allclose(
        model.encode_image(images, replace(PLAIN, dropped=tuple(only))).patches, whole, atol=1e-4
    )
    kept = tuple(i in (0, 3, 8, 10) for i in range(DEPTH))
    same = model.encode_image(images, replace(PLAIN, dropped=kept))
    assert torch.equal(same.patches, whole)


def test_patches_are_read_by_their_values_or_by_attention_among_them(model, images):
    def own(encoded):
        return encoded.patches[0, 10]

    everything = (True,) * DEPTH
    shallow = replace(PLAIN, crop=1, blind=True, dropped=everything)
    assert patch_gradient(model, images, shallow, own).sum() == 1
    by_attention = replace(shallow, by_attention=True)
    assert patch_gradient(model, images, by_attention, own).sum() == 49


def test_the_residual_of_the_class_token_is_scaled(model, images):
    last = model.clip.visual.transformer.resblocks[-1]
    found = []
    for scale in (0.0, 0.5, 1.0):
        store = []
        hook = last.ln_2.register_forward_pre_hook(lambda _, args, s=store: s.append(args[0]))
        model.encode_image(images, replace(PLAIN, residual=scale))
        hook.remove()
        found.append(store[0])
    assert torch.allclose(found[1] - found[0], (found[2] - found[0]) / 2, atol=1e-4)
    assert (found[2] - found[0]).abs().max() > 1e-2


def test_the_last_mlp_is_run_unless_it_is_skipped(model, images):
    last = model.clip.visual.transformer.resblocks[-1]
    calls = []
    hook = last.mlp.register_forward_hook(lambda *_: calls.append(1))
    model.encode_image(images, PLAIN)
    model.encode_image(images, replace(PLAIN, skip_mlp=True))
    hook.remove()
    assert len(calls) == 1


def test_patches_of_different_images_are_alike_by_the_square_of_their_positive_cosine():
    one_way = torch.eye(6)[:1].expand(3, 5, 6)
    assert similarity_across_images(one_way, 3, 0).item() == pytest.approx(1)
    assert similarity_across_images(7 * one_way, 3, 0).item() == pytest.approx(1)
    own_way = torch.eye(6)[:3, None].expand(3, 5, 6)
    assert similarity_across_images(own_way, 3, 0).item() == 0
    half = torch.stack([one_way[0], (one_way[0] + own_way[1]) / 2])  # at 45 degrees
    assert similarity_across_images(half, 2, 0).item() == pytest.approx(1 / 2)
    assert similarity_across_images(torch.stack([one_way[0], -one_way[0]]), 2, 0).item() == 0
    crops = own_way.repeat_interleave(4, 0)  # four crops of each image are no other images
    assert similarity_across_images(crops, 3, 0).item() == 0


def test_the_penalty_is_on_resemblance_and_on_the_length_of_the_class_token(model, images):
    store = []
    blocks = model.clip.visual.transformer.resblocks
    hooks = [
        block.mlp.register_forward_hook(lambda *_, s=store, i=i: s.append(i))
        for i, block in enumerate(blocks)
    ]
    inputs = [
        block.ln_1.register_forward_pre_hook(lambda _, args, s=store: s.append(args[0]))
        for block in blocks[1:]
    ]
    penalty = model.encode_image(images, PLAIN).penalty
    for hook in (*hooks, *inputs):
        hook.remove()
    layers = [x for x in store if isinstance(x, torch.Tensor)]  # output of blocks 0 to 10
    expected = sum(
        ACROSS_IMAGES * similarity_across_images(layers[i][:, 1:], 2, PLAIN.seed) for i in PENALISED
    )
    expected += sum(CLASS_LENGTH * x[:, 0].square().mean() for x in layers[SHORT_FROM:])
    assert len(layers) == DEPTH - 1
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)


def test_without_the_last_attention_the_image_is_the_class_token_alone(model, images):
    plan = replace(PLAIN, skip_attention=True, skip_mlp=True)
    last, store = model.clip.visual.transformer.resblocks[-1], []
    hook = last.ln_1.register_forward_pre_hook(lambda _, args: store.append(args[0]))
    image = model.encode_image(images, plan).image
    hook.remove()
    assert torch.allclose(image, model.project(store[-1][:, 0]), atol=1e-5)
    assert not torch.allclose(
        image, model.encode_image(images, replace(plan, skip_attention=False)).image, atol=1e-3
    )


def test_every_part_of_the_loss_counts(model, images, batches):
    batch = batches[3]
    inputs = (images, model.tokenize(batch.texts), batch.matches)
    plan = replace(PLAIN, pool=2)
    loss = model(*inputs, plan)
    encoded, text = model.encode_image(images, plan), model.encode_text(inputs[1])
    scale = model.clip.logit_scale.exp()
    by_hand = contrastive_loss(scale * encoded.image @ text.T, batch.matches) + encoded.penalty
    read = model.project(pool_windows(encoded.patches, 7, 2))
    present = batch.matches[:, -len(WORDS) :]
    by_hand = by_hand + window_loss(scale * read @ text[-len(WORDS) :].T, present, 1.0)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert encoded.penalty > 0
    more = model(*inputs, replace(plan, summed=(3, 6)))
    assert more > loss + 0.1


def test_the_summed_layers_are_those_that_the_plan_names(model, images):
    a = model.encode_image(images, replace(PLAIN, summed=(2, 4))).summed
    b = model.encode_image(images, replace(PLAIN, summed=(2, 5))).summed
    assert a.shape == b.shape == (2, 49, 192)
    assert not torch.allclose(a, b, atol=1e-4)
    later = tuple(i > 5 and i < 11 for i in range(DEPTH))
    c = model.encode_image(images, replace(PLAIN, summed=(2, 4), dropped=later)).summed
    assert torch.equal(a, c)  # nothing after the layers that are summed matters


def test_plans_are_drawn_from_all_that_is_allowed():
    plans = [draw_plan(np.random.default_rng(s), 7, 0.0) for s in range(400)]
    assert {p.crop for p in plans} == {0, 2, 3, 4, 5}
    assert {p.pool for p in plans} == {1, 2, 3, 4}
    assert {p.power for p in plans} == {1.0, 2.0, 4.0}
    assert all(p.blind for p in plans if p.crop)
    assert not any(p.by_attention for p in plans if p.crop)
    assert not any(p.blind or p.residual < 1 for p in plans if p.skip_attention)
    assert {p.summed for p in plans if p.summed} > {(3, 10), (2, 11), (9, 10)}
    assert all(2 <= p.summed[0] < p.summed[1] < DEPTH for p in plans if p.summed)
    for share, low, high in (
        (np.mean([p.skip_mlp for p in plans]), 0.4, 0.6),
        (np.mean([p.residual < 1 for p in plans if not p.skip_attention]), 0.4, 0.6),
        (np.mean([p.skip_attention for p in plans if not p.blind]), 0.15, 0.35),
        (np.mean([p.dropped for p in plans]), 0.06, 0.10),
        (np.mean([p.blind for p in plans if not p.crop]), 0.4, 0.6),
        (np.mean([p.summed is not None for p in plans]), 0.6, 0.8),
    ):
        assert low < share < high
    small = [draw_plan(np.random.default_rng(s), 4, 2.0) for s in range(100)]
    assert {p.crop for p in small} == {0, 2, 3, 4} and max(p.pool for p in small) == 2
