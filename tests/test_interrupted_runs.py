"""Long runs: stopped anywhere they go on, and shared out they give the same tables."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scclip_lab.evaluation.run_log import RunLog
from scclip_lab.evaluation.runner import CHUNK

ROOT = Path(__file__).parents[1]
EVALUATE = [
    *("-m", "scclip_lab", "evaluate", "--dataset", "scenes"),
    *("--method", "vanilla,scclip", "--workers", "0"),
]
TABLES = ("scores.csv", "classes.csv", "failed.csv", "scores.json")
COUNT = 5 * CHUNK + 3


def command(out: Path, *extra: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *launcher, *EVALUATE, "--count", str(COUNT), "--out", str(out), *extra]


def run(arguments: list[str]) -> None:
    # As torchrun sets it for its processes.
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tables of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    run(command(out))
    return tables(out)


@pytest.mark.parametrize("lines", [1, CHUNK + 1, 3 * CHUNK])
def test_a_killed_run_goes_on_and_ends_with_the_same_tables(lines, tmp_path, whole):
    log = tmp_path / "run_log-scclip-0.jsonl"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if log.is_file() and log.read_bytes().count(b"\n") >= lines:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "scores.csv").exists()
    before = log.read_bytes()
    # The worst moment to be killed leaves half a line.
    with log.open("ab") as file:
        file.write(b'{"ima')
    run(command(tmp_path))
    assert log.read_bytes().startswith(before)
    assert tables(tmp_path) == whole


def test_two_processes_give_the_tables_of_one(tmp_path, whole):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(command(tmp_path, launcher=launcher))
    logs = {f"run_log-{name}-{rank}.jsonl" for name in ("vanilla", "scclip") for rank in (0, 1)}
    assert {path.name for path in tmp_path.glob("run_log-*")} == logs
    assert tables(tmp_path) == whole


def test_the_log_of_another_run_is_refused_and_left_alone(tmp_path):
    RunLog(tmp_path, "m", {"dataset": "a", "seed": 1}).write([{"image": 0, "confusion": []}])
    before = (tmp_path / "run_log-m-0.jsonl").read_bytes()
    with pytest.raises(ValueError, match="holds a run of m that differs in seed: give another --o"):
        RunLog(tmp_path, "m", {"dataset": "a", "seed": 2})
    assert (tmp_path / "run_log-m-0.jsonl").read_bytes() == before


def test_a_failed_image_is_tried_again_and_the_last_record_counts(tmp_path):
    log = RunLog(tmp_path, "m", {})
    log.write([{"image": 0, "error": "broken"}])
    assert not log.has_results(range(1))
    log.write([{"image": 0, "confusion": [[0, 4]]}])
    assert RunLog(tmp_path, "m", {}).has_results(range(1))
    lines = (tmp_path / "run_log-m-0.jsonl").read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[0]) == {}
