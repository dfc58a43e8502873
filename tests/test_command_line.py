"""The command line: what it writes, and one clear line and an exit code for everything that goes wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from scclip_core import SCCLIP, batch
from scclip_core import __main__ as command_line
from scclip_core.plots import palette


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch, model):
    """Commands run on the tiny model: what is tested here is what happens around it."""
    monkeypatch.setattr(command_line, "load", lambda args: SCCLIP(model))


@pytest.fixture
def folder(tmp_path, picture):
    inside = tmp_path / "pictures"
    inside.mkdir()
    picture.save(inside / "a.png")
    picture.rotate(90, expand=True).save(inside / "b.jpg")
    return inside


def segment(*arguments) -> int:
    return command_line.main(["segment", "--window", "128", "--stride", "64", *map(str, arguments)])


def test_a_folder_of_pictures_gets_labels_and_summaries(folder, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert segment(folder, "--classes", "dog, cat|kitten, grass", "--out", out, "--overlay") == 0
    written = {path.name for path in out.iterdir()}
    kinds = ("_labels.png", ".json", "_overlay.png")
    assert written == {f"{name}{kind}" for name in ("a", "b") for kind in kinds}
    for name, size in (("a", (90, 60)), ("b", (60, 90))):
        labels = Image.open(out / f"{name}_labels.png")
        assert (labels.mode, labels.size) == ("P", size)
        values = np.asarray(labels)
        assert values.max() <= 2
        assert labels.getpalette()[:9] == palette(3).flatten().tolist()
        summary = json.loads((out / f"{name}.json").read_text())
        assert [c["names"] for c in summary["classes"]] == [["dog"], ["cat", "kitten"], ["grass"]]
        for c in summary["classes"]:
            assert c["share"] == pytest.approx((values == c["label"]).mean(), abs=1e-6)
    assert "2 of 2 pictures segmented" in capsys.readouterr().out


def test_a_bad_file_is_left_out_and_the_rest_go_on(folder, tmp_path, capsys):
    (folder / "aa.png").write_bytes(b"no picture")
    assert segment(folder, "--classes", "dog,cat", "--out", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "2 of 3 pictures segmented" in told.out
    assert "aa.png is not a picture that can be read" in told.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a_labels.png", "a.json", "b_labels.png", "b.json"}


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("", "no empty name"),
        ("dog,,cat", "no empty name, number 2 of 3"),
        ("dog,dog", "'dog' is given twice"),
    ],
)
def test_bad_classes_stop_before_anything_is_made(folder, tmp_path, capsys, classes, told):
    assert segment(folder, "--classes", classes, "--out", tmp_path / "out") == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_and_empty_folders_are_told(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for path, told in ((tmp_path / "gone", "does not exist"), (tmp_path / "empty", "holds no picture")):
        assert segment(path, "--classes", "dog", "--out", tmp_path / "out") == 2
        assert told in capsys.readouterr().err


def test_two_pictures_of_one_name_are_refused(folder, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(folder / "a.bmp")
    assert segment(folder, "--classes", "dog", "--out", tmp_path / "out") == 2
    assert "would be written under one name, a" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made_is_told_before_computing(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert segment(folder, "--classes", "dog", "--out", tmp_path / "file" / "out") == 2
    assert "--out must be a folder that can be written" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_half_written(folder, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(batch.json, "dumps", stop)  # while the first picture's results are being written
    assert segment(folder, "--classes", "dog,cat", "--out", tmp_path / "out") == 130
    assert "nothing half-written" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_labels.png"]


def test_a_window_that_makes_no_sense_is_told(folder, tmp_path, capsys):
    for option, value, told in (
        ("--window", 100, "window must be a multiple of the patch, 16, got 100"),
        ("--stride", 0, "stride must be in 1..128"),
        ("--short-side", 7, "short_side must be at least one patch, 16 pixels, got 7"),
    ):
        assert segment(folder, "--classes", "dog", "--out", tmp_path / "out", option, value) == 2
        assert told in capsys.readouterr().err
        assert not list((tmp_path / "out").iterdir())


def test_trace_prints_the_walk_and_saves_it(folder, tmp_path, capsys):
    file = tmp_path / "walk.csv"
    assert (
        command_line.main(["trace", str(folder / "a.png"), "--classes", "dog,cat", "--csv", str(file)]) == 0
    )
    assert "[1, 2, 128, 192]" in capsys.readouterr().out
    lines = file.read_text().splitlines()
    assert lines[0] == "stage,tensor,shape,what happened"
    assert lines[-1].startswith("8,segmentation,")


def test_info_tells_the_model_and_every_hyper_parameter(capsys):
    assert command_line.main(["info"]) == 0
    told = capsys.readouterr().out
    assert "12 blocks, width 64" in told
    assert "all frozen" in told
    assert "res_cls" in told


def test_help_reads_well_and_loads_no_torch():
    code = (
        "import sys, scclip_core.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("segment", "trace", "info", "figures", "evaluate-mini"):
        assert command in done.stdout
