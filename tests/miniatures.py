"""Public benchmarks in miniature: three pictures each, in the exact folders of the originals."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

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
