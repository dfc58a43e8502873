"""Long runs: stopped anywhere they go on, shared out they give the same, what is broken is told."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from scclip_core import SCCLIP, SCCLIPConfig
from scclip_core import __main__ as command_line
from scclip_core.benchmarks import open_dataset
from scclip_core.journal import Journal
from scclip_core.runs import CHUNK, evaluate
from tests.test_benchmarks import ade20k

ROOT = Path(__file__).parents[1]
RUN = ["-m", "scclip_core", "evaluate", "--dataset", "scenes", "--method", "vanilla,seed", "--workers", "0"]
TABLES = ("scores.csv", "classes.csv", "failed.csv", "scores.json")
COUNT = 5 * CHUNK + 3


def command(out: Path, *extra: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *launcher, *RUN, "--count", str(COUNT), "--out", str(out), *extra]


def run(arguments: list[str]) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # as torchrun sets it for its processes
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
    journal = tmp_path / "journal-seed-0.jsonl"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "scores.csv").exists()
    before = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"pic')  # the worst moment to be killed: half a line
    run(command(tmp_path))
    assert journal.read_bytes().startswith(before)
    assert tables(tmp_path) == whole


def test_two_processes_give_the_tables_of_one(tmp_path, whole):
    run(command(tmp_path, launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")))
    journals = {f"journal-{name}-{rank}.jsonl" for name in ("vanilla", "seed") for rank in (0, 1)}
    assert {path.name for path in tmp_path.glob("journal-*")} == journals
    assert tables(tmp_path) == whole


@pytest.fixture
def few(tmp_path):
    """A data set of three pictures, and a folder to write to."""
    ade20k(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    return tmp_path, out


def test_nothing_is_computed_twice(few, model, monkeypatch):
    root, out = few
    methods = {"seed": SCCLIP(model), "vanilla": SCCLIP(model, SCCLIPConfig.vanilla())}
    first = evaluate(methods, open_dataset("ade20k", root), out, workers=0)
    monkeypatch.setattr(SCCLIP, "logits", lambda *args: pytest.fail("computed again"))
    again = evaluate(methods, open_dataset("ade20k", root), out, workers=0)
    for name in methods:
        assert (first.counts[name] == again.counts[name]).all()


def test_workers_change_nothing(few, model):
    root, out = few
    methods = {"seed": SCCLIP(model)}
    found = []
    for workers in (0, 1):
        folder = out / str(workers)
        folder.mkdir()
        found.append(evaluate(methods, open_dataset("ade20k", root), folder, workers=workers).counts["seed"])
    assert (found[0] == found[1]).all()


def break_picture(base):
    path = base / "images/validation/ADE_val_00000002.jpg"
    path.write_bytes(path.read_bytes()[:300])


def break_labels(base):
    Image.new("L", (44, 60), 151).save(base / "annotations/validation/ADE_val_00000002.png")


def break_size(base):
    Image.new("L", (44, 61)).save(base / "annotations/validation/ADE_val_00000002.png")


def lose_labels(base):
    (base / "annotations/validation/ADE_val_00000002.png").unlink()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (break_picture, "is not a picture that can be read"),
        (break_labels, "labels must be in 0..149 or 255, got 150"),
        (break_size, "label map and picture must have one size, got 44 x 61, the picture 44 x 60"),
        (lose_labels, "is not a label picture that can be read"),
    ],
)
def test_a_broken_picture_is_told_counted_and_mended(few, model, monkeypatch, capsys, harm, told):
    root, out = few
    monkeypatch.setattr(command_line, "load_model", lambda args: model)
    base = root / "ADEChallengeData2016"
    kept = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    harm(base)
    line = ["evaluate", "--dataset", "ade20k", "--root", str(root), "--out", str(out), "--workers", "0"]
    assert command_line.main(line) == 1
    said = capsys.readouterr().err
    assert "left out: ADE_val_00000002: " in said and told in said
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["pictures"]) == {2} and set(scores["failed"]) == {1}
    assert pd.read_csv(out / "failed.csv")["picture"].tolist() == ["ADE_val_00000002"]
    for path, content in kept.items():
        path.write_bytes(content)
    assert command_line.main(line) == 0
    assert set(pd.read_csv(out / "scores.csv")["pictures"]) == {3}


def test_a_data_set_of_broken_pictures_gives_one_clear_line(few, model, monkeypatch, capsys):
    root, out = few
    monkeypatch.setattr(command_line, "load_model", lambda args: model)
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    line = ["evaluate", "--dataset", "ade20k", "--root", str(root), "--out", str(out), "--workers", "0"]
    assert command_line.main(line) == 2
    assert "error: root must hold pictures that can be read; of ade20k" in capsys.readouterr().err


def test_two_methods_are_compared_picture_by_picture(few, model, monkeypatch, capsys):
    root, out = few
    monkeypatch.setattr(command_line, "load_model", lambda args: model)
    line = ["evaluate", "--dataset", "ade20k", "--root", str(root), "--out", str(out), "--workers", "0"]
    assert command_line.main([*line, "--method", "vanilla", "--compare", "seed", "maskclip"]) == 0
    assert "seed minus maskclip, same pictures" in capsys.readouterr().out
    scores = pd.read_csv(out / "scores.csv").set_index(["measure", "method"])["value"]
    assert list(scores["mIoU"].index) == ["vanilla", "seed", "maskclip"]
    paired = pd.read_csv(out / "seed_minus_maskclip.csv").set_index("measure")
    difference = scores["mIoU", "seed"] - scores["mIoU", "maskclip"]
    assert paired.loc["mIoU", "value"] == pytest.approx(difference, abs=1e-5)
    each = pd.read_csv(out / "seed_minus_maskclip_pictures.csv")
    assert each["difference"].to_numpy() == pytest.approx(
        (each["seed"] - each["maskclip"]).to_numpy(), abs=1e-5
    )
    sheet = pd.read_csv(out / "seed_minus_maskclip_sheet.csv")
    assert sheet["difference"].is_monotonic_decreasing and len(sheet) == len(each)
    assert Image.open(out / "seed_minus_maskclip_sheet.png").size[0] > 500


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("--method", "sed"), "--method must be of vanilla, .*, got 'sed'"),
        (("--compare", "seed", "seed"), "--compare must name two methods, got 'seed' twice"),
        (("--workers", "-1"), "--workers must be at least 0, got -1"),
        (("--count", "0"), "count must be at least 1 picture, got 0"),
    ],
)
def test_arguments_that_make_no_sense_get_one_line(extra, told, tmp_path, capsys):
    out = tmp_path / "out"
    assert command_line.main(["evaluate", "--dataset", "scenes", "--out", str(out), *extra]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not out.exists()


def test_a_method_can_be_added_later(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    evaluate({"seed": SCCLIP(model)}, data, out, workers=0)
    both = {"seed": SCCLIP(model), "vanilla": SCCLIP(model, SCCLIPConfig.vanilla())}
    assert set(evaluate(both, data, out, workers=0).counts) == set(both)


def test_another_configuration_under_the_same_name_is_refused(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    evaluate({"seed": SCCLIP(model)}, data, out, workers=0)
    with pytest.raises(ValueError, match="holds a run of seed that differs in config"):
        evaluate({"seed": SCCLIP(model, SCCLIPConfig.maskclip())}, data, out, workers=0)


def test_the_journal_of_another_run_is_refused_and_left_alone(tmp_path):
    Journal(tmp_path, "m", {"dataset": "a", "seed": 1}).write([{"picture": 0, "cells": []}])
    before = (tmp_path / "journal-m-0.jsonl").read_bytes()
    with pytest.raises(ValueError, match="holds a run of m that differs in seed: give another --out"):
        Journal(tmp_path, "m", {"dataset": "a", "seed": 2})
    assert (tmp_path / "journal-m-0.jsonl").read_bytes() == before


def test_a_failed_picture_is_tried_again_and_the_last_record_counts(tmp_path):
    journal = Journal(tmp_path, "m", {})
    journal.write([{"picture": 0, "error": "broken"}])
    assert not journal.done(range(1))
    journal.write([{"picture": 0, "cells": [[0, 4]]}])
    assert Journal(tmp_path, "m", {}).done(range(1))
    lines = (tmp_path / "journal-m-0.jsonl").read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[0]) == {}
