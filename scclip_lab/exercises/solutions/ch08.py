"""Solutions of chapter 8."""

from scclip_lab.studies.verdicts import FAILS, HOLDS, UNDECIDED


def verdict(low: float, high: float, bound: float, direction: str) -> str:
    """The verdict on "the value lies above (or below) the bound", by its interval."""
    above, below = low > bound, high < bound
    if direction == "below":
        above, below = below, above
    return HOLDS if above else FAILS if below else UNDECIDED


def scenes_needed(value: float, low: float, high: float, scenes: int) -> float:
    """The number of scenes at which the interval would end at zero; widths go as 1 / sqrt(n)."""
    reach = value - low if value > 0 else high - value
    return scenes * (reach / abs(value)) ** 2


SOLUTIONS = {"08-4": verdict, "08-5": scenes_needed}
