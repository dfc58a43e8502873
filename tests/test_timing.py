"""Ratios are taken round by round, against the first callable.

The clock is a fake one: no test measures real time.
"""

import pytest

from scclip_core.clip import FrozenCLIP
from scclip_lab.evaluation.timing import bench, compare
from tests.conftest import tiny_clip


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ratios_hold_while_the_machine_drifts():
    clock, calls = Clock(), []

    def cost(name: str, seconds: float):
        def run():
            calls.append(name)
            # Each round is slower than the one before.
            clock.now += seconds * (1 + len(calls) // 2)

        return run

    table = compare({"base": cost("base", 1.0), "double": cost("double", 2.0)}, 5, 2, clock)
    assert calls == ["base", "double"] * 7
    assert table["what"].tolist() == ["base", "double"]
    assert table["ratio"][0] == 1.0
    assert 2.0 <= table["ratio_low"][1] <= table["ratio"][1] <= table["ratio_high"][1] <= 2.5


def test_warm_up_rounds_are_not_counted():
    clock, costs = Clock(), iter([100.0, 1.0, 1.0, 1.0])

    def run():
        clock.now += next(costs)

    assert compare({"only": run}, 3, 1, clock)["milliseconds"][0] == pytest.approx(1000)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"warmup": -1}, {"callables": {}}])
def test_nothing_to_time_is_refused(options):
    with pytest.raises(ValueError, match="repeats >= 1 and warmup >= 0 are needed"):
        compare(**{"callables": {"a": int}, **options})


def test_the_methods_are_timed_against_the_forward_pass_as_trained():
    table = bench(FrozenCLIP(tiny_clip(), "tiny"), batch=2, side=128, repeats=1)
    assert table["what"].tolist() == ["vanilla", "scclip", "scclip-published"]
    assert set(table["model"]) == {"tiny"} and set(table["batch"]) == {2}
    assert {"processor", "cores", "threads", "torch", "python"} < set(table)
