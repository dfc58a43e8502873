"""Training data: captions are true, a step is the same whenever it is made, drawings vary."""

import numpy as np
import pytest
import torch

from scclip_lab.datasets.atlas import TRAINING_STYLES, load_atlas
from scclip_lab.datasets.scenes import WORDS
from scclip_lab.training.augment import draw_varied, hue_rotation, recolour, variants
from scclip_lab.training.curriculum import CURRICULUM, Batches, caption, phase_at
from tests.short_training import SHORT, short_batches


@pytest.fixture(scope="module")
def batches():
    return short_batches()


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
