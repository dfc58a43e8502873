"""Pictures of every kind become upright RGB, or one clear line says why not."""

import gc

import numpy as np
import pytest
import torch
from PIL import Image

from scclip_core import images
from scclip_core.images import open_picture, to_tensor

STATISTICS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def pixel(image: Image.Image, at=(0, 0)) -> tuple[int, ...]:
    return open_picture(image).getpixel(at)


def test_grey_becomes_three_equal_channels():
    assert pixel(Image.new("L", (4, 4), 77)) == (77, 77, 77)
    assert pixel(Image.new("1", (4, 4), 1)) == (255, 255, 255)


def test_transparency_lies_over_white():
    assert pixel(Image.new("RGBA", (4, 4), (255, 0, 0, 0))) == (255, 255, 255)
    assert pixel(Image.new("RGBA", (4, 4), (255, 0, 0, 255))) == (255, 0, 0)
    assert pixel(Image.new("LA", (4, 4), (0, 0))) == (255, 255, 255)


def test_16_bit_values_are_spread_to_8_bit_by_their_full_range(tmp_path):
    for value, expected in ((0, 0), (200, 1), (65406, 254), (65407, 255), (65535, 255)):
        Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / "deep.png")
        assert open_picture(tmp_path / "deep.png").getpixel((0, 0)) == (expected,) * 3


def test_palettes_and_cmyk_become_rgb():
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(palette) == (10, 20, 30)
    assert open_picture(Image.new("CMYK", (2, 2))).mode == "RGB"


def test_exif_rotation_is_applied(tmp_path):
    image, exif = Image.new("RGB", (40, 20)), Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (20, 40)


def test_one_pixel_becomes_one_grid():
    assert to_tensor(Image.new("RGB", (1, 1)), 64, 16, *STATISTICS).shape == (3, 64, 64)


def test_a_wide_picture_keeps_its_aspect():
    tensor = to_tensor(Image.new("RGB", (20_000, 1_000)), 64, 16, *STATISTICS)
    assert tensor.shape == (3, 64, 1280)


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (223, 224), (17, 200)])
def test_sides_are_multiples_of_the_patch_and_nothing_is_cropped(size):
    tensor = to_tensor(Image.new("RGB", size), 96, 16, *STATISTICS)
    height, width = tensor.shape[1:]
    assert height % 16 == width % 16 == 0
    assert min(height, width) == 96
    assert abs(width / height / (size[0] / size[1]) - 1) <= 0.1


def test_values_are_normalised(picture):
    flat = to_tensor(Image.new("RGB", (32, 32), (255, 0, 128)), 32, 16, *STATISTICS)
    assert torch.allclose(
        flat[:, 0, 0], torch.tensor([2.0, -2.0, (128 / 255 - 0.5) / 0.25]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("text.png", b"not a picture", "is not a picture that can be read"),
        ("empty.jpg", b"", "is not a picture that can be read"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} {told}"):
        open_picture(tmp_path / name)


def test_a_truncated_picture_is_refused(tmp_path, picture):
    for suffix in ("png", "jpg"):
        file = tmp_path / f"half.{suffix}"
        picture.save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ValueError, match=f"half.{suffix} is not a picture that can be read"):
            open_picture(file)


def test_absurd_sizes_are_refused_before_decoding(tmp_path):
    with pytest.raises(ValueError, match="its longer side may be at most 32 times the shorter"):
        open_picture(Image.new("RGB", (2000, 10)))
    with pytest.raises(ValueError, match=r"at most 400,000,000 can be read"):
        open_picture(Image.new("1", (30_000, 20_000)))


def test_a_picture_of_just_the_largest_size_is_read(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert open_picture(Image.new("RGB", (10, 10))).size == (10, 10)
    with pytest.raises(ValueError, match="picture has 10 x 11 pixels; at most 100 can be read"):
        open_picture(Image.new("RGB", (10, 11)))


def test_missing_files_and_other_things_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="is not a picture that can be read"):
        open_picture(tmp_path)


@pytest.mark.parametrize("thing", [None, 3, b"bytes", ["a.png"], (32, 32)])
def test_what_is_no_kind_of_picture_is_a_type_error(thing):
    told = "picture must be a path, a PIL image, an array or a tensor, got " + type(thing).__name__
    with pytest.raises(TypeError, match=told):
        open_picture(thing)


@pytest.mark.parametrize("short_side", [0, 8, -16])
def test_a_short_side_below_one_patch_is_refused(model, picture, short_side):
    with pytest.raises(
        ValueError, match=f"short_side must be at least one patch, 16 pixels, got {short_side}"
    ):
        model.preprocess(picture, short_side)


def test_preprocess_gives_what_the_model_takes(model, picture):
    tensor = model.preprocess(picture)
    assert tensor.shape == (3, 128, 192)
    assert tensor.dtype == model.dtype
    assert model.grid_of(tensor[None]) == (8, 12)


@pytest.fixture
def values(picture):
    return np.asarray(picture)  # uint8 [60, 90, 3]


def test_arrays_and_tensors_are_the_picture_that_their_values_make(picture, values):
    channels_first = torch.from_numpy(values.copy()).permute(2, 0, 1)
    for same in (
        values,
        values / 255,
        (values / 255).astype(np.float32),
        np.asfortranarray(values),
        np.repeat(values, 2, axis=1)[:, ::2],
        channels_first,
        channels_first / 255,
        (channels_first / 255).requires_grad_(),
        channels_first.double() / 255,
    ):
        opened = open_picture(same)
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_to_its_own_precision(values, dtype):
    channels_first = torch.from_numpy(values.copy()).permute(2, 0, 1)
    opened = np.asarray(open_picture((channels_first / 255).to(dtype)), int)
    assert np.abs(opened - values).max() <= 1


def test_two_dimensions_are_grey_and_four_channels_are_transparency(values):
    grey = values[..., 0]
    for one in (grey, grey / 255, torch.from_numpy(grey.copy())):
        assert np.array_equal(np.asarray(open_picture(one)), np.stack([grey] * 3, -1))
    clear = np.dstack([values, np.zeros(values.shape[:2], np.uint8)])
    assert (np.asarray(open_picture(clear)) == 255).all()


def test_opening_an_array_does_not_change_it(values):
    array = values.copy()
    open_picture(array)
    open_picture(torch.from_numpy(array).permute(2, 0, 1))
    assert np.array_equal(array, values)


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"\[H, W\], \[H, W, 3\] .*, got shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 1), np.uint8), r"got shape \(8, 8, 1\)"),
        (np.zeros(8, np.uint8), r"got shape \(8,\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"got shape \(1, 8, 8, 3\)"),
        (np.zeros((8, 8, 3, 1), np.uint8), r"got shape \(8, 8, 3, 1\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got shape \(0, 8, 3\)"),
        (np.zeros((0, 8)), r"got shape \(0, 8\)"),
        (torch.zeros(8, 8, 3), r"\[H, W\] or \[3, H, W\], got shape \(8, 8, 3\)"),
        (torch.zeros(4, 8, 8), r"\[H, W\] or \[3, H, W\], got shape \(4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), r"got shape \(1, 3, 8, 8\)"),
        (np.full((8, 8, 3), 1.01), "floats from 0 to 1, got values outside; a normalised tensor"),
        (np.full((8, 8, 3), -0.01), "floats from 0 to 1, got values outside"),
        (np.full((8, 8, 3), np.nan), "floats from 0 to 1, got values outside"),
        (torch.full((3, 8, 8), torch.inf), r"a normalised tensor goes to segment\(images, classes"),
        (np.zeros((8, 8, 3), np.int64), "uint8 or floats from 0 to 1, got int64"),
        (np.zeros((8, 8, 3), bool), "uint8 or floats from 0 to 1, got bool"),
        (torch.zeros(3, 8, 8, dtype=torch.int16), "uint8 or floats from 0 to 1, got int16"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(thing, told):
    with pytest.raises(ValueError, match=f"picture must .*{told}"):
        open_picture(thing)


def test_the_ends_of_the_range_of_floats_are_black_and_white():
    assert open_picture(np.zeros((4, 4))).getpixel((0, 0)) == (0, 0, 0)
    assert open_picture(np.ones((4, 4, 3))).getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="picture is 0 x 0; it must have pixels"):
        open_picture(Image.new("RGB", (0, 0)))


def test_a_file_is_opened_by_a_string_and_by_a_path(tmp_path, picture, values):
    picture.save(tmp_path / "a.png")
    for name in (str(tmp_path / "a.png"), tmp_path / "a.png"):
        assert np.array_equal(np.asarray(open_picture(name)), values)


def test_an_error_names_the_file_that_an_image_was_opened_from(tmp_path):
    Image.new("L", (400, 10)).save(tmp_path / "wide.png")
    with (
        Image.open(tmp_path / "wide.png") as image,
        pytest.raises(ValueError, match=r"wide\.png is"),
    ):
        open_picture(image)


def test_the_smallest_short_side_is_one_patch(model, picture):
    assert model.preprocess(picture, 16).shape == (3, 16, 32)


def test_a_file_is_closed_and_pillows_limit_is_left_as_it_was(tmp_path, picture, recwarn):
    path, before = tmp_path / "two.gif", Image.MAX_IMAGE_PIXELS
    picture.save(path, save_all=True, append_images=[picture.rotate(90)])
    open_picture(path)
    gc.collect()
    assert before == Image.MAX_IMAGE_PIXELS is not None
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]
