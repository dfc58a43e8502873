"""Correspondence: where in another picture of the same object is each of its points?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.segmentation import upsample
from scclip_lab.datasets.atlas import HELD_OUT_STYLES, TRAINING_STYLES
from scclip_lab.datasets.clips import Clip, Pose, choose_words, generator, make_still, random_pose
from scclip_lab.datasets.scenes import TEST
from scclip_lab.studies.reading import PATCH
from scclip_lab.studies.tasks_common import COLUMNS, all_readers, as_input, read_all, score_rows

# A match is right within this share of the longer side of the object's box.
ALPHA = 0.1
# Target features are interpolated to every fourth pixel.
STEP = 4
# Any point of the object, found by chance.
CHANCE = "a random point of the object"


def draw_pair(seed: int, index: int, side: int = 224) -> tuple[Clip, dict[str, Clip]]:
    """One object, and the same one moved, turned, scaled and redrawn, each on another background.

    Turned by 40 to 90 degrees to either side; scaled to 0.45 to 0.65 of its size; redrawn in
    another training style, or in the style that no training saw. All but the first of these change
    what is named alone, besides the place.
    """
    rng = generator("pairs", TEST, seed, index)
    (word,) = choose_words(rng, (1,))
    own = str(rng.choice(TRAINING_STYLES))
    other = str(rng.choice([style for style in TRAINING_STYLES if style != own]))
    first = replace(random_pose(rng, word, [own], 0.6 * side, side), flip=False)
    turn = float(rng.uniform(40, 90) * rng.choice([-1, 1]))
    changes: dict[str, dict] = {
        "moved": {},
        "turned": {"angle": first.angle + turn},
        "scaled": {"size": first.size * float(rng.uniform(0.45, 0.65))},
        "redrawn": {"style": other},
        "redrawn, style never seen": {"style": HELD_OUT_STYLES[0]},
    }
    targets = {}
    for name, change in changes.items():
        place = random_pose(rng, word, [own], first.size, side).centre
        targets[name] = make_still(rng, [word], poses=[replace(first, centre=place, **change)])
    return make_still(rng, [word], poses=[first]), targets


def true_matches(source: Clip, target: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Patches of the source object, (row, column) [K, 2], and where their centres went, in pixels.

    Kept are patches whose centre the object covers, where the place in the target is on the object
    too. A redrawn object is compared at the same place of the drawing's square.
    """
    pose, moved = _pose(source), _pose(target)
    grid = len(source.images[0]) // PATCH
    patches = np.argwhere(np.ones((grid, grid), bool))
    centres = (patches + 0.5) * PATCH
    places = moved.to_picture(pose.to_drawing(centres))
    kept = _covers(source, centres) & _covers(target, places)
    return patches[kept], places[kept]


def _pose(clip: Clip) -> Pose:
    return clip.poses[0][0]


def _covers(clip: Clip, pixels: np.ndarray) -> np.ndarray:
    """Which (row, column) [K, 2] the object of a picture covers, bool [K]."""
    side = len(clip.images[0])
    row, col = np.clip(pixels, 0, side - 1).astype(int).T
    inside = ((pixels >= 0) & (pixels < side)).all(1)
    return inside & (clip.instances[0][row, col] == 1)


def match_points(source: Tensor, target: Tensor, patches: np.ndarray, side: int) -> np.ndarray:
    """The most similar place in the target for patches of the source, in pixels, [K, 2].

    Takes features [rows, cols, D] of both, and patches (row, column) [K, 2]. The target's features
    are interpolated bilinearly to every `STEP`-th pixel.
    """
    wanted = F.normalize(source[tuple(patches.T)], dim=-1)  # [K, D]
    fine = F.normalize(upsample(target[None], (side // STEP, side // STEP))[0], dim=0)
    best = (wanted @ fine.flatten(1)).argmax(1).numpy()  # [K]
    return (np.stack(np.divmod(best, side // STEP), 1) + 0.5) * STEP


def pck(found: np.ndarray, truth: np.ndarray, size: float, alpha: float = ALPHA) -> float:
    """Percentage of correct keypoints, as a share: |found - truth| <= alpha * size.

    Takes points [K, 2] in pixels, and the longer side of the object's box. Raises ValueError for
    no points.
    """
    if not len(truth):
        raise ValueError("truth must hold at least one point, got none")
    return float((np.linalg.norm(found - truth, axis=1) <= alpha * size).mean())


def box_size(clip: Clip) -> float:
    """The longer side of the box around the object of a picture, in pixels."""
    where = np.argwhere(clip.instances[0] == 1)
    return float((np.ptp(where, axis=0) + 1).max())


def chance(target: Clip, truth: np.ndarray) -> float:
    """The expected PCK of random points of the object."""
    pixels = np.argwhere(target.instances[0] == 1)[::7] + 0.5
    apart = np.linalg.norm(pixels[None] - truth[:, None], axis=2)
    return float((apart <= ALPHA * box_size(target)).mean())


def measure_correspondence(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """PCK@0.1 of every layer, method and SC-CLIP without each module, by kind of change.

    Means over `count` objects. Rows have the `COLUMNS` of all tasks; `styles` is the change.
    """
    readers = all_readers(model, range(model.depth - 1), modules=True)
    scores: dict[str, dict[str, list[float]]] = {}
    for index in range(count):
        source, targets = draw_pair(seed, index)
        images = np.concatenate([clip.images for clip in (source, *targets.values())])
        read = read_all(readers, as_input(model, images))
        for place, (change, target) in enumerate(targets.items(), 1):
            patches, truth = true_matches(source, target)
            if not len(truth):
                continue
            found = scores.setdefault(change, {})
            found.setdefault(CHANCE, []).append(chance(target, truth))
            for name, features in read.items():
                points = match_points(features[0], features[place], patches, images.shape[1])
                found.setdefault(name, []).append(pck(points, truth, box_size(target)))
    rows = []
    for change, found in scores.items():
        arrays = {name: np.array(values) for name, values in found.items()}
        rows += score_rows("PCK@0.1", change, arrays, seed)
    return pd.DataFrame(rows, columns=COLUMNS).assign(objects=count, seed=seed)


def matches_of(
    model: FrozenCLIP, names: tuple[str, ...], change: str, index: int, seed: int = 7
) -> pd.DataFrame:
    """Matches of one pair, to be drawn: from and true place, found place by each reader."""
    source, targets = draw_pair(seed, index)
    target = targets[change]
    readers = {name: reader for name, reader in all_readers(model).items() if name in names}
    read = read_all(readers, as_input(model, np.concatenate([source.images, target.images])))
    patches, truth = true_matches(source, target)
    size, parts = box_size(target), []
    for name, features in read.items():
        points = match_points(features[0], features[1], patches, source.images.shape[1])
        right = np.linalg.norm(points - truth, axis=1) <= ALPHA * size
        columns = np.concatenate([(patches + 0.5) * PATCH, truth, points], 1)
        part = pd.DataFrame(
            columns, columns=["row", "col", "true_row", "true_col", "to_row", "to_col"]
        )
        parts.append(part.assign(method=name, right=right, change=change, index=index, seed=seed))
    return pd.concat(parts, ignore_index=True)
