"""Training the bundled model: truth is about whole images, each change does what it says."""

import itertools
import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from tqdm import tqdm

from scclip_core import FrozenCLIP
from scclip_core.images import normalise
from scclip_lab.datasets.atlas import TRAINING_STYLES, load_atlas
from scclip_lab.datasets.scenes import BACKGROUNDS, N_OBJECTS, WORDS
from scclip_lab.training import train as training
from scclip_lab.training.augment import draw_varied, hue_rotation, recolour, variants
from scclip_lab.training.curriculum import CURRICULUM, Batches, Phase, caption, phase_at
from scclip_lab.training.layers import cut, join, similarity_across_images
from scclip_lab.training.losses import COVERAGE, contrastive_loss, pool_windows, window_loss
from scclip_lab.training.model import (
    ACROSS_IMAGES,
    CLASS_LENGTH,
    DEPTH,
    MEAN,
    PENALISED,
    SHORT_FROM,
    STD,
    MiniCLIP,
    coverage_weights,
    sine_positions,
    whitened_patches,
)
from scclip_lab.training.plan import StepPlan, draw_plan
from scclip_lab.training.train import learning_rate, loss_of, make_optimizers, train

SHORT = (
    Phase(64, 4, 3, (1,), {1: (0.65, 1.05)}),
    Phase(112, 2, 3, (1, 2), {1: (0.5, 0.9), 2: (0.4, 0.6)}),
)
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
    return Batches(SHORT, seed=5, painted=2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    mini = MiniCLIP().requires_grad_(False)
    with torch.no_grad():  # as initialised, blocks hardly change their input
        for block in mini.clip.visual.transformer.resblocks:
            block.attn.out_proj.weight.mul_(5)
            block.mlp.c_proj.weight.mul_(5)
    return mini


@pytest.fixture(scope="module")
def images(batches):
    return normalise(batches[3].images, MEAN, STD)  # [2, 3, 112, 112], 7 x 7 patches


# ---- what is seen


@pytest.mark.parametrize("seed", range(40))
def test_a_caption_says_the_words_it_names_and_only_true_ones(seed):
    objects, background = ("dog", "ice cream", "apple"), "night"
    text, named = caption(np.random.default_rng(seed), objects, background)
    assert set(named) <= {*objects, background}
    assert all(word in text for word in named)
    assert not [w for w in (*objects, background) if w not in named and f" {w} " in f" {text} "]


def test_matches_mark_the_texts_whose_words_are_in_the_scene(batches):
    images, texts, matches = batches[0]
    assert images.shape == (4, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert matches.shape == (4, len(texts))
    captions, words = matches[:, : -len(WORDS)], matches[:, -len(WORDS) :]
    assert captions.any(0).all()  # every caption is true of the scene it was made for
    assert all(word in text for word, text in zip(WORDS, texts[-len(WORDS) :], strict=True))
    assert (words.sum(1) == 2).all()  # one object and the background


def test_a_step_is_the_same_whenever_it_is_made(batches):
    first, again = batches[4], Batches(SHORT, seed=5, painted=2)[4]
    assert torch.equal(first.images, again.images)
    assert first.texts == again.texts
    assert not torch.equal(first.images, Batches(SHORT, seed=6, painted=2)[4].images)


def test_phases_follow_each_other_up_to_224_pixels_and_four_objects():
    assert [phase_at(SHORT, s).side for s in range(6)] == [64] * 3 + [112] * 3
    with pytest.raises(IndexError, match="ends before step 6"):
        phase_at(SHORT, 6)
    sides = [phase.side for phase in CURRICULUM]
    assert sides == sorted(sides) and sides[-1] == 224
    assert max(CURRICULUM[-1].counts) == 4


def test_painted_backgrounds_do_not_wrap_around(batches):
    snow = np.concatenate(batches.backgrounds["snow"])
    assert snow.min() > 100  # bright everywhere: values above 255 are white, not black


def test_a_drawing_is_varied_in_few_colours_in_hue_and_in_shape():
    found = variants("noto", "dog")
    opaque = np.asarray(found[1])[np.asarray(found[1])[..., 3] > 0][:, :3]
    assert len(np.unique(opaque, axis=0)) <= 4
    rng = np.random.default_rng(0)
    sprites = [draw_varied(rng, "noto", "dog", 60) for _ in range(8)]
    assert len({sprite.shape for sprite in sprites}) > 4
    for sprite in sprites:
        assert 40 < max(np.ptp(np.nonzero(sprite[..., 3] > 128), axis=1)) < 100


def test_a_hue_rotation_keeps_grey_and_lengths():
    turn = hue_rotation(0.7)
    assert np.allclose(turn @ np.ones(3), np.ones(3))
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.allclose(hue_rotation(2 * np.pi / 3) @ [1, 0, 0], [0, 1, 0])


def test_recolouring_changes_colours_and_keeps_their_shape():
    rgb = np.asarray(load_atlas()[TRAINING_STYLES[0], "dog"], np.float32)[..., :3]
    changed = recolour(np.random.default_rng(1), rgb)
    assert changed.shape == rgb.shape and changed.dtype == np.float32
    assert np.isfinite(changed).all() and not np.allclose(changed, rgb, atol=1)


# ---- losses


def test_the_contrastive_loss_is_clips_where_every_image_has_one_text():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(5)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert torch.allclose(contrastive_loss(logits, torch.eye(5).bool()), expected)


def test_both_directions_of_the_contrastive_loss_count():
    logits = torch.zeros(2, 2)
    matches = torch.eye(2).bool()
    by_row, by_column = torch.tensor([[4.0, 0], [4, 0]]), torch.tensor([[4.0, 4], [0, 0]])
    assert contrastive_loss(by_row, matches) != contrastive_loss(logits, matches)
    a, b = contrastive_loss(by_row, matches), contrastive_loss(by_column, matches)
    assert torch.allclose(a, b)  # each is wrong in one direction only


def test_a_text_that_is_true_of_no_image_pushes_images_away_and_is_not_pulled():
    logits = torch.zeros(2, 3, requires_grad=True)
    matches = torch.tensor([[True, False, False], [False, True, False]])
    contrastive_loss(logits, matches).backward()
    assert (logits.grad[:, 2] > 0).all()
    assert torch.allclose(logits.grad.sum(1), torch.zeros(2), atol=1e-6)


def windows(rows):
    return torch.log(torch.tensor([rows]))


def test_windows_that_are_words_of_the_image_in_equal_shares_have_the_smallest_loss():
    present = torch.tensor([[True, True, False]])
    e = 1e-6
    good = windows([[1 - 2 * e, e, e], [e, 1 - 2 * e, e]])
    absent = windows([[1 - 2 * e, e, e], [e, e, 1 - 2 * e]])
    one_word = windows([[1 - 2 * e, e, e], [1 - 2 * e, e, e]])
    loss = window_loss(good, present, 1.0)
    assert loss.item() == pytest.approx(COVERAGE * math.log(2), abs=1e-4)
    assert window_loss(absent, present, 1.0) > loss + 1
    assert window_loss(one_word, present, 1.0) > loss + 1


def test_with_a_large_power_one_window_is_enough_for_a_word():
    present = torch.tensor([[True, True]])
    e = 1e-6
    rows = [[1 - e, e]] * 15 + [[e, 1 - e]]
    by_power = [window_loss(windows(rows), present, power).item() for power in (1.0, 4.0, 100.0)]
    assert by_power == sorted(by_power, reverse=True)
    plain = -(math.log(15 / 16) + math.log(1 / 16)) / 2
    assert by_power[0] == pytest.approx(COVERAGE * plain, abs=1e-3)
    assert by_power[2] < 0.1


def test_windows_are_means_of_neighbouring_patches():
    tokens = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0))
    pooled = pool_windows(tokens, 4, 2)
    assert pooled.shape == (2, 9, 3)
    assert torch.allclose(pooled[1, 4], tokens[1, [5, 6, 9, 10]].mean(0), atol=1e-6)
    assert torch.allclose(pool_windows(tokens, 4, 1), tokens)


# ---- the changes, one by one


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


# ---- the model and the run


def test_positions_are_unlike_each_other():
    positions = sine_positions(14, 192)
    assert positions.shape == (196, 192)
    assert torch.unique(positions, dim=0).shape[0] == 196


def test_the_first_patch_embedding_gives_outputs_of_equal_spread(batches):
    sample = normalise(torch.cat([batches[s].images for s in range(3)]), MEAN, STD)
    out = F.conv2d(sample, whitened_patches(sample), stride=16).movedim(1, -1).flatten(0, 2)
    strongest = out[:, -20:].std(0)
    assert ((strongest > 0.3) & (strongest < 0.7)).all()


def test_queries_and_keys_of_the_last_block_start_as_nearly_the_same():
    torch.manual_seed(0)
    last = MiniCLIP().clip.visual.transformer.resblocks[-1]
    q, k = last.attn.in_proj_weight[:192], last.attn.in_proj_weight[192:384]
    for weight in (q, k):
        assert (weight.diagonal().mean() - 0.8).abs() < 0.02
        assert (weight - torch.diag(weight.diagonal())).std() < 0.03


def test_every_word_is_in_the_vocabulary():
    mini = MiniCLIP()
    for word in (*WORDS, *BACKGROUNDS):
        assert torch.isin(mini.tokenizer(f"a photo of {word}"), mini.vocabulary).all()


def test_matrices_of_the_blocks_are_muons_and_every_weight_is_trained_once(model):
    muon, adamw = make_optimizers(MiniCLIP())
    counts = [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in (muon, adamw)]
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    assert all(p.ndim == 2 for g in muon.param_groups for p in g["params"])


def test_the_coverage_is_smallest_where_the_shares_are_as_the_weights():
    # Three words; four windows, each sure of one of them, in all ways to share them out.
    present = torch.ones(1, 3, dtype=torch.bool)
    weight = torch.tensor([[1.0, 1.0, 2.0]])
    sure = torch.eye(3) * 8

    def loss(labels, weight=None):
        return window_loss(sure[torch.tensor(labels)][None], present, 1.0, weight).item()

    shares = [sorted(s) for s in itertools.product(range(3), repeat=4) if set(s) == {0, 1, 2}]
    assert min(shares, key=lambda s: loss(s, weight)) == [0, 1, 2, 2]
    assert loss([0, 1, 2, 2]) == pytest.approx(loss([0, 0, 1, 2]), abs=1e-5)


def test_the_background_weighs_as_much_as_its_share_of_the_objects():
    present = torch.zeros(2, len(WORDS), dtype=torch.bool)
    present[0, [0, 1, 2, N_OBJECTS]] = True
    present[1, [5, N_OBJECTS + 1]] = True
    weight = coverage_weights(present, 2.0)
    assert (weight[:, :N_OBJECTS] == 1).all()
    assert weight[0, N_OBJECTS] == 6 and weight[1, N_OBJECTS + 1] == 2
    assert (coverage_weights(present, 0.0) == 1).all()


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    rates = [learning_rate(step, 10_000, 0) for step in range(10_001)]
    assert rates[0] == pytest.approx(1 / training.WARM_UP)
    assert rates[training.WARM_UP : 7000] == [1.0] * (7000 - training.WARM_UP)
    assert rates[-1] == 0 and rates[-2] > 0
    assert rates[7000:] == sorted(rates[7000:], reverse=True)
    again = [learning_rate(step, 10_000, 500) for step in range(10_501)]
    assert again[:10_000] == rates[:10_000]
    assert again[10_000] == training.AGAIN and again[-1] == 0
    assert again[10_000:] == sorted(again[10_000:], reverse=True)


def test_a_few_steps_lower_the_loss(batches):
    torch.manual_seed(0)
    mini, rng = MiniCLIP(), np.random.default_rng(0)
    optimizers = make_optimizers(mini)
    losses = []
    for _ in range(12):
        loss = loss_of(mini, batches[0], np.random.default_rng(rng.integers(3)))
        mini.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5


def test_a_run_that_was_cut_goes_on_to_the_same_model(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "EVERY", 2)
    whole, _ = train(SHORT, 5, tmp_path / "whole.pt")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tqdm, "write", stop)  # right after the first checkpoint
        train(SHORT, 5, tmp_path / "cut.pt")
    resumed, curve = train(SHORT, 5, tmp_path / "cut.pt")
    for (name, a), (_, b) in zip(
        whole.state_dict().items(), resumed.state_dict().items(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6), name
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert not list(tmp_path.glob(".partial-*"))


def test_the_moving_average_is_kept_and_the_rate_follows_its_schedule(tmp_path):
    kept, _ = train(SHORT, 5, tmp_path / "run.pt")
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    assert saved["average"]["n_averaged"] == saved["step"] == 6
    for name, value in kept.state_dict().items():
        assert torch.equal(value, saved["average"][f"module.{name}"]), name
    name = "clip.logit_scale"
    assert not torch.equal(saved["average"][f"module.{name}"], saved["model"][name])
    for i in range(2):
        (group,) = saved[f"optimizer {i}"]["param_groups"]
        assert group["lr"] == training.RATE * learning_rate(6, 3, 3) == 0


def test_the_export_loads_with_open_clip_embeds_alike_and_is_small(tmp_path):
    torch.manual_seed(0)
    mini = MiniCLIP()
    mini.export(tmp_path)
    loaded = FrozenCLIP(open_clip.create_model(f"local-dir:{tmp_path}"))
    prompts = ["a photo of dog", "grass", "a photo of an ice cream"]
    ours = mini.encode_text(mini.tokenize(prompts))
    assert torch.allclose(loaded.encode_text(prompts), ours, atol=2e-2)
    table = loaded.clip.token_embedding.weight
    assert (table.any(1).nonzero().flatten() == mini.vocabulary).all()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 20e6
