"""What methods refuse: wrong shapes, precisions and types, told before anything is computed."""

import numpy as np
import pytest
import torch
from torch import nn

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig, load_clip, make_method
from scclip_core.gem import GEM
from scclip_core.last_block import NACLIP, Vanilla
from scclip_core.segmentation import label_map
from tests.conftest import CLASSES


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((3, 128, 128), "images must be .batch, 3, height, width., got shape .3, 128, 128."),
        ((3, 3, 128), "images must be .batch, 3, height, width."),
        ((1, 3, 128, 128, 1), "images must be .batch, 3, height, width."),
        ((1, 4, 128, 128), "images must be .batch, 3, height, width."),
        ((1, 1, 128, 128), "images must be .batch, 3, height, width."),
        ((0, 3, 128, 128), "images must be .batch, 3, height, width."),
        ((1, 3, 128, 120), "multiples of the patch, 16, got 128 x 120"),
        ((1, 3, 120, 128), "multiples of the patch, 16, got 120 x 128"),
        ((1, 3, 0, 16), "multiples of the patch, 16, got 0 x 16"),
    ],
)
def test_images_of_another_shape_are_refused(segmenter, shape, told):
    with pytest.raises(ValueError, match=told):
        segmenter.features(torch.zeros(shape))


def test_images_of_another_precision_are_refused_and_not_converted(segmenter, images):
    told = r"images must be torch.float32 on cpu like the model, got torch.float64 on cpu"
    with pytest.raises(ValueError, match=told):
        segmenter.features(images.double())


@pytest.mark.parametrize("shape", [(2, 7), (2, 25), (24,), (1, 2, 24), (2, 24, 1)])
def test_text_of_another_shape_is_refused(segmenter, images, shape):
    told = rf"text must be \[names, 24\], got shape \({', '.join(map(str, shape))}"
    with pytest.raises(ValueError, match=told):
        segmenter.logits(images, torch.zeros(shape))


FILE = "dog.png"
ARRAY = np.zeros((1, 3, 32, 32), np.float32)
NO_IMAGES = "call predict(picture, classes), or preprocess(picture) first"
NO_TEXT = "call names, text = embed_classes(classes) first"
NO_MODEL = "load one with load_clip(name, pretrained)"
# what is called, the argument that has a wrong type, what was given, what to do instead
WRONG = {
    "a path as images": (lambda s, _: s.features(FILE), "images", "str", NO_IMAGES),
    "an array as images": (lambda s, _: s.features(ARRAY), "images", "ndarray", NO_IMAGES),
    "a PIL image as images": (lambda s, p: s.features(p), "images", "Image", NO_IMAGES),
    "a call with a path": (lambda s, _: s(FILE), "images", "str", NO_IMAGES),
    "a list of images": (lambda s, _: s.segment([ARRAY], CLASSES), "images", "list", NO_IMAGES),
    "a picture to segment": (lambda s, p: s.segment(p, CLASSES), "images", "Image", NO_IMAGES),
    "a path to trace": (lambda s, _: s.trace(FILE, CLASSES), "images", "str", NO_IMAGES),
    "a path to cache": (lambda s, _: s.run_with_cache(FILE), "images", "str", NO_IMAGES),
    "a path to hooks": (lambda s, _: s.run_with_hooks(FILE, {}), "images", "str", NO_IMAGES),
    "words as text": (lambda s, _: s.logits(torch.zeros(1), CLASSES), "text", "list", NO_TEXT),
    "both embeddings as text": (
        lambda s, _: s.logits(torch.zeros(1), ([("dog",)], torch.zeros(1, 24))),
        "text",
        "tuple",
        NO_TEXT,
    ),
    "a string as classes to segment": (
        lambda s, _: s.segment(torch.zeros(1, 3, 32, 32), "dog, cat"),
        "classes",
        "'dog, cat'",
        "must be a list of names, such as ['dog', 'cat']",
    ),
    "a string as classes to predict": (
        lambda s, p: s.predict(p, "dog"),
        "classes",
        "'dog'",
        "must be a list of names",
    ),
    "a string as classes to trace": (
        lambda s, _: s.trace(torch.zeros(1, 3, 32, 32), "dog"),
        "classes",
        "'dog'",
        "must be a list of names",
    ),
    "a number as a picture": (
        lambda s, _: s.predict(3, CLASSES),
        "picture",
        "int",
        "must be a path, a PIL image, an array or a tensor",
    ),
    "a half window": (
        lambda s, p: s.predict(p, CLASSES, window=128.0),
        "window",
        "float 128.0",
        "must be a whole number of pixels",
    ),
    "a side in words": (
        lambda s, p: s.predict(p, CLASSES, short_side="128"),
        "short_side",
        "str '128'",
        "must be a whole number of pixels",
    ),
    "a stride in words": (
        lambda s, p: s.predict(p, CLASSES, stride="64"),
        "stride",
        "str '64'",
        "must be a whole number of pixels",
    ),
    "a dictionary as config": (
        lambda s, _: SCCLIP(s.model, {"beta": 0.5}),
        "config",
        "dict",
        "make one with SCCLIPConfig(name=value)",
    ),
    "a baseline's config": (
        lambda s, _: SCCLIP(s.model, Vanilla(s.model).config),
        "config",
        "BaselineConfig",
        "make one with SCCLIPConfig(name=value)",
    ),
    "a dictionary as a baseline's config": (
        lambda s, _: NACLIP(s.model, {"sigma": 3.0}),
        "config",
        "dict",
        "make one with NACLIPConfig(name=value)",
    ),
    "a config before the model": (
        lambda s, _: SCCLIP(SCCLIPConfig(), s.model),
        "config",
        "FrozenCLIP",
        "SCCLIPConfig",
    ),
    "a name as the model": (lambda s, _: SCCLIP("mini"), "model", "str", NO_MODEL),
    "no model": (lambda s, _: SCCLIP(None), "model", "NoneType", NO_MODEL),
    "another module as the model": (
        lambda s, _: GEM(nn.Linear(2, 2)),
        "model",
        "Linear",
        NO_MODEL,
    ),
    "a name as the model of make_method": (
        lambda s, _: make_method("gem", "mini"),
        "model",
        "str",
        NO_MODEL,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_is_told_with_what_to_call_instead_before_any_computing(
    case, segmenter, picture, monkeypatch
):
    call, argument, given, instead = WRONG[case]
    for computing in ("embed", "encode_text"):
        monkeypatch.setattr(FrozenCLIP, computing, lambda *_: pytest.fail("something was computed"))
    with pytest.raises(TypeError) as error:
        call(segmenter, picture)
    told = str(error.value)
    assert told.startswith(f"{argument} must be ")
    assert f"got {given}" in told
    assert instead in told
    assert "\n" not in told


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_refused_before_any_computing(method, images, value):
    broken = images.clone()
    broken[0, 0, 0, 0] = value
    for run in (method.features, lambda given: method.segment(given, ["car", "road"])):
        with pytest.raises(ValueError, match="images must be finite, got NaN or infinity"):
            run(broken)


@pytest.mark.parametrize("kind", [{"dtype": torch.int64}, {"device": "meta"}])
def test_text_of_another_kind_is_refused(segmenter, images, kind):
    with pytest.raises(ValueError, match="text must be floats on cpu like the model, got"):
        segmenter.logits(images, torch.ones(2, segmenter.model.embed_dim, **kind))


@pytest.mark.parametrize("device", ["cudaa", "hpu"])
def test_a_device_that_cannot_be_used_is_refused_before_weights_are_read(device):
    with pytest.raises(ValueError, match=f"device must be one that torch can use .*'{device}'"):
        load_clip("mini", device=device)


def test_logits_that_are_not_finite_are_refused(model):
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 1, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="logits must be finite, got NaN or infinity"):
        label_map(logits, (4, 4))
    images = torch.full((1, 3, 128, 128), 3e38)  # finite, and too large to compute with
    with pytest.raises(ValueError, match="logits must be finite"):
        make_method("values", model).segment(images, ["dog", "cat"])
