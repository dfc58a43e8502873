"""Scenes are pure functions of their seed, their words are true, and sets never overlap."""

import numpy as np
import pytest

from scclip_lab.datasets.atlas import (
    CELL,
    HELD_OUT_STYLES,
    OBJECTS,
    SOURCES,
    TRAINING_STYLES,
    load_atlas,
)
from scclip_lab.datasets.backgrounds import BACKGROUNDS
from scclip_lab.datasets.scenes import (
    N_OBJECTS,
    TEST,
    TRAIN,
    VALIDATION,
    WORDS,
    evaluation_scene,
    make_scene,
)


def test_the_atlas_has_every_object_in_every_style():
    atlas = load_atlas()
    assert set(atlas) == {(style, word) for style in SOURCES for word in OBJECTS}
    for drawing in atlas.values():
        alpha = np.asarray(drawing)[..., 3]
        assert drawing.size == (CELL, CELL)
        # It fills its cell along one side.
        assert max(np.ptp(np.nonzero(alpha > 128), axis=1)) >= 0.9 * CELL


def test_the_held_out_style_is_not_trained_on():
    assert set(TRAINING_STYLES) | set(HELD_OUT_STYLES) == set(SOURCES)
    assert not set(TRAINING_STYLES) & set(HELD_OUT_STYLES)


def test_there_are_56_words():
    assert len(set(WORDS)) == len(WORDS) == 56
    assert N_OBJECTS == 48


@pytest.mark.parametrize("word", BACKGROUNDS)
def test_a_background_is_repeatable_and_varies_with_its_seed(word):
    first, again, other = (BACKGROUNDS[word](np.random.default_rng(s), 40, 56) for s in (0, 0, 1))
    assert first.shape == (40, 56, 3)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_same_seed_composes_the_same_scene():
    a, b = evaluation_scene(TEST, 3, 7), evaluation_scene(TEST, 3, 7)
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.labels, b.labels)
    assert a.words == b.words


def test_splits_seeds_indices_and_styles_give_different_scenes():
    scenes = [
        evaluation_scene(VALIDATION, 0, 0),
        evaluation_scene(TEST, 0, 0),
        evaluation_scene(TEST, 1, 0),
        evaluation_scene(TEST, 0, 1),
        evaluation_scene(TEST, 0, 0, "held-out"),
    ]
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("index", range(8))
def test_labels_hold_exactly_the_words_of_the_scene(index):
    scene = evaluation_scene(VALIDATION, 11, index)
    assert scene.image.shape == (224, 224, 3)
    assert scene.image.dtype == scene.labels.dtype == np.uint8
    present = {WORDS[i] for i in np.unique(scene.labels)}
    assert set(scene.objects) <= present <= set(scene.words)
    assert 1 <= len(scene.objects) <= 4


def test_one_object_asked_for_is_one_object():
    scene = make_scene(np.random.default_rng(0), 96, counts=(1,))
    assert len(scene.objects) == 1
    assert scene.labels.shape == (96, 96)


def test_training_scenes_and_unknown_styles_are_refused():
    with pytest.raises(ValueError, match="split must be VALIDATION"):
        evaluation_scene(TRAIN, 0, 0)
    with pytest.raises(ValueError, match="style must be one of training, held-out, got 'noto'"):
        evaluation_scene(TEST, 0, 0, "noto")
