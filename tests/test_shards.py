"""Many pictures: shards and folders are shared out, and a stopped run goes on."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scclip_core import load_clip, make_method
from scclip_core.cli import own_share
from scclip_lab.datasets.scenes import VALIDATION, evaluation_scene
from scclip_lab.evaluation import shards as module
from scclip_lab.evaluation.shards import Done, pack, read_shard, segment_shard, segment_shards

ROOT = Path(__file__).parents[1]
CLASSES = ["dog", "cat", "grass"]


@pytest.fixture(scope="module")
def segmenter():
    return make_method("values", load_clip("mini"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        image = Image.fromarray(evaluation_scene(VALIDATION, 3, i).image)
        image.resize((64, 64)).save(folder / f"picture{i}.png")
    return sorted(folder.iterdir())


def names(shard):
    with tarfile.open(shard) as tar:
        return tar.getnames()


def test_shards_hold_the_files_as_they_are_in_order(pictures, tmp_path):
    shards = pack(pictures, tmp_path, size=2)
    assert [shard.name for shard in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    found = [pair for shard in shards for pair in read_shard(shard)]
    assert found == [(path.stem, path.read_bytes()) for path in pictures]
    with pytest.raises(ValueError, match="size must be at least 1 picture, got 0"):
        pack(pictures, tmp_path, size=0)


def test_a_result_holds_the_label_map_and_the_summary_of_every_picture(
    segmenter, pictures, tmp_path
):
    (shard,) = pack(pictures, tmp_path / "in")
    (tmp_path / "out").mkdir()
    assert segment_shard(segmenter, shard, tmp_path / "out", CLASSES) == (5, {})
    with tarfile.open(tmp_path / "out" / shard.name) as tar:
        labels = tar.extractfile("picture3_labels.png").read()
        told = json.loads(tar.extractfile("picture3.json").read())
    expected = segmenter.predict(pictures[3], CLASSES)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels))), expected.labels)
    assert [row["name"] for row in told["classes"]] == CLASSES


def test_what_is_no_picture_is_left_out_and_named(segmenter, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    (shard,) = pack([broken, *pictures[:1]], tmp_path / "in")
    count, failed = segment_shard(segmenter, shard, tmp_path, CLASSES)
    assert count == 1 and list(failed) == ["000000.tar/broken"]
    assert names(tmp_path / "000000.tar") == ["picture0_labels.png", "picture0.json"]


def test_results_that_are_there_are_not_made_again_and_half_a_result_is_none(
    segmenter, pictures, tmp_path, monkeypatch
):
    shards, out = pack(pictures, tmp_path / "in", size=2), tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        calls = iter([segmenter.predict(pictures[0], CLASSES)] * 3)
        patch.setattr(segmenter, "predict", lambda *_: next(calls))
        with pytest.raises((StopIteration, RuntimeError)):
            segment_shards(segmenter, shards, out, CLASSES)
    assert [path.name for path in out.iterdir()] == ["000000.tar"]
    first = (out / "000000.tar").read_bytes()
    assert segment_shards(segmenter, shards, out, CLASSES).pictures == 3
    assert (out / "000000.tar").read_bytes() == first
    assert segment_shards(segmenter, shards, out, CLASSES).pictures == 0


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_every_item_is_the_share_of_one_process(monkeypatch, processes):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    shares = []
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(own_share(range(7)))
    assert sorted(item for share in shares for item in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_takes_all_whatever_another_program_has_left(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert own_share("abc") == ["a", "b", "c"]
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert own_share("abc") == ["a", "b", "c"]


def test_a_picture_above_the_limit_of_pillow_is_left_out(segmenter, pictures, tmp_path):
    large = io.BytesIO()
    Image.new("1", (16_000, 16_000)).save(large, format="png")
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        member = tarfile.TarInfo("large.png")
        member.size = large.tell()
        large.seek(0)
        tar.addfile(member, large)
        tar.add(pictures[0], "small.png")
    (tmp_path / "out").mkdir()
    count, failed = segment_shard(segmenter, tmp_path / "some.tar", tmp_path / "out", CLASSES)
    assert count == 1 and list(failed) == ["some.tar/large"]
    assert "decompression bomb" in failed["some.tar/large"]


def test_two_pictures_of_one_key_are_refused(pictures, tmp_path):
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        tar.add(pictures[0], "a/b.png")
        tar.add(pictures[1], "a_b.png")
    with pytest.raises(ValueError, match=r"some\.tar must name its pictures apart, a_b is twice"):
        list(read_shard(tmp_path / "some.tar"))


def run_two(command):
    """The command in two processes at a time, with the environment that torchrun gives each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=ROOT,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": "2"}
            | {"TORCHELASTIC_RUN_ID": "none"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return told


def test_two_processes_make_what_one_makes(segmenter, pictures, tmp_path):
    shards = pack(pictures, tmp_path / "in", size=2)
    options = ["--classes", ",".join(CLASSES), "--method", "values"]
    command = [module.__name__, "segment", tmp_path / "in", *options, "--out", tmp_path / "two"]
    told = run_two(command)
    assert sorted(int(line.split()[0]) for line in told) == [2, 3]
    (tmp_path / "one").mkdir()
    segment_shards(segmenter, shards, tmp_path / "one", CLASSES)
    for shard in shards:
        both = [dict(read_shard(tmp_path / folder / shard.name)) for folder in ("one", "two")]
        assert both[0] == both[1] and both[0]
    folder = pictures[0].parent
    told = run_two(["scclip_core", "segment", folder, *options, "--out", tmp_path / "maps"])
    assert sorted(line.split()[:3] for line in told) == [["2", "of", "2"], ["3", "of", "3"]]
    assert len(list((tmp_path / "maps").glob("*_labels.png"))) == 5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["empty", "--out", "out"], "shards must be a folder with"),
        (["full", "--out", "full"], "--out must be another folder than that of the shards"),
    ],
)
def test_folders_that_cannot_be_are_refused(tmp_path, monkeypatch, capsys, given, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "000000.tar").write_bytes(b"")
    arguments = ["segment", *given, "--classes", "dog"]
    assert module.run_command(module.build_parser(), arguments) == 2
    assert told in capsys.readouterr().err


def test_the_rate_is_pictures_a_second():
    assert Done(6, {}, 1.5).rate == 4
    assert Done(0, {}, 0.0).rate == 0
