"""Tests of the exercises of chapter 5: a paired bootstrap, gains from scores, an interaction."""

import math

import numpy as np

from scclip_lab.evaluation.metrics import paired_interval
from scclip_lab.exercises import Attempt, exercise


def _share(counts: np.ndarray) -> np.ndarray:
    """Right pixels over all pixels, of sums [..., 2] over scenes."""
    ratio: np.ndarray = counts[..., 0] / counts[..., 1]
    return ratio


def _two_methods() -> tuple[np.ndarray, np.ndarray]:
    """Right and all pixels of 200 scenes, [200, 2] each: hard and easy scenes, a small lead."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(100, 2000, 200)
    hard = rng.uniform(0.2, 0.9, 200)
    lead = 0.02 + rng.normal(0, 0.02, 200)
    found = [np.stack([np.round(share * pixels), pixels], 1) for share in (hard + lead, hard)]
    return found[0], found[1]


@exercise("05-4")
def paired_bootstrap(attempt: Attempt) -> None:
    """attempt(a, b, draws, rng) -> (difference, low, high); a and b are [I, 2]: right, all."""
    a, b = _two_methods()
    value, low, high = attempt(a, b, 1000, np.random.default_rng(0))
    wanted = paired_interval(a, b, _share, 0)
    means = float((a[:, 0] / a[:, 1] - b[:, 0] / b[:, 1]).mean())
    assert not math.isclose(value, means, abs_tol=1e-6), (
        "this is the mean of the scenes' shares; pixels count alike: sum over scenes, then divide"
    )
    assert math.isclose(value, wanted[0], abs_tol=1e-9), (
        f"the difference of the two shares of right pixels is {wanted[0]:.5f}, got {value:.5f}"
    )
    assert low < value < high, f"the interval must hold the difference, got [{low}, {high}]"
    width, apart = high - low, wanted[2] - wanted[1]
    assert width < 2 * apart, (
        f"the interval is {width / apart:.0f} times as wide as a paired one: draw the same scenes"
        " for both methods, so that hard scenes are hard for both"
    )
    assert abs(width / apart - 1) < 0.25, (
        f"the interval should be {apart:.4f} wide, give or take a quarter, it is {width:.4f}: as"
        " many scenes as there are, drawn with replacement, and the quantiles 0.025 and 0.975"
    )
    same = attempt(a, a, 100, np.random.default_rng(0))
    assert np.allclose(same, 0), "a method against itself differs by nothing, in every draw"


@exercise("05-5")
def gains_from_scores(attempt: Attempt) -> None:
    """attempt(scores, order) -> (added, left_out); scores has a frozenset of modules -> score."""
    scores = {
        frozenset(): 0.40,
        frozenset("a"): 0.43,
        frozenset("b"): 0.45,
        frozenset("c"): 0.39,
        frozenset("ab"): 0.46,
        frozenset("ac"): 0.44,
        frozenset("bc"): 0.42,
        frozenset("abc"): 0.48,
    }
    added, left_out = attempt(dict(scores), ["a", "b", "c"])
    assert list(added) == list(left_out) == ["a", "b", "c"], (
        "both results have a gain for every module, in the given order"
    )
    total = sum(added.values())
    assert math.isclose(total, 0.08, abs_tol=1e-9), (
        f"added gains sum to the total, 0.48 - 0.40, got {total:.3f}: each begins where the one"
        " before it ended"
    )
    assert np.allclose(list(added.values()), [0.03, 0.03, 0.02]), (
        f"a, then b to a, then c to both gain 0.03, 0.03, 0.02, got {list(added.values())}"
    )
    assert np.allclose(list(left_out.values()), [0.06, 0.04, 0.02]), (
        "leaving out costs the score of all modules minus that of all but the one: 0.06, 0.04,"
        f" 0.02, got {list(left_out.values())}"
    )
    turned, _ = attempt(dict(scores), ["b", "a", "c"])
    assert math.isclose(turned["b"], 0.05, abs_tol=1e-9), (
        "in another order b comes first and gains 0.05: the order must be the one that is given"
    )


@exercise("05-6")
def interaction(attempt: Attempt) -> None:
    """attempt(none, first, second, both) -> the gain of both minus the two gains alone."""
    assert math.isclose(attempt(0.40, 0.43, 0.45, 0.48), 0, abs_tol=1e-9), (
        "where the gains add up, 0.03 + 0.05 = 0.08, there is no interaction"
    )
    same_work = attempt(0.40, 0.45, 0.45, 0.45)
    assert math.isclose(same_work, -0.05, abs_tol=1e-9), (
        "two modules that do the same work gain 0.05 alone and 0.05 together: the interaction is"
        f" -0.05, got {same_work:.3f}"
    )
    helping = attempt(0.40, 0.40, 0.38, 0.44)
    assert math.isclose(helping, 0.06, abs_tol=1e-9), (
        f"gains of 0.00 and -0.02 alone and of 0.04 together interact by +0.06, got {helping:.3f}"
    )
