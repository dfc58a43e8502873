"""Protocols and words are the published ones; a value that is changed is told in the name."""

import re
from dataclasses import replace

import pytest

from scclip_core.files import DATA
from scclip_lab.datasets.benchmarks import BENCHMARKS, open_dataset
from scclip_lab.datasets.protocol import Protocol
from scclip_lab.datasets.protocols import REPOSITORIES, change_protocol, find_protocol
from scclip_lab.datasets.words import OWN, read_names, read_words
from scclip_lab.evaluation.inference import check_sizes
from scclip_lab.evaluation.runner import run_metadata

COUNTS = {"voc21": 21, "voc20": 20, "context60": 60, "context59": 59, "coco-object": 81}
COUNTS |= {"coco-stuff": 171, "cityscapes": 19, "ade20k": 150}


def test_protocols_are_those_of_the_published_configurations():
    stated = {
        (name, dataset): find_protocol(name, dataset)
        for name in REPOSITORIES
        for dataset in BENCHMARKS
    }

    def values(protocol, attribute):
        found = {d: getattr(stated[protocol, d], attribute) for d in BENCHMARKS}
        usual = max(found.values(), key=list(found.values()).count)
        return usual, {d: v for d, v in found.items() if v != usual}

    thresholds = {
        "scclip": {"voc21": 0.15, "context60": 0.15, "coco-object": 0.35},
        "sclip": {"voc21": 0.1, "context60": 0.1, "coco-object": 0.1},
        "clearclip": {"voc21": 0.5, "context60": 0.15, "coco-object": 0.4},
        "naclip": {"voc21": 0.1, "context60": 0.1, "coco-object": 0.1},
    }
    for name, expected in thresholds.items():
        assert values(name, "probability_threshold") == (0.0, expected)
    assert values("scclip", "logit_scale") == (40, {"voc21": 50, "coco-object": 55})
    scales = {"voc21": 65, "coco-object": 50, "context60": 50}
    assert values("sclip", "logit_scale") == (40, scales)
    assert values("clearclip", "logit_scale") == (50, {})
    assert values("naclip", "logit_scale") == (40, {})
    for name in ("scclip", "naclip"):
        assert values(name, "short_side") == (336, {"cityscapes": 560})
    assert values("sclip", "short_side") == (336, {"cityscapes": 560, "coco-stuff": 448})
    assert values("clearclip", "short_side") == (448, {})
    assert values("clearclip", "window") == (448, {"cityscapes": 224})
    assert values("clearclip", "stride") == (224, {})
    assert values("naclip", "window") == (224, {"voc21": 0, "voc20": 0})
    assert values("naclip", "pamr_steps") == (10, {})
    for name in ("scclip", "sclip"):
        assert values(name, "window") == (224, {}) and values(name, "stride") == (112, {})
        assert values(name, "area_threshold") == (0, {"voc21": 0.1})
    for (name, _), protocol in stated.items():
        assert len(protocol.templates) == 80
        assert re.fullmatch(rf"{REPOSITORIES[name]}, configs/cfg_\w+\.py", protocol.source)


def test_single_values_of_a_protocol_can_be_changed_and_its_name_says_so():
    protocol = find_protocol("sclip", "voc20")
    changed = change_protocol(protocol, {"short_side": 448, "stride": None, "logit_scale": 50.0})
    assert (changed.short_side, changed.stride, changed.logit_scale) == (448, 112, 50.0)
    assert changed.name == "sclip with short_side 448, logit_scale 50"
    assert change_protocol(protocol, {"stride": None}) is protocol


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_side": 0}, "short_side must be in 1..2048, got 0"),
        ({"window": -16}, "window must be >= 0 pixels; 0 is the whole image, got -16"),
        ({"stride": 225}, "stride must be in 1..224, the window, got 225"),
        ({"logit_scale": float("nan")}, "logit_scale must be a finite number > 0, got nan"),
        ({"probability_threshold": 1.5}, r"probability_threshold must be in \[0, 1\], got 1.5"),
        ({"area_threshold": -1.0}, r"area_threshold must be in \[0, 1\], got -1.0"),
        ({"pamr_steps": -1}, "pamr_steps must be >= 0 steps, got -1"),
    ],
)
def test_values_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**changes)


def test_sizes_that_do_not_fit_the_patches_are_refused(model):
    with pytest.raises(ValueError, match="short_side must be at least one patch, 16 pixels, got 8"):
        check_sizes(model, Protocol(short_side=8))
    with pytest.raises(ValueError, match="window must be a multiple of the patch, 16, got 120"):
        check_sizes(model, Protocol(window=120))
    check_sizes(model, Protocol(window=0))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match=r"protocol must be one of scclip, .*, got 'gem'"):
        find_protocol("gem", "voc21")


@pytest.mark.parametrize("words", ["published", "own"])
@pytest.mark.parametrize("dataset", COUNTS)
def test_word_lists_have_the_classes_of_their_data_set(dataset, words):
    classes = read_words(dataset, words)
    assert len(classes) == COUNTS[dataset]
    assert all(name and name == name.strip() for names in classes for name in names)
    names = [name for names in classes for name in names]
    # In the published list of COCO-Object, a bed is both furniture of the background and an object.
    twice = {name for name in names if names.count(name) > 1}
    assert twice == ({"bed"} if (dataset, words) == ("coco-object", "published") else set())


def test_published_words_name_the_background_by_what_it_is_made_of():
    for dataset in ("voc21", "coco-object"):
        background = read_words(dataset, "published")[0]
        assert len(background) == 26 and {"sky", "wall", "grass"} < set(background)
    assert read_words("context60", "published")[0] == ("background",)
    assert len(read_words("voc20", "published")[14]) == 7


def test_every_word_list_belongs_to_a_benchmark():
    folder = DATA / "queries"
    assert {path.stem for path in (folder / "published").glob("*.txt")} == set(BENCHMARKS)
    assert {path.stem for path in (folder / "own").iterdir()} == set(sum(OWN.values(), ()))
    assert set(OWN) == set(BENCHMARKS)


def test_words_can_come_from_a_file(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\n".join(f"class {i},name {i}" for i in range(20)))
    assert read_words("voc20", str(file))[3] == ("class 3", "name 3")
    with pytest.raises(ValueError, match=r"a line for each of the 21 classes of voc21, .* has 20"):
        read_words("voc21", str(file))
    file.write_text("dog, , cat\n")
    with pytest.raises(ValueError, match="words must have no empty name, line 1 of"):
        read_names(file)
    with pytest.raises(ValueError, match="words must be published, own, or a file, got 'mine'"):
        read_words("voc20", "mine")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="words must be a file that can be read"):
        read_names(file)


def test_scenes_have_words_and_a_protocol_of_their_own():
    for argument in ("protocol", "words"):
        with pytest.raises(ValueError, match=f"{argument} must not be given for scenes, got 'own'"):
            open_dataset("scenes", count=1, **{argument: "own"})
    assert open_dataset("scenes", count=1, stride=56).protocol.stride == 56


def test_the_key_of_a_run_tells_protocol_and_words(model):
    data = open_dataset("scenes", count=1)
    kept = run_metadata(model, data, 2)
    assert kept["words"] == "scenes" and kept["protocol"]["name"] == "scenes"
    other = replace(data, protocol=find_protocol("sclip", "voc20"), words="own")
    found = run_metadata(model, other, 2)
    assert found["words"] == "own" and found["protocol"]["name"] == "sclip"
    assert "SCLIP at b56bd30" in found["protocol"]["source"]
