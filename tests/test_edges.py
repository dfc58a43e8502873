"""At the edge of what is allowed, and just past it."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig, load_clip, make_method, segmentation
from scclip_core.anomaly import flag_anomalies
from scclip_core.baselines import METHODS
from scclip_core.images import open_picture
from scclip_core.segmentation import best_class
from scclip_core.text import embed_names

ALLOWED = [
    ("lof_neighbors", 1),
    ("contamination", 0.5),
    ("beta", -1),
    ("beta", 1),
    ("mix", 0),
    ("mix", 1.0),
    ("res_cls", 0),
    ("content_gain", 1e-9),
    ("multi_start_idx", 9),
]


@pytest.mark.parametrize(("field", "value"), ALLOWED)
def test_the_ends_of_a_range_are_allowed(field, value):
    assert getattr(SCCLIPConfig(**{field: value}), field) == value


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), True, None, "0.1", torch.ones(1)]
)
@pytest.mark.parametrize("field", ["contamination", "beta", "content_gain", "mix", "res_cls"])
def test_what_is_no_finite_number_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        SCCLIPConfig(**{field: value})


@pytest.mark.parametrize("value", [True, 3.0, -1, None, "3"])
@pytest.mark.parametrize(
    "field", ["lof_neighbors", "pre_adjust_idx", "post_adjust_idx", "multi_start_idx"]
)
def test_what_is_no_index_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a whole number"):
        SCCLIPConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("mix", 1.01), ("beta", -1.01), ("contamination", 0.501)]
)
def test_just_past_the_end_is_refused_with_the_value_given(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be in .*, got {value}"):
        SCCLIPConfig(**{field: value})


@pytest.mark.parametrize("anomalies", [0.01, 0.05, 0.5])
def test_at_most_the_share_asked_for_is_flagged_and_equal_scores_never(anomalies):
    scores = torch.tensor([[1.0] * 40, [*range(40)]])
    flagged = flag_anomalies(scores, anomalies)
    assert not flagged[0].any()
    assert 0 < flagged[1].sum() <= max(1, anomalies * 40)
    assert flagged[1, -1]  # the highest score first of all


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-5.0, 0), (0.4, 0), (127.6, 128), (254.4, 254), (255.0, 255), (1e6, 255)],
)
def test_grey_in_floating_point_is_read_as_0_to_255(value, expected):
    image = Image.fromarray(np.full((4, 4), value, np.float32))
    assert image.mode == "F"
    assert open_picture(image).getpixel((0, 0)) == (expected,) * 3


def test_32_bit_grey_above_the_16_bit_range_is_white():
    image = Image.fromarray(np.full((4, 4), 100_000, np.int32))
    assert open_picture(image).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "fits"), [((320, 10), True), ((321, 10), False), ((10, 320), True), ((10, 321), False)]
)
def test_the_longer_side_is_at_most_32_times_the_shorter(size, fits):
    image = Image.new("L", size)
    if fits:
        assert open_picture(image).size == size
    else:
        with pytest.raises(
            ValueError, match=f"picture is {size[0]} x {size[1]}; .* at most 32 times"
        ):
            open_picture(image)


def test_opening_a_picture_does_not_change_it():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 100))
    before = image.tobytes()
    open_picture(image)
    assert (image.mode, image.tobytes()) == ("RGBA", before)


def test_a_name_asked_for_twice_is_embedded_alike(model):
    embedded = embed_names(model, ["dog", "cat", "dog"], ("{}",))
    assert embedded.shape == (3, 24)
    assert torch.equal(embedded[0], embedded[2])


def test_near_and_far_needs_no_crop(model):
    row = torch.randn(1, 3, 16, 64, generator=torch.Generator().manual_seed(0))
    assert SCCLIPConfig.adapt(model, row).rule == "near and far"
    with pytest.raises(ValueError, match="at least 2 x 2 patches, got 1 x 4"):
        SCCLIPConfig.adapt(model, row, ["car", "road"])


@pytest.mark.parametrize("variant", ["standard", "published"])
@pytest.mark.parametrize("side", [48, 64, 80])  # 9, 16 and 25 patches, fewer than 31
def test_a_long_token_is_flagged_on_a_small_grid(variant, side):
    segmenter = SCCLIP(load_clip("mini"), SCCLIPConfig(lof=variant))
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    flags = []

    def lengthen(tokens):
        return torch.cat([tokens[:, :1], 5 * tokens[:, 1:2], tokens[:, 2:]], 1)

    hooks = {"blocks.10.hook_resid_post": lengthen, "stage3.anomalous": flags.append}
    segmenter.run_with_hooks(images, hooks)
    assert flags[0][:, 0].all() and (flags[0].sum(1) <= 2).all()


@pytest.mark.parametrize("side", [16, (16, 32)])
def test_one_or_two_patches_are_kept_as_they_are(side):
    shape = (side, side) if isinstance(side, int) else side
    images = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    _, cache = SCCLIP(load_clip("mini")).run_with_cache(images)
    assert not any(name.startswith("stage3") for name in cache)


def test_a_model_of_two_dtypes_is_refused():
    clip = open_clip.create_model("ViT-B-32", precision="fp32")
    clip.visual.conv1.half()
    with pytest.raises(ValueError, match=r"one dtype, odd has torch\.float16 and"):
        FrozenCLIP(clip, "odd")


def test_numbers_of_numpy_are_numbers_for_every_method():
    model = load_clip("mini")
    for name, given in {
        "naclip": {"sigma": np.float64(5)},
        "gem": {"iterations": np.int64(1)},
        "resclip": {"first": np.int64(6), "sigma": np.float32(3)},
        "rfclip": {"factor": np.float64(2)},
        "registers": {"count": np.int64(1)},
    }.items():
        make_method(name, model, **given).features(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match="sigma must be a number > 0"):
        make_method("naclip", model, sigma=float("inf"))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_segments_in_float64(name):
    model = load_clip("mini", precision="fp64")
    images = torch.zeros(1, 3, 48, 48, dtype=torch.float64)
    assert make_method(name, model).segment(images, ["dog", "cat"]).shape == (1, 48, 48)


def test_logits_that_are_not_finite_are_refused_for_pictures_too():
    logits = torch.full((2, 3, 3), torch.nan)
    with pytest.raises(ValueError, match="logits must be finite"):
        best_class(logits, [("dog",), ("cat",)], (6, 6))


def test_large_pictures_take_fewer_classes_at_once(monkeypatch):
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    classes = [("a", "b"), ("c",), ("d",), ("e",)]
    value, label = best_class(logits, classes, (12, 16))
    monkeypatch.setattr(segmentation, "PIXELS_AT_ONCE", 12 * 16 * 2)
    for found, wanted in zip(best_class(logits, classes, (12, 16)), (value, label), strict=True):
        assert torch.equal(found, wanted)


def test_half_precision_and_nothing_at_all():
    model = load_clip("mini")
    text = SCCLIP(model).embed_classes(["dog", "cat"])[1]
    assert SCCLIP(model).logits(torch.zeros(1, 3, 48, 48), text.half()).dtype == torch.float32
    assert flag_anomalies(torch.tensor([[1.0, 1, 1, 9]]).half(), 0.2).tolist()[0][3]
    for call in (lambda: embed_names(model, [], ("{}",)), lambda: model.encode_text([])):
        with pytest.raises(ValueError, match="must hold at least one"):
            call()
    with pytest.raises(ValueError, match="images must have two patches or more, these have one"):
        SCCLIPConfig.adapt(model, torch.zeros(1, 3, 16, 16))
