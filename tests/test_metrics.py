"""Metrics agree with scikit-learn, and intervals mean what they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from scclip_lab.evaluation.metrics import (
    background_accuracy,
    class_counts,
    confusion_matrix,
    count_classes,
    interval,
    interval_and_gain,
    iou_per_class,
    mean_iou,
    object_accuracy,
    paired_interval,
    pixel_accuracy,
)


def labels(seed: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (9, 11))
    guess = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, classes, truth.shape))
    truth[rng.random(truth.shape) < 0.1] = 255
    return torch.from_numpy(guess), torch.from_numpy(truth)


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6))
@settings(deadline=None, max_examples=40)
def test_everything_agrees_with_scikit_learn(seed, classes):
    guess, truth = labels(seed, classes)
    matrix = confusion_matrix(guess, truth, classes)
    kept = truth != 255
    true, predicted = truth[kept].numpy(), guess[kept].numpy()
    assert matrix.dtype == torch.int64
    assert np.array_equal(matrix, sklearn_confusion(true, predicted, labels=range(classes)))
    present = sorted(set(true) | set(predicted))
    expected = jaccard_score(true, predicted, labels=present, average=None, zero_division=0)
    counts = count_classes(guess, truth, classes)
    assert np.array_equal(counts, class_counts(matrix.numpy()))
    np.testing.assert_allclose(iou_per_class(counts)[present], expected)
    np.testing.assert_allclose(mean_iou(counts), expected.mean())
    np.testing.assert_allclose(pixel_accuracy(counts), accuracy_score(true, predicted))


def test_a_class_that_occurs_nowhere_is_left_out_of_the_mean():
    counts = class_counts(np.diag([3, 0, 5]))
    assert np.isnan(iou_per_class(counts)[1])
    assert mean_iou(counts) == 1.0


def test_a_class_predicted_but_never_true_is_missed_by_the_others_alone():
    assert mean_iou(class_counts(np.array([[4, 1], [0, 0]]))) == pytest.approx(4 / 5)


def test_a_draw_that_misses_a_class_misses_it_for_all_methods():
    # Image 0 has class 0 alone, image 1 both. The second method calls a pixel of image 0 class 1.
    exact = np.stack([class_counts(np.diag([9, 0])), class_counts(np.diag([5, 4]))])
    stray = np.stack([class_counts(np.array([[8, 1], [0, 0]])), exact[1]])
    assert mean_iou(2 * exact[0]) - mean_iou(2 * stray[0]) == pytest.approx(1 / 9)  # not 5 / 9
    low, high = paired_interval(exact, stray, mean_iou)[1:]
    assert 0 <= low <= high < 0.2
    assert np.isnan(mean_iou(np.zeros((3, 2))))


def test_ignored_pixels_count_nowhere():
    truth = torch.full((4, 4), 255)
    assert not confusion_matrix(torch.zeros_like(truth), truth, 3).any()


@pytest.mark.parametrize(
    ("guess", "truth", "message"),
    [
        ([[0, 1]], [[0]], "prediction must have the shape of truth, .1, 1., got .1, 2."),
        ([[0, 3]], [[0, 1]], r"prediction must be in 0\.\.2, got 0\.\.3"),
        ([[0, 1]], [[0, -1]], r"truth must be in 0\.\.2, got -1\.\.0"),
    ],
)
def test_bad_label_maps_are_refused(guess, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(guess), torch.tensor(truth), 3)


@given(seed=st.integers(0, 2**32 - 1), objects=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_objects_and_background_are_scored_on_their_own_pixels(seed, objects):
    guess, truth = labels(seed, 5)
    counts = count_classes(guess, truth, 5)
    on_objects, on_background = truth < objects, (truth >= objects) & (truth != 255)
    right = (guess == truth).double()
    assert object_accuracy(counts, objects) == pytest.approx(float(right[on_objects].mean()))
    assert background_accuracy(counts, objects) == pytest.approx(float(right[on_background].mean()))
    # Together they are the pixel accuracy, each by its share of the pixels.
    share_of_objects = float(on_objects.sum() / (truth != 255).sum())
    both = share_of_objects * object_accuracy(counts, objects)
    both += (1 - share_of_objects) * background_accuracy(counts, objects)
    assert both == pytest.approx(float(pixel_accuracy(counts)))


def test_a_mask_names_objects_as_a_number_does():
    counts = np.random.default_rng(0).integers(1, 9, (7, 3, 4))
    mask = np.array([True, True, False, False])
    for statistic in (object_accuracy, background_accuracy):
        assert statistic(counts, mask).shape == (7,)
        assert np.array_equal(statistic(counts, mask), statistic(counts, 2))
    background_first = np.array([False, True, True, True])
    assert np.array_equal(
        background_accuracy(counts, background_first), counts[:, 0, 0] / counts[:, 1, 0]
    )


def test_a_share_of_no_pixels_is_not_defined_and_leaves_the_interval_alone():
    only_background = class_counts(np.array([[0, 0], [1, 3]]))
    assert np.isnan(object_accuracy(only_background, 1))
    both = class_counts(np.array([[2, 2], [1, 3]]))
    found = interval(np.stack([only_background, both]), lambda c: object_accuracy(c, 1))
    assert found == (0.5, 0.5, 0.5)
    nothing = interval(only_background[None], lambda c: object_accuracy(c, 1))
    assert np.isnan(nothing).all()


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (3, r"objects must be in 0\.\.2, the classes, got 3"),
        (np.array([True]), r"objects must be a number or bool \[2\], got bool \[1\]"),
        (np.array([0, 1]), r"objects must be a number or bool \[2\], got int64 \[2\]"),
    ],
)
def test_objects_that_fit_no_classes_are_refused(objects, message):
    with pytest.raises(ValueError, match=message):
        object_accuracy(np.zeros((3, 2)), objects)


def share(counts: np.ndarray) -> np.ndarray:
    return counts[..., 0] / counts[..., 1]


def coins(n: int, chance: float, seed: int) -> np.ndarray:
    right = np.random.default_rng(seed).random(n) < chance
    return np.stack([right, np.ones_like(right)], 1).astype(np.int64)


def test_the_interval_of_a_share_has_the_width_that_theory_gives():
    value, low, high = interval(coins(400, 0.5, 0), share, draws=4000)
    assert low < value < high
    assert (high - low) == pytest.approx(2 * 1.96 * (value * (1 - value) / 400) ** 0.5, rel=0.1)


def test_images_that_are_all_alike_have_an_interval_of_no_width():
    counts = class_counts(np.array([[3, 1], [2, 4]]))
    value, low, high = interval(np.tile(counts, (20, 1, 1)), mean_iou)
    assert value == pytest.approx(low) == pytest.approx(high)


def test_the_same_seed_gives_the_same_interval():
    data = coins(50, 0.7, 1)
    first, again, other = (interval(data, share, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_a_method_differs_from_itself_by_nothing():
    data = coins(50, 0.7, 1)
    assert paired_interval(data, data, share) == (0.0, 0.0, 0.0)


def test_pairing_sees_a_small_difference_that_single_intervals_do_not():
    a = coins(300, 0.6, 0)
    b = a.copy()
    # b is wrong on a few images more, and on none less.
    b[:12, 0] = 0
    difference, low, _ = paired_interval(a, b, share)
    assert difference > 0
    assert low > 0
    assert interval(a, share)[1] < interval(b, share)[2]


def test_methods_on_other_images_cannot_be_paired():
    with pytest.raises(ValueError, match="a and b must come from the same images"):
        paired_interval(coins(5, 0.5, 0), coins(6, 0.5, 0), share)
    with pytest.raises(ValueError, match="at least one image"):
        interval(np.zeros((0, 2)), share)


def test_a_gain_is_paired_and_over_itself_exactly_zero():
    rng = np.random.default_rng(0)
    base = rng.integers(1, 9, (30, 3, 4)) + np.array([0, 9, 9])[:, None]
    # One more pixel of each class is right in every image.
    better = base + np.array([1, 0, 0])[:, None]
    assert interval_and_gain(base, base, mean_iou)[3:] == (0, 0, 0)
    value, low, high, gain, gain_low, gain_high = interval_and_gain(better, base, mean_iou)
    assert value == pytest.approx(mean_iou(better.sum(0))) and low < value < high
    assert gain == pytest.approx(mean_iou(better.sum(0)) - mean_iou(base.sum(0)))
    assert 0 < gain_low <= gain <= gain_high
    assert gain_high - gain_low < high - low
