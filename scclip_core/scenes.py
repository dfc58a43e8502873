"""Emoji scenes: drawings composed on textured backgrounds, with the words that describe them and exact pixel
labels.

A scene is a pure function of its seed. Training draws its scenes from one part of the seed space and
evaluation from others (`TRAIN`, `VALIDATION`, `TEST`), so that no evaluated scene was ever trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from scclip_core.atlas import HELD_OUT_STYLES, OBJECTS, TRAINING_STYLES, load_atlas
from scclip_core.backgrounds import BACKGROUNDS

WORDS = (*OBJECTS, *BACKGROUNDS)  # 48 objects, then 8 backgrounds: the label of a pixel is an index into this
N_OBJECTS = len(OBJECTS)
TRAIN, VALIDATION, TEST = 0, 1, 2  # first entry of a scene's seed
STYLES = {"training": TRAINING_STYLES, "held-out": HELD_OUT_STYLES}

# longest side of an object as a share of the scene's side, by how many objects there are
SIZES = {1: (0.45, 0.75), 2: (0.36, 0.54), 3: (0.30, 0.46), 4: (0.27, 0.42)}


@dataclass(frozen=True)
class Scene:
    """`image` [H, W, 3] uint8; `labels` [H, W] uint8, indices into `WORDS`; the object words, in order of
    painting.
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
    """A background [side, side, 3] float32, as the painter of `word` makes it."""
    return BACKGROUNDS[word](rng, side, side)


def make_scene(
    rng: np.random.Generator,
    side: int = 224,
    counts: Sequence[int] = (1, 2, 3, 4),
    styles: Sequence[str] = TRAINING_STYLES,
    sizes: dict[int, tuple[float, float]] = SIZES,
    backdrop: Callable[[np.random.Generator, str, int], np.ndarray] = paint,
) -> Scene:
    """Compose one scene: a background, then 1 to 4 different objects, each in a style drawn for itself.

    Objects are flipped at random, turned by up to 20 degrees, jittered in colour, and placed where they hide
    least of what is there. `counts` are the numbers of objects to draw from, `sizes` the ranges of their
    longest side as a share of `side` (pixels), `backdrop` paints the background.
    """
    background = str(rng.choice(list(BACKGROUNDS)))
    canvas = backdrop(rng, background, side) * rng.uniform(0.85, 1.15)
    labels = np.full((side, side), WORDS.index(background), np.uint8)
    count = int(rng.choice(counts))
    chosen = rng.choice(N_OBJECTS, count, replace=False)
    for index in chosen:
        drawing = load_atlas()[str(rng.choice(styles)), WORDS[index]]
        _place(rng, canvas, labels, _vary(rng, drawing, side * rng.uniform(*sizes[count])), int(index))
    seen = [int(i) for i in chosen if (labels == i).any()]
    image = np.clip(canvas * rng.uniform(0.9, 1.1) + rng.normal(0, 3, 3), 0, 255).astype(np.uint8)
    return Scene(image, labels, tuple(WORDS[i] for i in seen), background)


def evaluation_scene(split: int, seed: int, index: int, style: str = "training", **options) -> Scene:
    """Scene `index` of an evaluation set: `split` is VALIDATION or TEST, `style` is "training" or
    "held-out".
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if split == TRAIN:
        raise ValueError(f"split must be VALIDATION ({VALIDATION}) or TEST ({TEST}), got TRAIN ({TRAIN})")
    rng = np.random.default_rng((split, seed, index, list(STYLES).index(style)))
    return make_scene(rng, styles=STYLES[style], **options)


def _vary(rng: np.random.Generator, drawing: Image.Image, size: float) -> np.ndarray:
    """A flipped, scaled, turned and recoloured drawing, float32 [h, w, 4]."""
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = max(8, round(size))
    drawing = drawing.resize((pixels, pixels), Image.Resampling.BILINEAR)
    drawing = drawing.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
    sprite = np.asarray(drawing, np.float32).copy()
    sprite[..., :3] = sprite[..., :3] * rng.normal(1, 0.08, 3) + rng.normal(0, 8)
    return sprite


def _place(
    rng: np.random.Generator, canvas: np.ndarray, labels: np.ndarray, sprite: np.ndarray, index: int
) -> None:
    """Paste `sprite` where it hides fewest object pixels among 16 random places; writes `canvas` and
    `labels`.
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
