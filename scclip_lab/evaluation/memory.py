"""Peak memory of one computation, as Linux tells it."""

from collections.abc import Callable
from pathlib import Path


def peak_of(run: Callable[[], object]) -> float:
    """How far the resident memory of this process rises while `run` runs, in MiB (Linux).

    psutil knows the present memory alone. What libraries set up at their first call counts, so
    that a computation should have run once before, on something small; and memory that was freed
    before may be used again unseen, so that it is best measured in a process of its own.
    """
    # The peak starts again from here.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    run()
    return (_peak() - before) / 1024


def _peak() -> int:
    """Peak resident memory of this process since it was last reset, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
