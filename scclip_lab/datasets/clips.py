"""Posed emoji: pictures and short clips in which every object's mask, box and pose are known.

A pose says how a drawing of the atlas is laid into a picture. It maps points both ways, so that
two poses of one drawing give exact correspondences, and poses that move give a clip. Objects are
instances here: a picture may show the same word twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from scclip_lab.datasets.atlas import TRAINING_STYLES, load_atlas
from scclip_lab.datasets.backgrounds import BACKGROUNDS
from scclip_lab.datasets.scenes import N_OBJECTS, SIZES, TEST, VALIDATION, WORDS, paint

# What a random generator may be asked for; its number keeps the sets apart.
KINDS = ("stills", "examples", "pairs", "clips")
# Pixels that the view of a clip may wander over its background, in either direction.
MARGIN = 24


@dataclass(frozen=True)
class Pose:
    """How one object is drawn.

    Attributes:
        word, style: which drawing of the atlas.
        centre: (row, column) of its centre in the picture, in pixels from the upper left corner.
        size: side of the drawing's square before turning, in pixels.
        angle: by which it is turned counter-clockwise, in degrees.
        flip: whether it is mirrored, left for right, before turning.
        tint: factors of red, green and blue.
    """

    word: str
    style: str
    centre: tuple[float, float]
    size: float
    angle: float = 0.0
    flip: bool = False
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def sprite(self) -> np.ndarray:
        """The drawing as it is pasted, float32 RGBA [h, w, 4]."""
        drawing = load_atlas()[self.style, self.word]
        if self.flip:
            drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = max(8, round(self.size))
        drawing = drawing.resize((pixels, pixels), Image.Resampling.BILINEAR)
        drawing = drawing.rotate(self.angle, Image.Resampling.BILINEAR, expand=True)
        drawn = np.asarray(drawing, np.float32).copy()
        drawn[..., :3] *= np.asarray(self.tint, np.float32)
        return drawn

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points of the drawing as pixels of the picture, (row, column) each, [K, 2] -> [K, 2].

        The drawing's square reaches from -1 to 1 in both directions.
        """
        row, col = points.T * np.array([[1], [-1 if self.flip else 1]])
        cos, sin = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        turned = np.stack([cos * row - sin * col, sin * row + cos * col], 1)
        return np.asarray(self.centre) + self.size / 2 * turned

    def to_drawing(self, pixels: np.ndarray) -> np.ndarray:
        """The inverse of `to_picture`, [K, 2] -> [K, 2]."""
        row, col = ((pixels - np.asarray(self.centre)) * 2 / self.size).T
        cos, sin = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        across = cos * col - sin * row
        return np.stack([cos * row + sin * col, -across if self.flip else across], 1)


@dataclass(frozen=True)
class Clip:
    """Pictures with the instance that every pixel shows; a still is a clip of one frame.

    Attributes:
        images: uint8 [T, H, W, 3].
        instances: uint8 [T, H, W], 0 for the background, i for object number i, counted from 1.
        words: the word of every object, in the order of painting; the same word may be there twice.
        background: the background word.
        poses: of every object, for each frame.
    """

    images: np.ndarray
    instances: np.ndarray
    words: tuple[str, ...]
    background: str
    poses: tuple[tuple[Pose, ...], ...]

    @property
    def labels(self) -> np.ndarray:
        """The word of every pixel, uint8 [T, H, W], indices into `WORDS`."""
        numbers = [WORDS.index(word) for word in (self.background, *self.words)]
        return np.array(numbers, np.uint8)[self.instances]

    @property
    def has_twins(self) -> bool:
        """Whether two objects have the same word."""
        return len(set(self.words)) < len(self.words)


def generator(kind: str, split: int, seed: int, index: int) -> np.random.Generator:
    """The source of random choices of number `index` of a set of pictures.

    Raises ValueError for a kind that is not one of `KINDS`, or a split that is not for evaluation.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if split not in (VALIDATION, TEST):
        raise ValueError(f"split must be VALIDATION ({VALIDATION}) or TEST ({TEST}), got {split!r}")
    return np.random.default_rng((split, seed, index, 100 + KINDS.index(kind)))


def choose_words(
    rng: np.random.Generator, counts: Sequence[int], twins: float = 0.0
) -> tuple[str, ...]:
    """Words of a picture: one of `counts` objects, all different, or two of them the same.

    `twins` is the chance that the second object has the word of the first.
    """
    count = int(rng.choice(counts))
    words = [WORDS[i] for i in rng.choice(N_OBJECTS, count, replace=False)]
    if rng.random() < twins and count > 1:
        words[1] = words[0]
    return tuple(words)


def random_pose(
    rng: np.random.Generator, word: str, styles: Sequence[str], size: float, side: int
) -> Pose:
    """A pose as scenes have them: anywhere within the picture, turned by up to 20 degrees."""
    reach = min(size / 2, side / 2)
    centre = (float(rng.uniform(reach, side - reach)), float(rng.uniform(reach, side - reach)))
    red, green, blue = rng.normal(1, 0.08, 3).tolist()
    angle, flip = float(rng.uniform(-20, 20)), bool(rng.random() < 0.5)
    style = str(rng.choice(list(styles)))
    return Pose(word, style, centre, size, angle, flip, (red, green, blue))


def place_objects(
    rng: np.random.Generator,
    words: Sequence[str],
    styles: Sequence[str],
    sizes: tuple[float, float],
    side: int,
) -> tuple[Pose, ...]:
    """A pose for every word, each at that of 16 random places where squares overlap least.

    `sizes` is the range of an object's size as a share of the side.
    """
    poses: list[Pose] = []
    for word in words:
        pose = random_pose(rng, word, styles, side * float(rng.uniform(*sizes)), side)
        low, high = min(pose.size, side) / 2, side - min(pose.size, side) / 2
        tried = rng.uniform(low, high, (16, 2))
        shared = [sum(_overlap(pose.size, place, other) for other in poses) for place in tried]
        row, col = tried[int(np.argmin(shared))].tolist()
        poses.append(replace(pose, centre=(row, col)))
    return tuple(poses)


def _overlap(size: float, centre: np.ndarray, other: Pose) -> float:
    """The area that the upright square of an object shares with that of another, in pixels."""
    apart = np.abs(centre - np.asarray(other.centre))
    shared = np.clip((size + other.size) / 2 - apart, 0, min(size, other.size))
    return float(shared.prod())


def render(backdrop: np.ndarray, poses: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    """Objects pasted on a background in their order; what lies outside is cut off.

    Takes a float32 [H, W, 3]; returns the image uint8 [H, W, 3] and the instances uint8 [H, W].
    """
    canvas = backdrop.astype(np.float32)
    instances = np.zeros(canvas.shape[:2], np.uint8)
    for number, pose in enumerate(poses, 1):
        drawn = pose.sprite()
        low = np.round(np.asarray(pose.centre) - np.array(drawn.shape[:2]) / 2).astype(int)
        start = np.maximum(low, 0)
        stop = np.minimum(low + drawn.shape[:2], canvas.shape[:2])
        if (stop <= start).any():
            continue
        inside = tuple(map(slice, start, stop))
        drawn = drawn[tuple(map(slice, start - low, stop - low))]
        alpha = drawn[..., 3:] / 255
        canvas[inside] += alpha * (drawn[..., :3] - canvas[inside])
        instances[inside][alpha[..., 0] > 0.5] = number
    return np.clip(canvas, 0, 255).astype(np.uint8), instances


def make_still(
    rng: np.random.Generator,
    words: Sequence[str],
    styles: Sequence[str] = TRAINING_STYLES,
    side: int = 224,
    poses: Sequence[Pose] | None = None,
) -> Clip:
    """One picture of these words, one frame; `poses`, where given, are used as they are."""
    background = str(rng.choice(list(BACKGROUNDS)))
    backdrop = paint(rng, background, side) * float(rng.uniform(0.8, 1.2))
    chosen = poses or place_objects(rng, words, styles, SIZES[len(words)], side)
    image, instances = render(backdrop, chosen)
    return Clip(image[None], instances[None], tuple(words), background, (tuple(chosen),))


def make_clip(
    rng: np.random.Generator,
    words: Sequence[str],
    styles: Sequence[str] = TRAINING_STYLES,
    frames: int = 10,
    side: int = 224,
) -> Clip:
    """A clip in which objects cross near the middle of the picture and cover each other.

    Each object moves evenly, turns by up to 6 degrees and grows or shrinks by up to 1.5 % in every
    frame; the view wanders over the background.
    """
    background = str(rng.choice(list(BACKGROUNDS)))
    wide = paint(rng, background, side + 2 * MARGIN) * float(rng.uniform(0.8, 1.2))
    first = place_objects(rng, words, styles, (0.28, 0.42), side)
    meeting = side / 2 + rng.uniform(-0.12 * side, 0.12 * side, (len(first), 2))
    starts = np.array([pose.centre for pose in first])
    steps = (meeting - starts) / (frames / 2)  # [objects, 2]
    turns, growth = rng.uniform(-6, 6, len(first)), rng.uniform(0.985, 1.015, len(first))
    drift = rng.uniform(-MARGIN, MARGIN, 2) / frames
    images, instances, poses = [], [], []
    for t in range(frames):
        now = tuple(
            replace(
                pose,
                centre=(float(row), float(col)),
                size=float(pose.size * growth[i] ** t),
                angle=float(pose.angle + turns[i] * t),
            )
            for i, (pose, (row, col)) in enumerate(zip(first, starts + t * steps, strict=True))
        )
        top, left = np.round(MARGIN + drift * t).astype(int)
        image, shown = render(wide[top : top + side, left : left + side], now)
        images.append(image)
        instances.append(shown)
        poses.append(now)
    shown = np.stack(instances)
    return Clip(np.stack(images), shown, tuple(words), background, tuple(poses))
