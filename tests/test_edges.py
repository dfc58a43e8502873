"""At the edge of what is allowed, and just past it."""

import numpy as np
import pytest
import torch
from PIL import Image

from scclip_core import SCCLIPConfig
from scclip_core.anomaly import flag_anomalies
from scclip_core.images import open_picture
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
