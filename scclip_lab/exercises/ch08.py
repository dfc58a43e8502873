"""Tests of the exercises of chapter 8: a verdict from an interval, and the scenes needed."""

import math

from scclip_lab.exercises import Attempt, exercise
from scclip_lab.studies.verdicts import FAILS, HOLDS, UNDECIDED


@exercise("08-4")
def verdict_of_an_interval(attempt: Attempt) -> None:
    """attempt(low, high, bound, direction) -> a verdict on "the value lies above/below bound"."""
    cases = [
        (0.01, 0.03, 0.0, "above", HOLDS, "the whole interval lies above the bound"),
        (-0.03, -0.01, 0.0, "above", FAILS, "the whole interval lies below the bound"),
        (-0.01, 0.03, 0.0, "above", UNDECIDED, "the interval has the bound inside"),
        (0.55, 0.60, 0.5, "above", HOLDS, "the bound is 0.5, not 0"),
        (0.30, 0.40, 0.5, "above", FAILS, "the bound is 0.5, not 0"),
        (-0.03, -0.01, 0.0, "below", HOLDS, "the claim is that the value lies below"),
        (0.01, 0.03, 0.0, "below", FAILS, "the claim is that the value lies below"),
        (0.0, 0.02, 0.0, "above", UNDECIDED, "an interval that touches the bound still allows it"),
    ]
    for low, high, bound, direction, wanted, why in cases:
        given = attempt(low, high, bound, direction)
        assert given == wanted, (
            f"[{low}, {high}], claimed {direction} {bound}: {wanted!r}, since {why}; got {given!r}"
        )


@exercise("08-5")
def scenes_needed(attempt: Attempt) -> None:
    """attempt(value, low, high, scenes) -> scenes at which the interval would end at zero."""
    given = attempt(0.01, -0.01, 0.03, 100)
    assert given != 200, "twice the scenes make an interval narrower by the root of two, not by two"
    assert math.isclose(given, 400, rel_tol=1e-6), (
        "the interval reaches 0.02 to the side of zero, the value is 0.01: half the width, four"
        f" times the scenes, 400; got {given}"
    )
    below = attempt(-0.02, -0.05, 0.01, 60)
    assert math.isclose(below, 135, rel_tol=1e-6), (
        "where the value is negative the upper end decides: 0.03 has to become 0.02, so 60 * 1.5^2"
        f" = 135 scenes; got {below}"
    )
    clear = attempt(0.02, 0.01, 0.03, 100)
    assert clear <= 100, f"this interval leaves zero outside already, 100 scenes do; got {clear}"
