"""Runs: nothing is computed twice, failures are reported, and methods are never mixed up."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from scclip_core import SCCLIP, make_method
from scclip_core.dense import DenseCLIP
from scclip_lab import cli
from scclip_lab.datasets.benchmarks import open_dataset
from scclip_lab.evaluation.reports import save_report
from scclip_lab.evaluation.runner import evaluate
from tests.miniatures import ade20k


def evaluate_ade20k(root: Path, out: Path) -> list[str]:
    options = {"--dataset": "ade20k", "--root": root, "--out": out, "--workers": 0}
    return ["evaluate", *(str(part) for option in options.items() for part in option)]


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
