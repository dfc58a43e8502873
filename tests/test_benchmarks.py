"""The eight public benchmarks: miniatures in their exact folders, scored as scikit-learn does."""

from dataclasses import fields

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from scclip_core import SCCLIP, cli
from scclip_core.baselines import METHODS
from scclip_lab import cli as lab_cli
from scclip_lab.datasets.benchmarks import BENCHMARKS, DATASETS, open_dataset
from scclip_lab.datasets.protocol import Protocol
from scclip_lab.datasets.protocols import REPOSITORIES
from scclip_lab.datasets.scenes import N_OBJECTS
from scclip_lab.evaluation.inference import label_maps
from scclip_lab.evaluation.metrics import mean_iou
from scclip_lab.evaluation.reports import measures_of
from scclip_lab.evaluation.runner import Chunks, evaluate
from tests.miniatures import MAKERS, SIZES, ade20k, cityscapes, coco_things, context, pictures, voc


@pytest.mark.parametrize("name", MAKERS)
def test_a_miniature_is_read_and_scored_as_scikit_learn_does(name, tmp_path, model):
    expected = MAKERS[name](tmp_path)
    data = open_dataset(name.split()[0], tmp_path)
    chunks = Chunks(data, model)
    assert len(data.samples) == 3
    for i, labels in enumerate(expected):
        picture, found = data.samples.read(i)
        assert picture.size == SIZES[i] and found.dtype == np.uint8
        assert np.array_equal(found, labels)
    out = tmp_path / "out"
    out.mkdir()
    segmenter = SCCLIP(model)
    results = evaluate({"scclip": segmenter}, data, out, workers=0)
    assert results.counts["scclip"].shape == (3, 3, len(data.classes)) and not results.failed
    tensors = [chunks.load(i).image for i in range(3)]
    maps = label_maps(segmenter, tensors, [m.shape for m in expected], data)
    truth = np.concatenate([m.ravel() for m in expected])
    guess = np.concatenate([m.numpy().ravel() for m in maps])
    kept = truth != 255
    occurring = sorted(set(truth[kept]))
    score = jaccard_score(truth[kept], guess[kept], labels=occurring, average="macro")
    assert mean_iou(results.counts["scclip"].sum(0)) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_wrong_root_is_answered_with_the_expected_tree(name, tmp_path):
    for root in (tmp_path, tmp_path / "missing", None):
        with pytest.raises(ValueError, match="root must be the folder that holds") as error:
            open_dataset(name, root)
        for layout in BENCHMARKS[name].layouts:
            for line in layout.tree:
                assert f"\n  {line}" in str(error.value)


def test_a_tree_without_label_maps_is_refused(tmp_path):
    pictures([f"ADE_val_0000000{i}" for i in (1, 2, 3)], tmp_path / "ade/ADEChallengeData2016/x")
    folder = tmp_path / "ade/ADEChallengeData2016"
    (folder / "images").mkdir()
    (folder / "x").rename(folder / "images/validation")
    (folder / "annotations/validation").mkdir(parents=True)
    missing = "ADEChallengeData2016/annotations/validation/NAME.png"
    with pytest.raises(ValueError, match=f"has no {missing}; expected under it:"):
        open_dataset("ade20k", tmp_path / "ade")


def test_an_empty_list_of_pictures_is_refused(tmp_path):
    context(tmp_path)
    names = tmp_path / "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt"
    names.write_text("")
    with pytest.raises(ValueError, match=r"root must hold images of context60, .* has none"):
        open_dataset("context60", tmp_path)


def test_names_and_counts_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"dataset must be one of scenes, .*ade20k, got 'voc'"):
        open_dataset("voc", tmp_path)
    with pytest.raises(ValueError, match="count must be at least 1 image, got 0"):
        open_dataset("scenes", count=0)


def test_the_command_lines_know_the_same_names():
    assert lab_cli.DATASETS == DATASETS
    assert lab_cli.PROTOCOLS == tuple(REPOSITORIES)
    assert set(lab_cli.CHANGES) < {field.name for field in fields(Protocol)}
    assert cli.METHODS == tuple(METHODS)


def test_a_picture_of_scenes_is_what_it_says():
    picture, labels = open_dataset("scenes-held-out", count=3, seed=5).samples.read(2)
    assert picture.size == (224, 224) and labels.shape == (224, 224) and labels.max() < 56


def test_converted_label_maps_come_before_the_original_ones(tmp_path):
    # Where both kinds lie in one folder, the published code reads the converted ones.
    cityscapes(tmp_path, converted=True)
    layout, folder = BENCHMARKS["cityscapes"].find(tmp_path)
    assert folder == tmp_path and "labelTrainIds" in layout.tree[1]


def test_every_benchmark_has_its_miniature():
    assert set(BENCHMARKS) <= set(MAKERS)


def test_objects_and_background_are_told_apart_where_there_is_a_background(tmp_path):
    with_background = {"voc21": voc, "context60": context, "coco-object": coco_things}
    for name, maker in with_background.items():
        root = tmp_path / name
        root.mkdir()
        maker(root)
        data = open_dataset(name, root)
        assert data.background == (0,)
        assert data.object_mask().tolist() == [False] + [True] * (len(data.classes) - 1)
        assert set(measures_of(data)) > {"objects right", "background right"}
    assert {n for n, b in BENCHMARKS.items() if b.has_background} == set(with_background)
    ade20k(tmp_path)
    assert set(measures_of(open_dataset("ade20k", tmp_path))) == {"mIoU", "pixel accuracy"}
    scenes = open_dataset("scenes", count=1)
    assert scenes.object_mask().tolist() == [i < N_OBJECTS for i in range(len(scenes.classes))]
