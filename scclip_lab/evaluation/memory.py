"""Peak memory of one computation, as Linux tells it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def peak_of(run: Callable[[], object]) -> float:
    """How far the resident memory of this process rises while `run` runs, in MiB (Linux).

    psutil knows the present memory alone. What libraries set up at their first call counts, so
    that a computation should have run once before, on something small; and memory that was freed
    before may be used again unseen, so that it is best measured in a process of its own
    (`numbers_of`).
    """
    # The peak starts again from here.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    run()
    return (_peak() - before) / 1024


def numbers_of(module: str, *arguments: object) -> list[float]:
    """The numbers that `python -m module arguments` prints, in a process of its own, one thread.

    The C library gives large blocks back as soon as they are freed. By default it keeps some of
    them, as chance has it: of 91 MiB that a pass needs, up to 180 are then seen.

    Raises subprocess.CalledProcessError where the process fails.
    """
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "32768", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return [float(number) for number in done.stdout.split()]


def _peak() -> int:
    """Peak resident memory of this process since it was last reset, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
