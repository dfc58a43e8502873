"""Published tables again: ours beside what is claimed, for the data that is there."""

import pandas as pd
import pytest

from scclip_lab import cli
from scclip_lab.datasets.benchmarks import BENCHMARKS
from scclip_lab.datasets.protocols import find_protocol
from scclip_lab.evaluation.reproduction import ENTRIES, find_roots, read_published, reproduce
from scclip_lab.studies.ch09_baselines import published_scores
from tests.miniatures import MAKERS, ade20k, voc


def test_every_published_number_has_a_kind_a_source_and_a_known_data_set():
    table = read_published()
    assert set(table["kind"]) == {"paper", "README", "article", "third party"}
    assert set(table["dataset"]) == set(BENCHMARKS)
    assert not table.isna().any().any() and table["mIoU"].between(0, 100).all()
    assert not table.duplicated(["method", "backbone", "dataset", "kind", "source"]).any()


def test_every_entry_is_published_and_has_a_protocol():
    assert set(ENTRIES) <= set(read_published()["method"])
    for entry in ENTRIES.values():
        assert entry.method in cli.METHODS
        find_protocol(entry.protocol, "voc21")


def test_the_chapter_shows_one_row_for_each_method_and_source():
    table, wide = read_published(), published_scores()
    assert wide.columns[0] == "method" and wide.columns[-1] == "source"
    assert len(wide) == len(table.drop_duplicates(["method", "backbone", "kind", "source"]))
    assert wide.drop(columns=["method", "source"]).count().sum() == len(table)
    readme = wide[wide["source"] == "README: github.com/wangf3014/SCLIP"].iloc[0]
    assert readme["method"] == "SCLIP" and readme["VOC21"] == 59.63 and readme["ADE20K"] == 16.45


@pytest.fixture
def everything(tmp_path):
    """Miniatures of all eight benchmarks, each in a folder of its own: name -> folder."""
    folders = {name: tmp_path / name for name in BENCHMARKS}
    for name, folder in folders.items():
        folder.mkdir()
        MAKERS[name](folder)
    return folders


def test_every_benchmark_that_is_there_is_scored_and_compared(everything, tmp_path, capsys):
    out = tmp_path / "out"
    pairs = [part for name, path in everything.items() for part in ("--data", f"{name}={path}")]
    options = ("--method", "SCLIP", "--method", "vanilla CLIP", "--count", "1", "--workers", "0")
    line = ["reproduce", *pairs, *options, "--out", str(out)]
    assert cli.main(line) == 0
    assert "difference" in capsys.readouterr().out
    table = pd.read_csv(out / "reproduction.csv")
    assert set(table["data set"]) == set(BENCHMARKS)
    claimed = table.dropna(subset="published")
    difference = claimed["ours"] - claimed["published"]
    assert claimed["difference"].to_numpy() == pytest.approx(difference.to_numpy(), abs=1e-3)
    sclip = table[table["method"] == "SCLIP"]
    # A paper and a README state each of them.
    assert len(sclip) == 16 and set(sclip["kind"]) == {"paper", "README"}
    assert sclip["ours"].between(0, 100).all() and (sclip["images"] == 1).all()
    vanilla = table[table["method"] == "vanilla CLIP"].set_index("data set")
    assert vanilla.loc["ade20k", "protocol"] == "clearclip"
    assert vanilla.loc["voc21", "protocol"] == "clearclip with probability_threshold 0.2"
    # Nothing is published here, and ours is shown alone.
    assert pd.isna(vanilla.loc["coco-object", "published"])
    assert vanilla.loc["coco-object", "ours"] >= 0


def test_results_of_different_words_never_mix(tmp_path, model):
    ade20k(tmp_path)
    roots = {"ade20k": tmp_path}
    reproduce(model, roots, tmp_path / "out", ["SCLIP"], count=1, workers=0)
    with pytest.raises(ValueError, match="holds a run of sclip that differs in classes, words"):
        reproduce(model, roots, tmp_path / "out", ["SCLIP"], "own", count=1, workers=0)


def test_data_sets_are_found_in_a_common_folder_and_one_by_one(tmp_path):
    voc(tmp_path)
    ade20k(tmp_path / "ade")
    assert find_roots(tmp_path, []) == dict.fromkeys(("voc21", "voc20", "ade20k"), tmp_path)
    found = find_roots(tmp_path, [f"ade20k={tmp_path / 'ade'}"])
    assert found["ade20k"] == tmp_path / "ade" and found["voc20"] == tmp_path


def test_folders_and_methods_that_are_not_there_are_refused(tmp_path, model):
    with pytest.raises(ValueError, match=r"root must hold at least one of voc21, .*, none given"):
        find_roots(None, [])
    with pytest.raises(ValueError, match=r"root must hold at least one of voc21, .* has none"):
        find_roots(tmp_path, [])
    with pytest.raises(ValueError, match=r"data must be NAME=FOLDER with .*, got 'voc=here'"):
        find_roots(None, ["voc=here"])
    with pytest.raises(ValueError, match="root must be the folder that holds ade20k"):
        find_roots(None, [f"ade20k={tmp_path}"])
    with pytest.raises(ValueError, match=r"methods must be of SC-CLIP; .*, got 'GEM'"):
        reproduce(model, {}, tmp_path, ["GEM"])
