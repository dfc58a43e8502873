"""Label maps are those of the published code: sizes, pixels, windows and refinement."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from scclip_core import SCCLIP
from scclip_core.images import open_picture
from scclip_core.text import embed_names
from scclip_lab.datasets.benchmarks import open_dataset
from scclip_lab.datasets.folders import Samples
from scclip_lab.datasets.pamr import refine
from scclip_lab.datasets.protocol import Protocol
from scclip_lab.datasets.protocols import find_protocol
from scclip_lab.datasets.resizing import published_size, resize_bilinear
from scclip_lab.datasets.scenes import TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.inference import label_maps
from scclip_lab.evaluation.runner import Chunks

# Width and height of usual pictures, and what mmcv makes of them at a short side of 336.
RESIZED = {(500, 333): (505, 336), (640, 427): (504, 336), (375, 500): (336, 448)}


@pytest.mark.parametrize(("given", "wanted"), RESIZED.items())
def test_sides_are_not_rounded_to_the_patch(given, wanted):
    assert published_size(*given, 336) == wanted


def test_no_side_becomes_longer_than_2048_pixels():
    assert published_size(2048, 1024, 560) == (1120, 560)
    assert published_size(4000, 400, 336) == (2048, 205)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [*RESIZED.items(), ((672, 672), (336, 336)), ((60, 44), (458, 336)), ((33, 47), (33, 47))],
)
def test_resized_pixels_are_those_of_opencv(given, wanted):
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 256, (*given[::-1], 3), np.uint8)
    expected = cv2.resize(picture, wanted, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_bilinear(picture, *wanted), expected)


def test_pictures_are_decoded_as_opencv_does(tmp_path):
    cv2 = pytest.importorskip("cv2")
    for quality in (75, 95):
        Image.fromarray(scene(160, 120)).save(tmp_path / "scene.jpg", quality=quality)
        expected = cv2.imread(str(tmp_path / "scene.jpg"))[..., ::-1].astype(int)
        # Other versions of the decoders may round differently.
        assert abs(np.asarray(open_picture(tmp_path / "scene.jpg")) - expected).max() <= 1


def published_labels(segmenter, picture, classes, text, protocol):
    """The whole published evaluation of one picture, restated step by step on whole tensors."""
    cv2 = pytest.importorskip("cv2")
    height, width = picture.shape[:2]
    scale = min(2048 / max(height, width), protocol.short_side / min(height, width))
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    mean, std = (255 * torch.tensor(v) for v in (segmenter.model.mean, segmenter.model.std))
    image = ((torch.from_numpy(resized).float() - mean) / std).permute(2, 0, 1)[None]
    rows, columns = image.shape[2:]
    crop = protocol.window or max(rows, columns)
    total, count = torch.zeros(1, len(text), rows, columns), torch.zeros(rows, columns)
    down, right = (
        max(side - crop + protocol.stride - 1, 0) // protocol.stride + 1 for side in (rows, columns)
    )
    for i in range(down):
        for j in range(right):
            bottom = min(i * protocol.stride + crop, rows)
            end = min(j * protocol.stride + crop, columns)
            top, start = max(bottom - crop, 0), max(end - crop, 0)
            cut = image[:, :, top:bottom, start:end]
            whole = [side // 16 * 16 for side in cut.shape[2:]]
            features = segmenter(cut[:, :, : whole[0], : whole[1]])
            logits = (features @ text.T).permute(0, 3, 1, 2)
            large = F.interpolate(logits, cut.shape[2:], mode="bilinear")
            total[:, :, top:bottom, start:end] += large
            count[top:bottom, start:end] += 1
    large = F.interpolate(total / count, (height, width), mode="bilinear")
    p = (protocol.logit_scale * large[0]).softmax(0)
    owner = torch.tensor([i for i, names in enumerate(classes) for _ in names])
    p = torch.stack([p[owner == i].amax(0) for i in range(len(classes))])
    if protocol.area_threshold:
        filled = F.one_hot(p.argmax(0), len(classes)).sum((0, 1))[1:].float()
        p[1:] *= (filled > protocol.area_threshold * filled.sum())[:, None, None]
    label = p.argmax(0)
    label[p.amax(0) < protocol.probability_threshold] = 0
    return label


def scene(width, height):
    """A scene cut to a size, uint8 [H, W, 3]."""
    whole = evaluation_scene(TEST, 3, 4, side=max(width, height)).image
    return np.ascontiguousarray(whole[:height, :width])


def one_sample(picture):
    """A data set of one picture, without labels."""
    labels = np.zeros(picture.shape[:2], np.uint8)
    return Samples(["one"], lambda i: (Image.fromarray(picture), labels))


@pytest.mark.parametrize("protocol", ["scclip", "sclip", "clearclip"])
@pytest.mark.parametrize("size", RESIZED)
def test_label_maps_are_those_of_the_published_evaluation(size, protocol, mini):
    found, expected = label_twice(mini, scene(*size), find_protocol(protocol, "voc21"))
    assert (found == expected).float().mean() >= 0.9999


@pytest.mark.parametrize("size", RESIZED)
def test_a_whole_picture_loses_what_is_no_whole_patch(size, mini):
    protocol = replace(find_protocol("naclip", "voc21"), pamr_steps=0)
    found, expected = label_twice(mini, scene(*size), protocol)
    assert (found == expected).float().mean() >= 0.9999


def label_twice(model, picture, protocol):
    """The label maps of a picture by this project and by the restatement, both [H, W]."""
    # On large pictures the bundled model is seldom as sure as the published thresholds ask.
    threshold = min(protocol.probability_threshold, 0.1)
    protocol = replace(protocol, templates=("{}",), probability_threshold=threshold)
    # Words that the model knows, the background first; a class has two names.
    classes = [("grass", "sand", "sky"), ("dog", "cat"), *((word,) for word in WORDS[2:30])]
    size = picture.shape[:2]
    scenes = open_dataset("scenes", count=1)
    data = replace(scenes, samples=one_sample(picture), protocol=protocol, classes=classes)
    segmenter = SCCLIP(model)
    text = embed_names(model, [name for names in classes for name in names], ("{}",))
    sample = Chunks(data, model).load(0)
    (found,) = label_maps(segmenter, [sample.image], [size], data)
    expected = published_labels(segmenter, picture, classes, text, protocol)
    assert len(found.unique()) >= 2
    return found, expected


def test_refinement_is_a_mean_over_neighbours_of_similar_colour():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 7, 6, generator=generator)
    maps = torch.rand(2, 7, 6, generator=generator)
    steps = [(d * r, d * c) for d in (1, 3) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    expected = maps.clone()
    for _ in range(2):
        refined = torch.zeros_like(maps)
        for y in range(7):
            for x in range(6):
                places = [(min(max(y + r, 0), 6), min(max(x + c, 0), 5)) for r, c in steps]
                colours = torch.stack([picture[:, r, c] for r, c in places])
                deviation = colours.std(0)
                near = [place for place, step in zip(places, steps, strict=True) if step != (0, 0)]
                distance = torch.stack(
                    [
                        (picture[:, y, x] - picture[:, r, c]).abs() / (0.1 * deviation)
                        for r, c in near
                    ]
                ).mean(1)
                weights = (-distance).softmax(0)
                refined[:, y, x] = sum(
                    w * expected[:, r, c] for w, (r, c) in zip(weights, near, strict=True)
                )
        expected = refined
    torch.testing.assert_close(refine(maps, picture, 2, (1, 3)), expected, atol=1e-5, rtol=1e-5)


def test_refinement_keeps_an_edge_and_smooths_beside_it():
    picture = torch.zeros(3, 8, 40)
    picture[:, :, 20:] = 1
    maps = torch.rand(1, 8, 40, generator=torch.Generator().manual_seed(0))
    maps[:, :, 20:] += 10
    refined = refine(maps, picture, 10)
    assert refined[..., :20].max() < 1 and refined[..., 20:].min() > 10
    assert refined[..., :20].std() < maps[..., :20].std()
    assert torch.equal(refine(maps, picture, 0), maps)


def test_refinement_needs_one_size():
    with pytest.raises(ValueError, match=r"one size, got \(4, 4\), the picture \(5, 4\)"):
        refine(torch.zeros(1, 4, 4), torch.zeros(3, 5, 4), 1)


def test_refinement_comes_before_the_labels(mini):
    picture = scene(120, 90)
    protocol = Protocol(short_side=90, window=0, templates=("{}",))
    data = replace(open_dataset("scenes", count=1), protocol=protocol)
    image = Chunks(replace(data, samples=one_sample(picture)), mini).load(0).image
    (plain,) = label_maps(SCCLIP(mini), [image], [(90, 120)], data)
    refined = replace(data, protocol=replace(protocol, pamr_steps=10))
    (found,) = label_maps(SCCLIP(mini), [image], [(90, 120)], refined)
    names = [name for names in data.classes for name in names]
    text = embed_names(mini, names, ("{}",))
    logits = SCCLIP(mini).logits(image[None, :, :80, :112], text).permute(0, 3, 1, 2)
    large = F.interpolate(F.interpolate(logits, (90, 120), mode="bilinear"), (90, 120))[0]
    assert torch.equal(plain, large.argmax(0))
    assert torch.equal(found, refine(large, image, 10).argmax(0))
    assert (found != plain).any()
