"""`scclip segment|trace|info`: what is written, and one clear line for all that goes wrong."""

import csv
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from scclip_core import SCCLIP, DenseCLIP, baselines, cli
from scclip_core.prediction import palette

WORDS = "car, cup|train, road"


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch, model):
    """Commands run on the tiny model: what is tested here is what happens around it."""
    monkeypatch.setattr(cli, "load_model", lambda args: model)


@pytest.fixture
def folder(tmp_path, picture):
    inside = tmp_path / "pictures"
    inside.mkdir()
    picture.save(inside / "a.png")
    picture.rotate(90, expand=True).save(inside / "b.jpg")
    return inside


def segment(*arguments) -> int:
    return cli.main(["segment", *map(str, arguments)])


def test_the_names_of_the_methods_are_those_of_the_baselines_module():
    assert tuple(baselines.METHODS) == cli.METHODS


# segment


def test_a_folder_of_pictures_gets_labels_and_summaries(folder, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert segment(folder, "--classes", WORDS, "--out", out, "--overlay") == 0
    written = {path.name for path in out.iterdir()}
    kinds = ("_labels.png", ".json", "_overlay.png")
    assert written == {f"{name}{kind}" for name in ("a", "b") for kind in kinds}
    for name, size in (("a", (90, 60)), ("b", (60, 90))):
        labels = Image.open(out / f"{name}_labels.png")
        assert (labels.mode, labels.size) == ("P", size)
        values = np.asarray(labels)
        assert values.max() <= 2
        assert labels.getpalette()[:9] == palette(3).flatten().tolist()
        summary = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert [row["name"] for row in summary["classes"]] == ["car", "cup", "road"]
        for row in summary["classes"]:
            assert row["share"] == pytest.approx((values == row["label"]).mean(), abs=1e-6)
    assert f"2 of 2 pictures segmented into {out}" in capsys.readouterr().out


def test_what_is_written_is_what_predict_gives(folder, tmp_path, model):
    sizes = ("--short-side", 96, "--window", 64, "--stride", 32)
    assert segment(folder / "a.png", "--classes", WORDS, "--out", tmp_path, *sizes) == 0
    expected = SCCLIP(model).predict(folder / "a.png", WORDS.split(","), 96, 64, 32)
    with Image.open(tmp_path / "a_labels.png") as labels:
        assert np.array_equal(np.asarray(labels), expected.labels)
    assert not (tmp_path / "a_overlay.png").exists()


def test_no_result_takes_the_place_of_a_picture(folder, capsys):
    (folder / "a.png").replace(folder / "x.png")
    before = (folder / "x.png").read_bytes()
    (folder / "x_labels.png").write_bytes(before)
    assert segment(folder, "--classes", WORDS, "--out", folder) == 2
    assert "no result replaces the picture" in capsys.readouterr().err
    assert (folder / "x_labels.png").read_bytes() == before


def test_a_picture_given_twice_is_segmented_once(folder, tmp_path, capsys):
    given = (folder / "a.png", folder / "." / "a.png", folder)
    assert segment(*given, "--classes", WORDS, "--out", tmp_path) == 0
    assert "2 of 2 pictures" in capsys.readouterr().out


def test_a_command_leaves_the_look_of_warnings_as_it_was(folder, tmp_path):
    usual = warnings.formatwarning
    segment(folder / "a.png", "--classes", WORDS, "--out", tmp_path)
    assert warnings.formatwarning is usual


@pytest.mark.parametrize("name", cli.METHODS)
def test_every_method_can_be_asked_for(folder, tmp_path, model, name):
    asked = ("--method", name, "--classes", WORDS, "--out", tmp_path)
    assert segment(folder / "a.png", *asked) == 0
    expected = baselines.make_method(name, model).predict(folder / "a.png", WORDS.split(","))
    with Image.open(tmp_path / "a_labels.png") as labels:
        assert np.array_equal(np.asarray(labels), expected.labels)


def test_pictures_and_folders_may_be_mixed_and_other_files_are_no_pictures(folder, tmp_path):
    (folder / "notes.txt").write_text("no picture")
    (folder / "more").mkdir()
    (folder / "more.PNG").write_bytes((folder / "a.png").read_bytes())
    single = tmp_path / "single.png"
    Image.new("RGB", (40, 40)).save(single)
    assert cli.find_pictures([single, folder]) == [
        single,
        folder / "a.png",
        folder / "b.jpg",
        folder / "more.PNG",
    ]


def test_a_bad_file_is_left_out_and_the_rest_go_on(folder, tmp_path, capsys):
    (folder / "aa.png").write_bytes(b"no picture")
    assert segment(folder, "--classes", WORDS, "--out", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "2 of 3 pictures segmented" in told.out
    assert f"left out: {folder / 'aa.png'}: " in told.err
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
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_and_empty_folders_are_told(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name, told in (("gone", "does not exist"), ("empty", "holds no picture")):
        assert segment(tmp_path / name, "--classes", "dog", "--out", tmp_path / "out") == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


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

    monkeypatch.setattr(json, "dumps", stop)  # while the first picture's results are being written
    assert segment(folder, "--classes", "dog,cat", "--out", tmp_path / "out") == 130
    assert "nothing half-written" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_labels.png"]


def test_a_window_that_makes_no_sense_is_told_before_computing(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(DenseCLIP, "features", pytest.fail)
    for option, value, told in (
        ("--window", 100, "window must be a multiple of the patch, 16, got 100"),
        ("--stride", 0, "stride must be in 1..128"),
        ("--short-side", 7, "short_side must be at least one patch, 16 pixels, got 7"),
    ):
        assert segment(folder, "--classes", "dog", "--out", tmp_path / "out", option, value) == 2
        assert told in capsys.readouterr().err
        assert not list((tmp_path / "out").iterdir())


def test_more_classes_than_a_palette_holds_are_one_line(folder, tmp_path, capsys):
    classes = ",".join(f"thing {i}" for i in range(257))
    assert segment(folder, "--classes", classes, "--out", tmp_path / "out") == 2
    assert "classes must be at most 256 for a palette PNG, got 257" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, OSError])
def test_an_error_is_one_line_and_exit_code_2(capsys, monkeypatch, error):
    def fail(args):
        raise error("no model today")

    monkeypatch.setattr(cli, "load_model", fail)
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "error: no model today\n"


def test_a_defect_is_not_hidden_behind_an_exit_code(monkeypatch):
    monkeypatch.setattr(cli, "load_model", lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


# trace and info


def test_trace_prints_the_walk_and_saves_it(folder, tmp_path, capsys, model):
    file = tmp_path / "walk.csv"
    arguments = ["trace", str(folder / "a.png"), "--classes", "dog,cat", "--csv", str(file)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["stage", "tensor", "shape", "what", "happened"]
    assert "[1, 2, 128, 192]" in printed[-1]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["stage", "tensor", "shape", "what happened"]
    assert (rows[0]["tensor"], rows[-1]["tensor"]) == ("images", "stage8.segmentation")
    images = model.preprocess(folder / "a.png")[None]
    expected = SCCLIP(model).trace(images, ["dog", "cat"])
    assert [row["tensor"] for row in rows] == [row["tensor"] for row in expected]
    assert [row["shape"] for row in rows] == [row["shape"] for row in expected]
    assert len(printed) == 1 + len(rows)
    # columns begin at one place in every line
    places = {line.index(row["shape"]) for line, row in zip(printed[1:], rows, strict=True)}
    assert len(places) == 1


def test_trace_of_a_baseline_has_its_own_tensors(folder, capsys):
    assert cli.main(["trace", str(folder / "a.png"), "--method", "vanilla"]) == 0
    printed = capsys.readouterr().out
    assert "blocks.11.hook_resid_post" in printed
    assert "stage3" not in printed


def test_info_tells_the_model_and_every_hyper_parameter(capsys):
    assert cli.main(["info"]) == 0
    told = capsys.readouterr().out
    assert "tiny: 12 blocks, width 64, 2 heads, patch 16" in told
    assert "all frozen; torch.float32, cpu" in told
    assert "res_cls               0.3" in told
    assert "templates             ('a photo of {}',)" in told


def test_info_of_another_method_tells_its_parameters(capsys):
    assert cli.main(["info", "--method", "naclip"]) == 0
    told = capsys.readouterr().out
    assert "sigma                 5.0" in told
    assert "res_cls" not in told
    assert cli.main(["info", "--method", "scclip-published"]) == 0
    assert "80 sentences" in capsys.readouterr().out


def test_an_unknown_method_lists_those_that_exist(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        segment(folder, "--classes", "dog", "--out", tmp_path, "--method", "seed")
    told = capsys.readouterr().err
    assert all(name in told for name in cli.METHODS)
