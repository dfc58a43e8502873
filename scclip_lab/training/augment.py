"""Stronger variation of the drawings, for training only.

The drawing styles differ in shading and outline, and one style is never trained on. Flattened
colours and free changes of hue, contrast and shape keep the model from relying on either.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from scclip_lab.datasets.atlas import load_atlas

# (number of colours, radius of the median filter before): how drawings are flattened.
FLATTENED = ((4, 0), (6, 3), (10, 3))


@cache
def variants(style: str, word: str) -> tuple[Image.Image, ...]:
    """A drawing as it is, in few flat colours (three times), and blurred; RGBA each."""
    drawing = load_atlas()[style, word]
    alpha, rgb = drawing.getchannel("A"), drawing.convert("RGB")
    found = [drawing]
    for colours, median in FLATTENED:
        smooth = rgb.filter(ImageFilter.MedianFilter(median)) if median else rgb
        method = Image.Quantize.MEDIANCUT
        flat = smooth.quantize(colours, method=method, dither=Image.Dither.NONE).convert("RGB")
        flat.putalpha(alpha)
        found.append(flat)
    blurred = rgb.filter(ImageFilter.GaussianBlur(1.6))
    blurred.putalpha(alpha)
    return (*found, blurred)


def draw_varied(rng: np.random.Generator, style: str, word: str, size: float) -> np.ndarray:
    """An object as float32 RGBA [h, w, 4]: flattened, flipped, turned, sheared, recoloured.

    `size` is the longest side before turning, in pixels.
    """
    found = variants(style, word)
    drawing = found[0] if rng.random() < 0.5 else found[1 + int(rng.integers(len(found) - 1))]
    pixels = max(8.0, size)
    if pixels < 0.8 * drawing.width:
        # Reduced first, since an affine map of Pillow's does not average the pixels it skips.
        drawing = drawing.resize((max(8, round(pixels)),) * 2, Image.Resampling.BILINEAR)
    scale = pixels / drawing.width
    angle, shear = np.deg2rad(rng.uniform(-22, 22)), rng.normal(0, 0.08)
    wide, tall = np.exp(rng.normal(0, 0.09, 2))
    flip = -1 if rng.random() < 0.5 else 1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = scale * turn @ np.array([[flip * wide, shear], [0, tall]])
    centre = np.array(drawing.size) / 2
    w, h = (int(2 * half) + 1 for half in np.abs(forward) @ centre)
    inverse = np.linalg.inv(forward)
    offset = centre - inverse @ np.array([w / 2, h / 2])
    matrix = (*inverse[0], offset[0], *inverse[1], offset[1])
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    sprite = np.asarray(drawing.transform((w, h), affine, matrix, bilinear), np.float32).copy()
    sprite[..., :3] = recolour(rng, sprite[..., :3])
    return sprite


def recolour(rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
    """Colours [..., 3] in 0..255 with random hue, saturation, gamma, gain and offset; float32."""
    colours = rgb / np.float32(255)
    if rng.random() < 0.7:
        saturation = rng.uniform(0.5, 1.4) if rng.random() < 0.9 else 0.0
        hue = hue_rotation(rng.normal(0, 0.25))
        matrix = saturation * hue + (1 - saturation) * np.full((3, 3), 1 / 3)
        colours = colours @ matrix.T.astype(np.float32)
    if rng.random() < 0.7:
        colours = np.clip(colours, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    gain = np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    offset = (rng.normal(0, 0.06, 3) + rng.normal(0, 0.05)).astype(np.float32)
    return 255 * (colours * gain + offset)


def hue_rotation(angle: float) -> np.ndarray:
    """The rotation by `angle` (radians) about the grey axis of RGB space, [3, 3].

    Rodrigues: R = cos(a) I + (1 - cos(a)) u u^T + sin(a) [u]_x, where u = (1, 1, 1) / sqrt(3)
    """
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    outer = np.full((3, 3), 1 / 3)
    return np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * outer + np.sin(angle) * cross
