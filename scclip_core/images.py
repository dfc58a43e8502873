"""Pictures of every kind as upright RGB, and as the tensor that a CLIP takes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Picture = Image.Image | str | Path | np.ndarray | Tensor
# 20,000 x 20,000 pixels: larger pictures are refused before they are decoded.
MAX_PIXELS = 400_000_000
# Longest side over shortest.
MAX_ASPECT = 32
# Held while Pillow's own limit, which is one for the whole process, is replaced.
_PILLOW = Lock()


def open_picture(picture: Picture) -> Image.Image:
    """A picture as upright 8-bit RGB.

    EXIF rotation is applied, transparency is laid over white, and 16-bit values are scaled to
    0..255.

    Args:
        picture: a path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor
            [H, W] or [3, H, W]; arrays and tensors hold uint8, or floats from 0 to 1.

    Raises TypeError for anything else; ValueError, naming the file, for what is no picture, is
    truncated, or is larger than the limits.
    """
    if isinstance(picture, np.ndarray | Tensor):
        picture = _from_values(picture)
    if not isinstance(picture, Image.Image | str | Path):
        kinds = "a path, a PIL image, an array or a tensor"
        raise TypeError(f"picture must be {kinds}, got {type(picture).__name__}")
    if isinstance(picture, Image.Image):
        name = getattr(picture, "filename", "") or "picture"
    else:
        name = str(picture)
    try:
        if isinstance(picture, Image.Image):
            image = _upright(picture, name)
        else:
            with _no_limit_of_pillow(), Image.open(picture) as opened:
                image = _upright(opened, name)
    except FileNotFoundError:
        raise ValueError(f"{name} does not exist") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name} is not a picture that can be read ({error})") from error
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") else 255
        image = Image.fromarray(np.clip(values * 255 / top, 0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image, name: str) -> Image.Image:
    """A decoded copy of a picture with its EXIF rotation applied, if it is within the limits."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {width} x {height} pixels; at most {MAX_PIXELS:,} can be read"
        )
    if min(width, height) < 1:
        raise ValueError(f"{name} is {width} x {height}; it must have pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"{name} is {width} x {height}; "
            f"its longer side may be at most {MAX_ASPECT} times the shorter"
        )
    image.load()
    return ImageOps.exif_transpose(image)


@contextmanager
def _no_limit_of_pillow() -> Iterator[None]:
    """Pillow's own limit of pixels is replaced by `MAX_PIXELS`, which has a message of its own."""
    with _PILLOW:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _from_values(picture: np.ndarray | Tensor) -> Image.Image:
    """An array, or a tensor with its channels first, as a PIL image."""
    channels: tuple[int, ...]
    if isinstance(picture, Tensor):
        tensor = picture.detach().cpu()
        # NumPy has no bfloat16.
        tensor = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
        values = (tensor.movedim(0, -1) if tensor.ndim == 3 else tensor).numpy()
        allowed, channels = "[H, W] or [3, H, W]", (3,)
    else:
        values = picture
        allowed, channels = "[H, W], [H, W, 3] or [H, W, 4]", (3, 4)
    fits = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in channels)
    if not fits or values.size == 0:
        raise ValueError(f"picture must be {allowed}, got shape {tuple(picture.shape)}")
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 1):
            raise ValueError(
                "picture must hold floats from 0 to 1, got values outside; "
                "a normalised tensor goes to segment(images, classes)"
            )
        values = np.round(255 * values).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ValueError(f"picture must hold uint8 or floats from 0 to 1, got {values.dtype}")
    return Image.fromarray(np.ascontiguousarray(values))


def to_tensor(
    picture: Picture,
    short_side: int,
    patch: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """A picture as a normalised float32 tensor [3, H, W], resized bicubically.

    Both sides are multiples of `patch`, the shorter one is about `short_side` pixels. Raises
    ValueError for a `short_side` below one patch, and what `open_picture` raises.
    """
    if short_side < patch:
        raise ValueError(f"short_side must be at least one patch, {patch} pixels, got {short_side}")
    image = open_picture(picture)
    scale = short_side / min(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # [H, W, 3] -> [3, H, W]
    return normalise(values, mean, std)


def normalise(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(values / 255 - mean) / std of every channel, uint8 [..., 3, H, W] -> float32."""
    means, deviations = (torch.tensor(one).view(3, 1, 1) for one in (mean, std))
    return (values.float() / 255 - means) / deviations
