"""Exercises of chapters 5 and 8: wrong answers are told what is wrong."""

import numpy as np
import pytest

from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch05 import gains, paired_bootstrap
from scclip_lab.exercises.solutions.ch08 import scenes_needed, verdict


def mean_of_shares(a, b, draws, rng):
    apart = a[:, 0] / a[:, 1] - b[:, 0] / b[:, 1]
    return apart.mean(), apart.mean() - 0.01, apart.mean() + 0.01


def unpaired(a, b, draws, rng):
    def share(counts):
        drawn = counts[rng.integers(0, len(counts), len(counts))].sum(0)
        return drawn[0] / drawn[1]

    found = [share(a) - share(b) for _ in range(draws)]
    return paired_bootstrap(a, b, 10, rng)[0], *np.quantile(found, [0.025, 0.975])


def half_of_it(a, b, draws, rng):
    value, low, high = paired_bootstrap(a, b, draws, rng)
    return value, (value + low) / 2, (value + high) / 2


def all_alone(scores, order):
    first = {name: scores[frozenset(name)] - scores[frozenset()] for name in order}
    return first, gains(scores, order)[1]


def own_order(scores, order):
    return gains(scores, sorted(order))


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("05-4", mean_of_shares, "the mean of the scenes' shares"),
        ("05-4", lambda a, b, draws, rng: (1.0, 0, 2), "the two shares of right pixels is 0.0"),
        ("05-4", unpaired, "draw the same scenes for both methods"),
        ("05-4", half_of_it, "quantiles 0.025 and 0.975"),
        ("05-5", all_alone, "added gains sum to the total"),
        ("05-5", lambda s, o: (gains(s, o)[0],) * 2, "leaving out costs"),
        ("05-5", lambda s, o: (dict(list(gains(s, o)[0].items())[:2]),) * 2, "for every module"),
        ("05-5", own_order, "in another order b comes first"),
        ("05-6", lambda none, a, b, both: both - none, "there is no interaction"),
        ("05-6", lambda none, a, b, both: 0.0, "do the same work"),
        ("08-4", lambda low, high, bound, way: verdict(low, high, 0, way), "the bound is 0.5"),
        ("08-4", lambda low, high, bound, way: verdict(low, high, bound, "above"), "lies below"),
        ("08-4", lambda low, high, *rest: verdict(low + 1e-9, high, *rest), "still allows it"),
        ("08-5", lambda v, low, high, n: 2 * n, "root of two"),
        ("08-5", lambda v, low, high, n: 4 * n, "60 . 1.5.2"),
        ("08-5", lambda v, *rest: max(101, scenes_needed(v, *rest)), "already, 100 scenes do"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
