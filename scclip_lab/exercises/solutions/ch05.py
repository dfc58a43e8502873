"""Solutions of chapter 5."""

from collections.abc import Sequence

import numpy as np


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """The difference of two shares of right pixels and its 95 % interval, of [I, 2] each."""

    def difference(scenes: np.ndarray) -> float:
        shares = [counts[scenes].sum(0) for counts in (a, b)]
        return float(shares[0][0] / shares[0][1] - shares[1][0] / shares[1][1])

    count = len(a)
    drawn = [difference(rng.integers(0, count, count)) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return difference(np.arange(count)), float(low), float(high)


def gains(
    scores: dict[frozenset[str], float], order: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The gain of each module when it is added in order, and when it is left out of the whole."""
    whole = frozenset(order)
    added = {
        name: scores[frozenset(order[: i + 1])] - scores[frozenset(order[:i])]
        for i, name in enumerate(order)
    }
    return added, {name: scores[whole] - scores[whole - {name}] for name in order}


def interaction(none: float, first: float, second: float, both: float) -> float:
    """The gain of both modules minus the two gains alone."""
    return both - first - second + none


SOLUTIONS = {"05-4": paired_bootstrap, "05-5": gains, "05-6": interaction}
