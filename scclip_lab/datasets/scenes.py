"""Emoji scenes: drawings composed on painted backgrounds, with their words and exact pixel labels.

A scene is a pure function of its seed. Training takes its scenes from one part of the seed space
and evaluation from others (`TRAIN`, `VALIDATION`, `TEST`), so that no evaluated scene was ever
trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from scclip_lab.datasets.atlas import HELD_OUT_STYLES, OBJECTS, TRAINING_STYLES, load_atlas
from scclip_lab.datasets.backgrounds import BACKGROUNDS

# 48 objects, then 8 backgrounds: the label of a pixel is an index into this.
WORDS = (*OBJECTS, *BACKGROUNDS)
N_OBJECTS = len(OBJECTS)
# The first entry of a scene's seed.
TRAIN, VALIDATION, TEST = 0, 1, 2
STYLES = {"training": TRAINING_STYLES, "held-out": HELD_OUT_STYLES}
# Longest side of an object as a share of the scene's side, by the number of objects.
SIZES = {1: (0.45, 0.75), 2: (0.36, 0.54), 3: (0.30, 0.46), 4: (0.27, 0.42)}
# What paints a background: (generator, word, side in pixels) -> float32 [side, side, 3].
Backdrop = Callable[[np.random.Generator, str, int], np.ndarray]
# What draws an object: (generator, style, word, longest side in pixels) -> float32 RGBA [h, w, 4].
Sprite = Callable[[np.random.Generator, str, str, float], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """A picture with its labels and words.

    Attributes:
        image: uint8 [H, W, 3].
        labels: uint8 [H, W], indices into `WORDS`.
        objects: the object words, in order of painting.
        background: the background word.
    """

    image: np.ndarray
    labels: np.ndarray
    objects: tuple[str, ...]
    background: str

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that is true of the scene."""
        return (*self.objects, self.background)


def paint(rng: np.random.Generator, word: str, side: int) -> np.ndarray:
    """A background, float32 [side, side, 3], as the painter of `word` makes it."""
    return BACKGROUNDS[word](rng, side, side)


def draw(rng: np.random.Generator, style: str, word: str, size: float) -> np.ndarray:
    """An object as float32 RGBA [h, w, 4]: flipped, scaled, turned and recoloured at random.

    `size` is the longest side before turning, in pixels.
    """
    drawing = load_atlas()[style, word]
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = max(8, round(size))
    drawing = drawing.resize((pixels, pixels), Image.Resampling.BILINEAR)
    drawing = drawing.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
    sprite = np.asarray(drawing, np.float32).copy()
    sprite[..., :3] = sprite[..., :3] * rng.normal(1, 0.08, 3) + rng.normal(0, 8)
    return sprite


def make_scene(
    rng: np.random.Generator,
    side: int = 224,
    counts: Sequence[int] = (1, 2, 3, 4),
    styles: Sequence[str] = TRAINING_STYLES,
    sizes: dict[int, tuple[float, float]] = SIZES,
    backdrop: Backdrop = paint,
    sprite: Sprite = draw,
) -> Scene:
    """Compose a scene: a background, then different objects, each in a style of its own.

    Every object is placed where it hides least of the objects that are there already.

    Args:
        rng: the source of every random choice.
        side: of the scene, in pixels.
        counts: numbers of objects, of which one is drawn.
        styles: drawing styles, of which one is drawn for each object.
        sizes: number of objects -> range of their longest side as a share of `side`.
        backdrop, sprite: what paints the background and what draws an object.
    """
    background = str(rng.choice(list(BACKGROUNDS)))
    canvas = backdrop(rng, background, side) * rng.uniform(0.85, 1.15)
    labels = np.full((side, side), WORDS.index(background), np.uint8)
    count = int(rng.choice(counts))
    chosen = rng.choice(N_OBJECTS, count, replace=False)
    for index in chosen:
        style = str(rng.choice(styles))
        drawn = sprite(rng, style, WORDS[index], side * rng.uniform(*sizes[count]))
        _place(rng, canvas, labels, drawn, int(index))
    visible = [int(i) for i in chosen if (labels == i).any()]
    image = np.clip(canvas * rng.uniform(0.9, 1.1) + rng.normal(0, 3, 3), 0, 255).astype(np.uint8)
    return Scene(image, labels, tuple(WORDS[i] for i in visible), background)


def evaluation_scene(
    split: int, seed: int, index: int, style: str = "training", **options: Any
) -> Scene:
    """Scene number `index` of an evaluation set.

    Args:
        split: `VALIDATION` or `TEST`.
        seed: of the set.
        index: of the scene in the set.
        style: "training", or "held-out" for the style that no training saw.
        options: those of `make_scene`.

    Raises ValueError for another split or style.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if split not in (VALIDATION, TEST):
        raise ValueError(f"split must be VALIDATION ({VALIDATION}) or TEST ({TEST}), got {split!r}")
    rng = np.random.default_rng((split, seed, index, list(STYLES).index(style)))
    return make_scene(rng, styles=STYLES[style], **options)


def _place(
    rng: np.random.Generator,
    canvas: np.ndarray,
    labels: np.ndarray,
    sprite: np.ndarray,
    index: int,
) -> None:
    """Paste `sprite` at that of 16 random places where it hides fewest object pixels.

    Changes `canvas` and `labels` in place.
    """
    side = len(canvas)
    sprite = sprite[:side, :side]
    h, w = sprite.shape[:2]
    places = [(int(rng.integers(side - h + 1)), int(rng.integers(side - w + 1))) for _ in range(16)]
    hidden = [np.count_nonzero(labels[r : r + h : 4, c : c + w : 4] < N_OBJECTS) for r, c in places]
    row, col = places[int(np.argmin(hidden))]
    alpha = sprite[..., 3:] / 255
    target = canvas[row : row + h, col : col + w]
    target += alpha * (sprite[..., :3] - target)
    labels[row : row + h, col : col + w][alpha[..., 0] > 0.5] = index
