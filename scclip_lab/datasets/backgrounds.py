"""Eight procedural backgrounds.

A painter takes a NumPy generator, a height and a width in pixels, and returns a float32 picture
[H, W, 3] with values around 0..255. Nothing is cached: the same generator state paints the same
picture.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

Painter = Callable[[np.random.Generator, int, int], np.ndarray]


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float, stretch: float = 1.0
) -> np.ndarray:
    """Smooth noise [H, W]: a coarse grid of standard normal values, enlarged bicubically.

    `cell` is the width of a grid cell in pixels; its height is `stretch` times its width.
    """
    shape = (int(height / (cell * stretch)) + 3, int(width / cell) + 3)
    grid = rng.standard_normal(shape).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _tint(rng: np.random.Generator, rgb: tuple[int, int, int], std: float = 14.0) -> np.ndarray:
    return np.asarray(rgb, np.float32) + rng.normal(0, std, 3).astype(np.float32)


def _shade(colour: np.ndarray, relief: np.ndarray) -> np.ndarray:
    return colour + relief[..., None] * np.float32(1)  # [3] + [H, W, 1] -> [H, W, 3]


def grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    blades = 20 * noise(rng, height, width, 1.6, 4) + 12 * noise(rng, height, width, 4, 2)
    return _shade(_tint(rng, (92, 150, 58)), blades + 10 * noise(rng, height, width, 60))


def sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    rows = np.arange(height, dtype=np.float32)[:, None]
    ripples = 7 * np.sin(rows / rng.uniform(2.5, 4.5) + 2.5 * noise(rng, height, width, 50))
    return _shade(_tint(rng, (216, 186, 132)), ripples + 9 * noise(rng, height, width, 1.2))


def water(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    rows = np.arange(height, dtype=np.float32)[:, None]
    waves = np.sin(rows / rng.uniform(2.5, 5) + 3 * noise(rng, height, width, 22, 0.5))
    return _shade(_tint(rng, (38, 110, 178)), 26 * waves + 14 * noise(rng, height, width, 30, 0.5))


def snow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    hollows = 9 * noise(rng, height, width, 28)
    picture = _shade(_tint(rng, (214, 222, 234), 6), hollows + 3 * noise(rng, height, width, 1.5))
    picture[rng.random((height, width)) < 0.012] = 255
    return picture


def bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    tall, wide, joint = int(rng.integers(12, 20)), int(rng.integers(28, 44)), 2
    rows, cols = np.arange(height) + rng.integers(tall), np.arange(width) + rng.integers(wide)
    course = rows // tall
    # Every second course is shifted by half a brick.
    across = cols[None, :] + (course[:, None] % 2) * (wide // 2)
    brick = rng.normal(0, 13, (course.max() + 1, across.max() // wide + 1)).astype(np.float32)
    relief = brick[course[:, None], across // wide] + 6 * noise(rng, height, width, 2)
    picture = _shade(_tint(rng, (168, 76, 58)), relief)
    mortar = (rows % tall < joint)[:, None] | (across % wide < joint)
    picture[mortar] = _tint(rng, (188, 180, 170), 8)
    return picture


def wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    plank = int(rng.integers(26, 48))
    cols = np.arange(width) + rng.integers(plank)
    board = rng.normal(0, 12, cols.max() // plank + 1).astype(np.float32)[cols // plank]
    waves = 11 * np.sin(cols / 2.2 + 4 * noise(rng, height, width, 16, 6))
    grain = waves + 8 * noise(rng, height, width, 1.5, 10)
    picture = _shade(_tint(rng, (150, 102, 60)), grain + board)
    picture[:, cols % plank == 0] *= 0.5
    return picture


def night(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    picture = _shade(_tint(rng, (17, 20, 52), 6), 7 * noise(rng, height, width, 50))
    stars = rng.random((height, width)) < 0.006
    picture[stars] = rng.uniform(150, 255, (int(stars.sum()), 1))
    return picture


def sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    large, small = noise(rng, height, width, 34, 0.6), noise(rng, height, width, 9, 0.6)
    cloud = np.clip(0.55 * (large + 0.4 * small), 0, 1)
    column = np.linspace(0, rng.uniform(10, 40), height, dtype=np.float32)[:, None]
    fade = column + np.zeros((1, width), np.float32)
    blue = _shade(_tint(rng, (112, 176, 236), 10), fade)
    return blue + cloud[..., None] * (250 - blue)


BACKGROUNDS: dict[str, Painter] = {
    "grass": grass,
    "sand": sand,
    "water": water,
    "snow": snow,
    "bricks": bricks,
    "wood": wood,
    "night": night,
    "sky": sky,
}
