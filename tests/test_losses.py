"""Losses of the bundled model: truth is about whole images, coverage about shares of windows."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from scclip_lab.datasets.scenes import N_OBJECTS, WORDS
from scclip_lab.training.losses import COVERAGE, contrastive_loss, pool_windows, window_loss
from scclip_lab.training.model import coverage_weights


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
