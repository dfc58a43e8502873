"""Tests of the exercises of chapter 10: IoU of boxes, PCK, one step of label propagation."""

import numpy as np
import torch

from scclip_lab.exercises import Attempt, exercise


@exercise("10-4")
def iou_of_boxes(attempt: Attempt) -> None:
    """attempt(a, b) of boxes (top, left, height, width) -> intersection over union."""
    box = (10, 20, 30, 40)
    assert np.isclose(attempt(box, box), 1), "a box and itself overlap by 1"
    assert np.isclose(attempt(box, (10, 100, 30, 40)), 0), (
        "boxes that lie apart share nothing: the shared width may not count below 0"
    )
    assert np.isclose(attempt(box, (100, 200, 5, 5)), 0), (
        "boxes apart in both directions share nothing: two negative sides make a positive area"
    )
    half = attempt((0, 0, 10, 10), (0, 5, 10, 10))
    assert np.isclose(half, 50 / 150), (
        f"two squares of 100 pixels that share 50 cover 150 together, so 1/3, got {half:.3f}"
    )
    inner = attempt((0, 0, 10, 20), (2, 3, 4, 5))
    assert np.isclose(inner, 20 / 200), (
        f"a box of 20 pixels inside one of 200 gives 0.1, got {inner:.3f}: is height rows and"
        " width columns?"
    )


@exercise("10-5")
def share_of_correct_points(attempt: Attempt) -> None:
    """attempt(found [K, 2], truth [K, 2], size) -> PCK@0.1."""
    truth = np.array([[10.0, 10.0], [50.0, 50.0], [90.0, 10.0], [20.0, 80.0]])
    assert np.isclose(attempt(truth, truth, 100.0), 1), "points that are found exactly all count"
    moved = truth + np.array([[0, 0], [6, 8], [7, 8], [0, 50]])
    given = float(attempt(moved, truth, 100.0))
    assert not np.isclose(given, 0.25), (
        "a point exactly 10 pixels away counts at a size of 100: the limit itself is right (<=)"
    )
    assert not np.isclose(given, 0.75), (
        "the distance is the straight one, the root of the sum of squares: (7, 8) is further than"
        " 10 pixels away"
    )
    assert np.isclose(given, 0.5), f"two of these four points lie within 10 pixels, got {given:.2f}"
    assert np.isclose(attempt(moved, truth, 60.0), 0.25), (
        "the limit is 0.1 times the size: of an object of 60 pixels, 6 pixels"
    )


@exercise("10-6")
def step_of_propagation(attempt: Attempt) -> None:
    """attempt(current [N, D], past [M, D], masks [M, C], k, temperature) -> masks [N, C]."""
    past = torch.eye(4)
    masks = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    copied = attempt(past, past, masks, 1, 0.1)
    assert copied.shape == (4, 2), f"four patches and two masks give [4, 2], got {[*copied.shape]}"
    assert torch.allclose(copied, masks), "with k = 1 each patch takes the mask of its own copy"
    between = torch.tensor([[0.9, 0.0, 0.4359, 0.0]])
    given = attempt(between, past, masks, 2, 0.1)[0]
    assert torch.allclose(given.sum(), torch.tensor(1.0), atol=1e-4), (
        "the weights of the k voters must sum to 1: softmax over these k, not over all"
    )
    wanted = torch.tensor([0.9, 0.4359]).div(0.1).softmax(0)
    assert torch.allclose(given, wanted, atol=1e-4), (
        f"two voters at 0.9 and 0.44 weigh {wanted[0]:.3f} and {wanted[1]:.3f} at a temperature of"
        f" 0.1, got {given[0]:.3f} and {given[1]:.3f}: divide by the temperature before the softmax"
    )
