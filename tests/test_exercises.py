"""Exercises: solutions pass, stubs are open, wrong answers are told what is wrong."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from scclip_lab import exercises
from scclip_lab.exercises import check

MODULES = sorted(path.stem for path in Path(exercises.__file__).parent.glob("ch*.py"))
for name in MODULES:
    import_module(f"scclip_lab.exercises.{name}")
SOLUTIONS = {
    number: solution
    for name in MODULES
    for number, solution in import_module(
        f"scclip_lab.exercises.solutions.{name}"
    ).SOLUTIONS.items()
}


def stub(*arguments):
    raise NotImplementedError


def test_every_exercise_has_a_solution():
    assert sorted(SOLUTIONS) == sorted(exercises.TRIALS)


@pytest.mark.parametrize("number", sorted(exercises.TRIALS))
def test_a_solution_is_right_and_a_stub_is_open(number, capsys):
    check(number, SOLUTIONS[number])
    assert capsys.readouterr().out == f"Exercise {number}: right.\n"
    check(number, stub)
    assert f"Exercise {number} is open: write stub" in capsys.readouterr().out


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"number must be of 00-4, .* got '00-99'"):
        check("00-99", stub)
    with pytest.raises(ValueError, match="got '77-1'"):
        check("77-1", stub)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("00-4", lambda q, k, v: v[0], "must be .5, 8. for five tokens"),
        ("00-4", lambda q, k, v: (q @ k.T / 8**0.5).softmax(0) @ v, "weights of every query"),
        ("00-4", lambda q, k, v: (q @ k.T).softmax(-1) @ v, r"not divided by sqrt\(d\)"),
        ("00-4", lambda q, k, v: (k @ q.T / 8**0.5).softmax(-1) @ v, "the numbers are not"),
        ("00-5", lambda a, b, s: torch.tensor(0.0), "cost log 6"),
        (
            "00-5",
            lambda a, b, s: torch.nn.functional.cross_entropy(
                s * a @ b.T.flip(1), torch.arange(len(a))
            ),
            "caption i, on the diagonal",
        ),
        (
            "00-5",
            lambda a, b, s: torch.nn.functional.cross_entropy(s * a @ b.T, torch.arange(len(a))),
            "the mean of both directions",
        ),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
