"""Stills and clips of posed emoji: made by their seed alone, with every point's place known."""

import numpy as np
import pytest

from scclip_lab.datasets.clips import Pose, choose_words, generator, make_clip, make_still, render
from scclip_lab.datasets.scenes import TEST, WORDS


def still(index=0, words=("dog", "dog", "cat")):
    return make_still(generator("stills", TEST, 3, index), words)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 35.0, -120.0])
def test_a_pose_maps_points_both_ways(angle, flip):
    pose = Pose("dog", "noto", (80.0, 130.0), 90.0, angle, flip)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    assert np.allclose(pose.to_drawing(pose.to_picture(points)), points)


@pytest.mark.parametrize(("angle", "flip"), [(0.0, False), (50.0, False), (-75.0, True)])
def test_a_drawing_is_seen_where_its_pose_says(angle, flip):
    upright = Pose("guitar", "noto", (112.0, 112.0), 160.0)
    turned = Pose("guitar", "noto", (100.0, 120.0), 120.0, angle, flip)
    masks = [render(np.zeros((224, 224, 3)), [pose])[1] == 1 for pose in (upright, turned)]
    centres = np.argwhere(masks[0]) + 0.5
    places = turned.to_picture(upright.to_drawing(centres)).astype(int)
    assert masks[1][tuple(places.T)].mean() > 0.95


def test_a_picture_is_a_pure_function_of_its_seed_and_shows_a_word_twice():
    a, b = still(), still()
    assert np.array_equal(a.images, b.images) and a.has_twins
    assert a.images.shape == (1, 224, 224, 3) and a.images.dtype == np.uint8
    assert (a.labels[0] == WORDS.index("dog")).sum() == np.isin(a.instances[0], [1, 2]).sum()
    assert not np.array_equal(a.images, still(1).images)


def test_a_clip_moves_its_objects_until_they_meet():
    clip = make_clip(generator("clips", TEST, 0, 0), ("dog", "cat"), frames=8)
    assert clip.images.shape == (8, 224, 224, 3) and len(clip.poses) == 8
    apart = [np.linalg.norm(np.subtract(a.centre, b.centre)) for a, b in clip.poses]
    assert min(apart) < apart[0] and np.argmin(apart) in (3, 4, 5)


def test_twins_are_drawn_with_the_chance_given():
    draws = [choose_words(np.random.default_rng(i), (3,), 0.5) for i in range(200)]
    assert 0.4 < np.mean([len(set(words)) < 3 for words in draws]) < 0.6


def test_an_unknown_kind_or_split_is_refused():
    with pytest.raises(ValueError, match=r"kind must be one of stills, .* got 'films'"):
        generator("films", TEST, 0, 0)
    with pytest.raises(ValueError, match=r"split must be VALIDATION \(1\) or TEST \(2\), got 0"):
        generator("stills", 0, 0, 0)
