"""Pictures of every kind, brought to one: upright RGB, and the tensor that a CLIP wants."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Picture = Image.Image | str | Path
MAX_PIXELS = 400_000_000  # 20,000 x 20,000: larger pictures are refused before they are decoded
MAX_ASPECT = 32  # longest side over shortest

Image.MAX_IMAGE_PIXELS = None  # the limit above is checked here, with a message of our own


def open_picture(picture: Picture) -> Image.Image:
    """A picture or its path as upright 8-bit RGB: EXIF rotation applied, transparency laid over white, grey
    and 16-bit values spread to 0..255.

    Raises ValueError, naming the file, for what is no picture, is truncated, or is larger than the limits.
    """
    if not isinstance(picture, Image.Image | str | Path):
        raise ValueError(f"picture must be a PIL image or a path, got {type(picture).__name__}")
    name = getattr(picture, "filename", "") or "picture" if isinstance(picture, Image.Image) else str(picture)
    try:
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS:,} can be read")
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ValueError(
                f"{name} is {width} x {height}; its longer side may be at most {MAX_ASPECT} times the shorter"
            )
        image.load()
        image = ImageOps.exif_transpose(image)
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


def to_tensor(
    picture: Picture,
    short_side: int,
    patch: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Tensor:
    """A normalised float32 tensor [3, H, W]; both sides are multiples of `patch`, the shorter about
    `short_side` pixels.

    Raises ValueError for a `short_side` below one patch, or a picture that `open_picture` refuses.
    """
    if short_side < patch:
        raise ValueError(f"short_side must be at least one patch, {patch} pixels, got {short_side}")
    image = open_picture(picture)
    scale = short_side / min(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # [H, W, 3] -> [3, H, W]
    return (tensor - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
