"""Exercises to implement: each has tests that run on the reader's own code.

A chapter calls `check("00-4", function)` with what the reader wrote. The tests of a chapter are in
a module of its number, `ch00.py`; solutions are apart, in `solutions/`, for after the attempt.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

# What the reader wrote, and what tries it out: it raises AssertionError with a sentence.
Attempt = Callable[..., Any]
Trial = Callable[[Attempt], None]
TRIALS: dict[str, Trial] = {}


def exercise(number: str) -> Callable[[Trial], Trial]:
    """Register a function as the tests of an exercise: chapter and number, such as "00-4"."""

    def register(trial: Trial) -> Trial:
        TRIALS[number] = trial
        return trial

    return register


def check(number: str, attempt: Attempt) -> None:
    """Run the tests of an exercise on the reader's function, and print how it went.

    A stub that still raises NotImplementedError is told to be open. Raises AssertionError, with a
    sentence that says what is wrong, where a test fails; ValueError for an unknown exercise.
    """
    chapter = number.partition("-")[0]
    with suppress(ModuleNotFoundError):
        import_module(f"scclip_lab.exercises.ch{chapter}")
    if number not in TRIALS:
        raise ValueError(f"number must be of {', '.join(sorted(TRIALS))}, got {number!r}")
    try:
        TRIALS[number](attempt)
    except NotImplementedError:
        print(f"Exercise {number} is open: write {attempt.__name__} in the cell above.")
    else:
        print(f"Exercise {number}: right.")
