"""Long runs: stopped anywhere they go on, shared out they give the same, failures are reported."""

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

from scclip_core import SCCLIP, make_method
from scclip_core.dense import DenseCLIP
from scclip_lab import cli
from scclip_lab.datasets.benchmarks import open_dataset
from scclip_lab.evaluation.reports import save_report
from scclip_lab.evaluation.run_log import RunLog
from scclip_lab.evaluation.runner import CHUNK, evaluate
from tests.test_benchmarks import ade20k

ROOT = Path(__file__).parents[1]
EVALUATE = [
    *("-m", "scclip_lab", "evaluate", "--dataset", "scenes"),
    *("--method", "vanilla,scclip", "--workers", "0"),
]
TABLES = ("scores.csv", "classes.csv", "failed.csv", "scores.json")
COUNT = 5 * CHUNK + 3


def command(out: Path, *extra: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *launcher, *EVALUATE, "--count", str(COUNT), "--out", str(out), *extra]


def evaluate_ade20k(root: Path, out: Path) -> list[str]:
    options = {"--dataset": "ade20k", "--root": root, "--out": out, "--workers": 0}
    return ["evaluate", *(str(part) for option in options.items() for part in option)]


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


@pytest.fixture
def few(tmp_path):
    """A data set of three pictures, and a folder to write to."""
    ade20k(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    return tmp_path, out


def test_nothing_is_computed_twice(few, model, monkeypatch):
    root, out = few
    methods = {name: make_method(name, model) for name in ("scclip", "vanilla")}
    first = evaluate(methods, open_dataset("ade20k", root), out, workers=0)
    monkeypatch.setattr(DenseCLIP, "logits", lambda *args: pytest.fail("computed again"))
    again = evaluate(methods, open_dataset("ade20k", root), out, workers=0)
    for name in methods:
        assert (first.counts[name] == again.counts[name]).all()


def test_workers_change_nothing(few, model):
    root, out = few
    methods = {"scclip": SCCLIP(model)}
    found = []
    for workers in (0, 1):
        folder = out / str(workers)
        folder.mkdir()
        results = evaluate(methods, open_dataset("ade20k", root), folder, workers=workers)
        found.append(results.counts["scclip"])
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
    ("harm", "message"),
    [
        (break_picture, "is not a picture that can be read"),
        (break_labels, "labels must be in 0..149 or 255, got 150"),
        (break_size, "label map and image must have one size, got 44 x 61, the image 44 x 60"),
        (lose_labels, "is not a label map that can be read"),
    ],
)
def test_a_broken_image_is_named_counted_and_mended(few, model, monkeypatch, capsys, harm, message):
    root, out = few
    monkeypatch.setattr(cli, "load_model", lambda args: model)
    base = root / "ADEChallengeData2016"
    kept = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    harm(base)
    line = evaluate_ade20k(root, out)
    assert cli.main(line) == 1
    said = capsys.readouterr().err
    assert "left out: ADE_val_00000002: " in said and message in said
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["images"]) == {2} and set(scores["failed"]) == {1}
    assert pd.read_csv(out / "failed.csv")["image"].tolist() == ["ADE_val_00000002"]
    for path, content in kept.items():
        path.write_bytes(content)
    assert cli.main(line) == 0
    assert set(pd.read_csv(out / "scores.csv")["images"]) == {3}


def test_a_data_set_of_broken_images_gives_one_clear_line(few, model, monkeypatch, capsys):
    root, out = few
    monkeypatch.setattr(cli, "load_model", lambda args: model)
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    line = evaluate_ade20k(root, out)
    assert cli.main(line) == 2
    assert "error: root must hold images that can be read; of ade20k" in capsys.readouterr().err


def test_two_methods_are_compared_image_by_image(few, model, monkeypatch, capsys):
    root, out = few
    monkeypatch.setattr(cli, "load_model", lambda args: model)
    line = evaluate_ade20k(root, out)
    assert cli.main([*line, "--method", "vanilla", "--compare", "scclip", "values"]) == 0
    assert "scclip minus values, same images" in capsys.readouterr().out
    scores = pd.read_csv(out / "scores.csv").set_index(["measure", "method"])["value"]
    assert list(scores["mIoU"].index) == ["vanilla", "scclip", "values"]
    paired = pd.read_csv(out / "scclip_minus_values.csv").set_index("measure")
    difference = scores["mIoU", "scclip"] - scores["mIoU", "values"]
    assert paired.loc["mIoU", "value"] == pytest.approx(difference, abs=1e-5)
    each = pd.read_csv(out / "scclip_minus_values_images.csv")
    assert each["difference"].to_numpy() == pytest.approx(
        (each["scclip"] - each["values"]).to_numpy(), abs=1e-5
    )
    sheet = pd.read_csv(out / "scclip_minus_values_sheet.csv")
    assert sheet["difference"].is_monotonic_decreasing and len(sheet) == len(each)
    assert Image.open(out / "scclip_minus_values_sheet.png").size[0] > 500


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--method", "sed"), "--method must be of vanilla, .*, got 'sed'"),
        (
            ("--compare", "scclip", "scclip"),
            "--compare must name two methods, got 'scclip' twice",
        ),
        (("--workers", "-1"), "--workers must be at least 0, got -1"),
        (("--count", "0"), "count must be at least 1 image, got 0"),
    ],
)
def test_arguments_that_make_no_sense_get_one_line(extra, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["evaluate", "--dataset", "scenes", "--out", str(out), *extra]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_a_method_can_be_added_later(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    first = evaluate({"scclip-published": make_method("scclip-published", model)}, data, out, 2, 0)
    # The log of one name is not taken for that of another that it begins.
    names = ("scclip", "scclip-published", "vanilla")
    methods = {name: make_method(name, model) for name in names}
    found = evaluate(methods, data, out, workers=0).counts
    assert list(found) == list(names)
    assert (found["scclip-published"] == first.counts["scclip-published"]).all()


def test_another_configuration_under_the_same_name_is_refused(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    evaluate({"scclip": SCCLIP(model)}, data, out, workers=0)
    with pytest.raises(ValueError, match="holds a run of scclip that differs in config:"):
        evaluate({"scclip": make_method("scclip", model, repair=False)}, data, out, workers=0)


def test_a_baseline_with_another_parameter_never_gets_the_results_of_the_first(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    wide, narrow = (make_method("naclip", model, sigma=sigma) for sigma in (5.0, 0.3))
    first = evaluate({"naclip": wide}, data, out, workers=0)
    with pytest.raises(ValueError, match="holds a run of naclip that differs in config:"):
        evaluate({"naclip": narrow}, data, out, workers=0)
    again = evaluate({"naclip": wide}, data, out, workers=0)
    assert (again.counts["naclip"] == first.counts["naclip"]).all()
    other = out / "other"
    other.mkdir()
    second = evaluate({"naclip": narrow}, data, other, workers=0)
    assert (second.counts["naclip"] != first.counts["naclip"]).any()


def test_another_method_under_the_same_name_is_refused(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    evaluate({"mine": make_method("vanilla", model)}, data, out, workers=0)
    # Both have the same class of configuration, with the same values.
    with pytest.raises(ValueError, match="holds a run of mine that differs in method_class:"):
        evaluate({"mine": make_method("values", model)}, data, out, workers=0)


def test_the_report_names_class_and_parameters_of_every_method(few, model):
    root, out = few
    data = open_dataset("ade20k", root)
    methods = {
        "vanilla": make_method("vanilla", model),
        "naclip": make_method("naclip", model, sigma=0.3),
        "scclip": make_method("scclip", model, beta=0.5),
    }
    results = evaluate(methods, data, out, workers=0)
    save_report(results, methods, data, out)
    stored = json.loads((out / "scores.json").read_text())["methods"]
    found = [(m["method"], m["method_class"], m["config_class"]) for m in stored]
    assert found == [
        ("vanilla", "Vanilla", "BaselineConfig"),
        ("naclip", "NACLIP", "NACLIPConfig"),
        ("scclip", "SCCLIP", "SCCLIPConfig"),
    ]
    configs = [m["config"] for m in stored]
    assert configs[0] == {"templates": ["a photo of {}"], "position_offset": 0.0}
    assert configs[1] == {**configs[0], "sigma": 0.3}
    assert configs[2]["beta"] == 0.5 and configs[2]["repair"] is True


def test_the_report_tells_protocol_words_and_changes(few, model, monkeypatch):
    root, out = few
    monkeypatch.setattr(cli, "load_model", lambda args: model)
    line = evaluate_ade20k(root, out)
    changes = ("--protocol", "sclip", "--words", "own", "--window", "128", "--prob-thd", "0.2")
    assert cli.main([*line, *changes, "--short-side", "128", "--pamr", "1"]) == 0
    stored = json.loads((out / "scores.json").read_text())
    assert stored["words"] == "own" and "skyscraper" in str(stored["classes"])
    protocol = stored["protocol"]
    told = "sclip with short_side 128, window 128, probability_threshold 0.2, pamr_steps 1"
    assert protocol["name"] == told and protocol["stride"] == 112
    assert "configs/cfg_ade20k.py" in protocol["source"]
    with pytest.raises(ValueError, match="holds a run of vanilla that differs in protocol"):
        data = open_dataset("ade20k", root, words="own", protocol="scclip")
        evaluate({"vanilla": make_method("vanilla", model)}, data, out, workers=0)


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
