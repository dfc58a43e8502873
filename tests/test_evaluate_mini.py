"""The table of the bundled model: every measure, method and style, apart by number of objects."""

import json

import numpy as np
import pandas as pd
import pytest

from scclip_core.baselines import METHODS, make_method
from scclip_lab.cli import main
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.metrics import mean_iou, object_accuracy
from scclip_lab.evaluation.mini import COLUMNS, count_objects, save_evaluation, score_methods

COUNT, SEED = 6, 3
KEYS = ["measure", "method", "styles", "objects"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini")
    arguments = ["evaluate-mini", "--count", str(COUNT), "--seed", str(SEED), "--out", str(out)]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "evaluate_mini.csv", dtype={"objects": str})


def test_every_method_has_every_measure_on_both_styles(table):
    assert list(table) == [*COLUMNS, "seed", "split"]
    assert not table.duplicated(KEYS).any()
    overall = table[table["objects"] == "all"]
    assert set(overall["scenes"]) == {COUNT}
    for measure in ("mIoU", "objects right", "background right", "pixel accuracy"):
        rows = overall[overall["measure"] == measure]
        assert rows["method"].tolist() == list(METHODS) * 2
        assert rows["styles"].unique().tolist() == list(STYLES)
        assert rows["value"].between(0, 1).all()
    assert len(overall[overall["measure"] == "zero-shot accuracy"]) == 2


def test_differences_are_those_of_the_scores_to_both_bases(table):
    overall = table[table["objects"] == "all"].set_index(KEYS)["value"]
    for style in STYLES:
        for base, later in (("vanilla", list(METHODS)[1:]), ("values", list(METHODS)[2:])):
            rows = table[(table["measure"] == f"mIoU minus {base}") & (table["styles"] == style)]
            assert rows["method"].tolist() == later
            for row in rows.itertuples():
                scores = (overall["mIoU", name, style, "all"] for name in (row.method, base))
                assert row.value == pytest.approx(next(scores) - next(scores), abs=2e-5)
                assert row.low <= row.high


def test_scenes_are_also_scored_by_their_number_of_objects(table):
    apart = table[table["objects"] != "all"]
    assert set(apart["measure"]) == {"mIoU", "objects right"}
    for style in STYLES:
        numbers = [len(evaluation_scene(TEST, SEED, i, style).objects) for i in range(COUNT)]
        expected = {str(n): numbers.count(n) for n in sorted(set(numbers))}
        for (_, _), rows in apart[apart["styles"] == style].groupby(["measure", "method"]):
            assert dict(zip(rows["objects"], rows["scenes"], strict=True)) == expected


def test_rows_by_number_of_objects_come_from_these_scenes_alone(table, model):
    from scclip_core import load_clip

    methods = {"values": make_method("values", load_clip("mini"))}
    counts = score_methods(methods, "held-out", COUNT, SEED)["values"]
    assert counts.shape == (COUNT, 3, len(WORDS))
    stored = table.set_index(KEYS)["value"]
    objects = count_objects(counts)
    for number in np.unique(objects):
        part = counts[objects == number].sum(0)
        key = ("values", "held-out", str(number))
        assert stored["mIoU", *key] == pytest.approx(mean_iou(part), abs=2e-5)
        right = object_accuracy(part, N_OBJECTS)
        assert stored["objects right", *key] == pytest.approx(right, abs=2e-5)


def test_the_same_numbers_leave_both_files_alone(folder, table):
    csv, report = folder / "evaluate_mini.csv", folder / "evaluate_mini.json"
    before = csv.read_bytes(), report.read_bytes()
    content = json.loads(report.read_text())
    assert len(content["rows"]) == len(table) and len(content["weights_sha256"]) == 64
    fresh = pd.read_csv(csv, dtype={"objects": str})
    save_evaluation(fresh.assign(value=fresh["value"] + 3e-4), folder, "evaluate_mini")
    assert (csv.read_bytes(), report.read_bytes()) == before
    save_evaluation(fresh.assign(value=fresh["value"] + 3e-2), folder, "evaluate_mini")
    assert csv.read_bytes() != before[0] and report.read_bytes() != before[1]


def test_a_single_scene_is_refused(tmp_path, capsys):
    assert main(["evaluate-mini", "--count", "1", "--out", str(tmp_path)]) == 2
    assert "count must be at least 2 scenes, got 1" in capsys.readouterr().err
