"""The eight public benchmarks: miniatures in their exact folders, scored as scikit-learn does."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.metrics import jaccard_score

from scclip_core import SCCLIP, cli
from scclip_core.baselines import METHODS
from scclip_core.segmentation import upsample
from scclip_lab import cli as lab_cli
from scclip_lab.datasets.benchmarks import BENCHMARKS, DATASETS, open_dataset
from scclip_lab.datasets.protocol import Protocol, label_map
from scclip_lab.datasets.protocols import REPOSITORIES
from scclip_lab.datasets.scenes import N_OBJECTS
from scclip_lab.evaluation.inference import label_maps
from scclip_lab.evaluation.metrics import mean_iou
from scclip_lab.evaluation.reports import measures_of
from scclip_lab.evaluation.runner import Chunks, evaluate

# Width and height.
SIZES = [(60, 44), (44, 60), (50, 50)]


def save(array: np.ndarray, path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if path.suffix == ".png" and array.ndim == 2 and options.pop("palette", False):
        image = image.convert("L")
        image.putpalette([v for i in range(256) for v in (i, 255 - i, (7 * i) % 256)])
    image.save(path, **options)


def pictures(names, folder, suffix=".jpg"):
    rng = np.random.default_rng(0)
    for name, (width, height) in zip(names, SIZES, strict=True):
        save(rng.integers(0, 256, (height, width, 3), np.uint8), folder / f"{name}{suffix}")


def blocks(values, seed=0):
    """Label maps of 4 x 5 blocks, one for each picture, of the values given."""
    rng = np.random.default_rng(seed)
    for width, height in SIZES:
        coarse = Image.fromarray(rng.choice(values, (4, 5)).astype(np.uint8))
        yield np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST))


def voc(root, base="VOCdevkit/VOC2012", labels="SegmentationClass", lists="Segmentation", top=21):
    names = ["2007_000033", "2007_000042", "2007_000061"]
    pictures(names, root / base / "JPEGImages")
    maps = list(blocks([0, 0, 1, 5, 15, top - 1, 255]))
    for name, labelled in zip(names, maps, strict=True):
        save(labelled, root / base / labels / f"{name}.png", palette=True)
    (root / base / "ImageSets" / lists).mkdir(parents=True)
    (root / base / "ImageSets" / lists / "val.txt").write_text("\n".join(names) + "\n")
    return maps


def context(root):
    return voc(root, "VOCdevkit/VOC2010", "SegmentationClassContext", "SegmentationContext", 60)


def shifted(maps):
    return [np.where((m == 0) | (m == 255), 255, m.astype(int) - 1).astype(np.uint8) for m in maps]


def coco_instances(root):
    names = ["000000000139", "000000000285", "000000000632"]
    pictures(names, root / "val2017")
    images, annotations, maps = [], [], []
    categories = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
    for number, (name, (width, height)) in enumerate(zip(names, SIZES, strict=True)):
        images.append(
            {"id": number + 1, "file_name": f"{name}.jpg", "width": width, "height": height}
        )
        expected = np.zeros((height, width), np.uint8)
        # A polygon, 30 x 30, with a run-length coded instance over it.
        box = [4, 4, 34, 4, 34, 34, 4, 34]
        expected[4:34, 4:34] = categories.index(90) + 1
        crowd = np.zeros((height, width), np.uint8, order="F")
        crowd[10:20, 10:20] = 1
        expected[10:20, 10:20] = categories.index(18) + 1
        code = coco_mask.encode(crowd)
        code["counts"] = code["counts"].decode()
        for category, shape, area, iscrowd in ((18, code, 100, 1), (90, [box], 900, 0)):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number + 1, "category_id": category,
                    "segmentation": shape, "area": area, "iscrowd": iscrowd, "bbox": [4, 4, 30, 30],
                }
            )  # fmt: skip
        maps.append(expected)
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": i, "name": str(i)} for i in categories]
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return maps


def coco_stuff(root, label=None):
    names = ["000000000139", "000000000285", "000000000632"]
    pictures(names, root / "val2017")
    maps = list(blocks([0, 10, 12, 89, 91, 181, 255]))
    # The values 11, 25 ... do not occur.
    label = label or {0: 0, 10: 10, 12: 11, 89: 79, 91: 80, 181: 170, 255: 255}
    for name, values in zip(names, maps, strict=True):
        save(values, root / "stuffthingmaps" / "val2017" / f"{name}.png")
    return [np.vectorize(label.get)(values).astype(np.uint8) for values in maps]


def coco_things(root):
    # Unlabelled pixels (255) are background in the published ground truth.
    return coco_stuff(root, {0: 1, 10: 11, 12: 12, 89: 80, 91: 0, 181: 0, 255: 0})


def converted(root, values, ending):
    """COCO as mmsegmentation wants it: the values of the maps are the labels."""
    names = ["000000000139", "000000000285", "000000000632"]
    pictures(names, root / "images" / "val2017")
    maps = list(blocks(values))
    for name, labelled in zip(names, maps, strict=True):
        save(labelled, root / "annotations" / "val2017" / f"{name}{ending}.png")
    return maps


def cityscapes(root, converted=False):
    names = [f"{city}_00000{i}_000019" for i, city in enumerate(("frankfurt", "lindau", "munster"))]
    maps = list(blocks([0, 4, 7, 8, 26, 33]))
    label = {0: 255, 4: 255, 7: 0, 8: 1, 26: 13, 33: 18}
    for name, (width, height), values in zip(names, SIZES, maps, strict=True):
        city = name.split("_")[0]
        rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        save(rgb, root / "leftImg8bit" / "val" / city / f"{name}_leftImg8bit.png")
        for kind in ("labelIds", "instanceIds"):
            save(values, root / "gtFine" / "val" / city / f"{name}_gtFine_{kind}.png")
        if converted:
            labelled = np.vectorize(label.get)(values).astype(np.uint8)
            save(labelled, root / "gtFine" / "val" / city / f"{name}_gtFine_labelTrainIds.png")
    return [np.vectorize(label.get)(values).astype(np.uint8) for values in maps]


def ade20k(root):
    names = [f"ADE_val_0000000{i}" for i in (1, 2, 3)]
    base = root / "ADEChallengeData2016"
    pictures(names, base / "images" / "validation")
    maps = list(blocks([0, 1, 2, 77, 150]))
    for name, values in zip(names, maps, strict=True):
        save(values, base / "annotations" / "validation" / f"{name}.png")
    return shifted(maps)


MAKERS = {
    "voc21": voc,
    "voc20": lambda root: shifted(voc(root)),
    "context60": context,
    "context59": lambda root: shifted(context(root)),
    "coco-object": coco_things,
    "coco-object from instances": coco_instances,
    "coco-stuff": coco_stuff,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "coco-object for mmsegmentation": lambda root: converted(
        root, [0, 1, 41, 80], "_instanceTrainIds"
    ),
    "coco-stuff for mmsegmentation": lambda root: converted(
        root, [0, 99, 170, 255], "_labelTrainIds"
    ),
    "cityscapes for mmsegmentation": lambda root: cityscapes(root, converted=True),
    "ade20k in a folder of mmsegmentation": lambda root: ade20k(root / "ade"),
}


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
    occurring = sorted(set(truth[kept]) | set(guess[kept]))
    score = jaccard_score(
        truth[kept], guess[kept], labels=occurring, average="macro", zero_division=0
    )
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


def published(logits, classes, size, scale, probability, area):
    """The published code's order of work on whole tensors.

    Resize, softmax, best name, area threshold, probability threshold.
    """
    p = (scale * upsample(logits.movedim(0, -1)[None], size)[0]).softmax(0)
    first, best = 0, []
    for names in classes:
        best.append(p[first : first + len(names)].amax(0))
        first += len(names)
    p = torch.stack(best)
    if area:
        filled = [float((p.argmax(0) == c).sum()) for c in range(len(classes))]
        for c in range(1, len(classes)):
            if not filled[c] > area * sum(filled[1:]):
                p[c] = 0
    label = p.argmax(0)
    label[p.amax(0) < probability] = 0
    return label


@pytest.mark.parametrize(
    ("probability", "area"), [(0.0, 0.0), (0.15, 0.0), (0.0, 0.1), (0.15, 0.1), (0.9, 0.5)]
)
def test_thresholds_follow_the_published_protocol(probability, area):
    generator = torch.Generator().manual_seed(0)
    classes = [("wall", "sky", "sea"), *((f"class {i}", f"name {i}") for i in range(11))]
    logits = 0.3 * torch.randn(25, 7, 9, generator=generator)
    protocol = Protocol(logit_scale=20.0, probability_threshold=probability, area_threshold=area)
    found = label_map(logits, classes, (40, 33), protocol)
    assert torch.equal(found, published(logits, classes, (40, 33), 20.0, probability, area))
    assert len(found.unique()) > 1 or probability == 0.9


@pytest.mark.parametrize(("threshold", "kept"), [(0.25, False), (0.249, True)])
def test_a_class_that_fills_just_the_area_threshold_is_removed(threshold, kept):
    # One pixel of background, one of class 1, three of class 2.
    best = torch.tensor([[0, 1, 2, 2, 2]])
    logits = torch.nn.functional.one_hot(best, 3).movedim(-1, 0).float()
    logits[0] += 0.5
    protocol = Protocol(area_threshold=threshold)
    found = label_map(logits, [("wall",), ("dog",), ("cat",)], (1, 5), protocol)
    assert found.tolist() == [[0, 1 if kept else 0, 2, 2, 2]]


def test_a_probability_at_the_threshold_is_kept():
    # Two names of equal logits have a probability of one half each.
    logits = torch.zeros(2, 1, 1)
    logits[1] += 1e-6
    for threshold, label in ((0.5, 1), (0.51, 0)):
        protocol = Protocol(probability_threshold=threshold)
        assert label_map(logits, [("wall",), ("dog",)], (1, 1), protocol).item() == label


def test_without_thresholds_every_pixel_takes_its_best_class():
    logits = torch.randn(40, 6, 8, generator=torch.Generator().manual_seed(0))
    classes = [(f"class {i}",) for i in range(40)]
    expected = upsample(logits.movedim(0, -1)[None], (30, 20))[0].argmax(0)
    assert torch.equal(label_map(logits, classes, (30, 20)), expected)
