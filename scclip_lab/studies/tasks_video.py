"""Video: the masks of the first frame propagated through a clip by similar patches.

The protocol of DAVIS 2017 (Pont-Tuset et al. 2017, arXiv 1704.00675) with label propagation as
DINO has it (Caron et al. 2021, arXiv 2104.14294; after Jabri et al. 2020, arXiv 2006.14613).
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.files import atomic_write
from scclip_core.prediction import palette
from scclip_core.segmentation import upsample
from scclip_lab.datasets.clips import Clip, choose_words, generator, make_clip
from scclip_lab.datasets.scenes import STYLES, TEST
from scclip_lab.studies.reading import PATCH
from scclip_lab.studies.tasks_common import (
    COLUMNS,
    NAMES,
    Reader,
    all_readers,
    as_input,
    read_all,
    score_rows,
)

# As DINO has them: frames looked back to besides the first, patches that vote, temperature.
FRAMES_BACK, TOP, TEMPERATURE = 7, 5, 0.1
# Patches further away than this do not vote: a fifth of the picture, as with DINO on DAVIS.
RADIUS = 3
# Outlines agree within this share of the picture's diagonal, as in DAVIS.
TOLERANCE = 0.008
STILL, CEILING = "first mask, kept still", "true masks of patches"
# The clip of the animation and of the frames that are shown, and whose masks they show.
SHOWN, SHOWN_READERS = 5, ("values", "scclip", "layer 3")


def draw_clip(seed: int, index: int, style: str) -> Clip:
    """Test clip number `index`: two or three objects that cross, in one of three a word twice."""
    rng = generator("clips", TEST, seed, 2 * index + list(STYLES).index(style))
    return make_clip(rng, choose_words(rng, (2, 3), 0.3), STYLES[style])


def patch_masks(instances: np.ndarray, objects: int) -> Tensor:
    """The share of every patch that each object covers, background first, [rows, cols, 1 + n]."""
    one_hot = F.one_hot(torch.from_numpy(instances).long(), objects + 1)  # [H, W, 1 + n]
    pooled = F.avg_pool2d(one_hot.permute(2, 0, 1)[None].float(), PATCH)[0]
    return pooled.permute(1, 2, 0)


def near_patches(grid: tuple[int, int], radius: int = RADIUS) -> Tensor:
    """Which patches lie within `radius` rows and columns of each other, bool [N, N]."""
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], 1)
    return (places[:, None] - places[None]).abs().amax(-1) <= radius


def propagate_step(current: Tensor, past: Tensor, masks: Tensor, near: Tensor) -> Tensor:
    """One frame's masks: for each patch, a vote of the `TOP` most similar near patches before.

    w = softmax(cos / T) over the top k; mask = sum of w * mask

    Args:
        current: unit features of the frame, [N, D].
        past: unit features of M frames before, [M, N, D].
        masks: their masks, [M, N, 1 + n].
        near: which patches may vote for which, bool [N, N].

    Returns [N, 1 + n].
    """
    alike = torch.einsum("nd,mkd->nmk", current, past)  # [N, M, N]
    alike = alike.masked_fill(~near[:, None], -torch.inf).flatten(1)
    best, places = alike.topk(TOP, dim=1)  # [N, TOP]
    weights = (best / TEMPERATURE).softmax(1)
    return (weights[..., None] * masks.flatten(0, 1)[places]).sum(1)


def propagate(features: Tensor, first: Tensor) -> Tensor:
    """Masks of all frames from those of the first, [T, rows, cols, D] -> [T, rows, cols, 1 + n].

    The first frame and the `FRAMES_BACK` before each frame vote for it.
    """
    grid = (features.shape[1], features.shape[2])
    tokens, near = features.flatten(1, 2), near_patches(grid)  # [T, N, D]
    masks = [first.flatten(0, 1)]
    for t in range(1, len(tokens)):
        back = sorted({0, *range(max(0, t - FRAMES_BACK), t)})
        given = torch.stack([masks[i] for i in back])
        masks.append(propagate_step(tokens[t], tokens[back], given, near))
    return torch.unflatten(torch.stack(masks), 1, grid)


def to_instances(masks: Tensor, side: int) -> np.ndarray:
    """Masks of patches as instances of pixels, [T, rows, cols, 1 + n] -> uint8 [T, side, side]."""
    return upsample(masks, (side, side)).max(1).indices.to(torch.uint8).numpy()


def region_similarity(found: np.ndarray, truth: np.ndarray) -> float:
    """J: intersection over union of two masks; 1 where both are empty."""
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def contour_accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    """F: the F-measure of two masks' outlines, within `TOLERANCE` of the diagonal.

    Precision is the share of the found outline that lies near the true one, recall the share of
    the true outline near the found one; 1 where both are empty.
    """
    reach = int(np.ceil(TOLERANCE * np.hypot(*truth.shape)))
    rows, cols = np.nonzero(found | truth)
    if not len(rows):
        return 1.0
    # What lies further from both masks than the tolerance changes nothing.
    near = tuple(slice(max(0, i.min() - reach - 1), i.max() + reach + 2) for i in (rows, cols))
    outlines = [
        mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (found[near], truth[near])
    ]
    if not outlines[0].any() or not outlines[1].any():
        return float(outlines[0].any() == outlines[1].any())
    far = [ndimage.distance_transform_edt(~outline) for outline in outlines]
    precision = float((far[1][outlines[0]] <= reach).mean())
    recall = float((far[0][outlines[1]] <= reach).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def score_clip(found: np.ndarray, clip: Clip) -> tuple[float, float]:
    """(J, F) of instances [T, H, W]: means over objects and over all frames but the first.

    An object counts in the frames in which it is seen.
    """
    pairs = [
        (found[t] == number, clip.instances[t] == number)
        for t in range(1, len(found))
        for number in range(1, len(clip.words) + 1)
        if (clip.instances[t] == number).any()
    ]
    regions = float(np.mean([region_similarity(*pair) for pair in pairs]))
    return regions, float(np.mean([contour_accuracy(*pair) for pair in pairs]))


def track(readers: dict[str, Reader], model: FrozenCLIP, clip: Clip) -> dict[str, np.ndarray]:
    """The instances [T, H, W] that every reader's features propagate from the first frame's."""
    side, objects = clip.images.shape[1], len(clip.words)
    first = patch_masks(clip.instances[0], objects)
    read = read_all(readers, as_input(model, clip.images))
    return {name: to_instances(propagate(f, first), side) for name, f in read.items()}


def measure_video(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """J and F of every reader on `count` clips of each style, and of two baselines.

    One keeps the first frame's masks still; the other has the true masks of patches in every
    frame, so that nothing is lost but what 14 x 14 patches cannot show. Rows have the `COLUMNS`.
    """
    rows: list[tuple[object, ...]] = []
    for style in STYLES:
        scores: dict[str, list[tuple[float, float]]] = {}
        readers = all_readers(model, modules=style == "training")
        for index in range(count):
            clip = draw_clip(seed, index, style)
            side, objects = clip.images.shape[1], len(clip.words)
            true = torch.stack([patch_masks(frame, objects) for frame in clip.instances])
            found = {
                STILL: np.repeat(clip.instances[:1], len(clip.images), 0),
                CEILING: to_instances(true, side),
                **track(readers, model, clip),
            }
            for name, masks in found.items():
                scores.setdefault(name, []).append(score_clip(masks, clip))
        for place, measure in enumerate(("J", "F")):
            arrays = {name: np.array(pairs)[:, place] for name, pairs in scores.items()}
            rows += score_rows(measure, style, arrays, seed)
    return pd.DataFrame(rows, columns=COLUMNS).assign(clips=count, seed=seed)


def shown_clip(model: FrozenCLIP, seed: int = 7) -> tuple[Clip, dict[str, np.ndarray]]:
    """The clip of the animation, and its instances: the truth and what some readers propagate."""
    clip = draw_clip(seed, SHOWN, "training")
    readers = {n: reader for n, reader in all_readers(model).items() if n in SHOWN_READERS}
    found = track(readers, model, clip)
    return clip, {"truth": clip.instances, **{name: found[name] for name in SHOWN_READERS}}


def paint_instances(image: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """An image uint8 [H, W, 3] with every object's mask in a colour of its own."""
    colours = np.vstack([np.zeros((1, 3)), palette(max(int(instances.max()), 1))])
    mixed = 0.35 * image + 0.65 * colours[instances]
    return np.where(instances[..., None] > 0, mixed, image).astype(np.uint8)


def save_animation(model: FrozenCLIP, folder: Path, side: int = 150) -> Path:
    """Write `10_video.gif`: the clip, the true masks and the propagated ones side by side."""
    clip, found = shown_clip(model)
    frames = []
    for t, image in enumerate(clip.images):
        panels = [image, *(paint_instances(image, masks[t]) for masks in found.values())]
        sheet = Image.new("RGB", (side * len(panels), side + 14), "white")
        for i, (panel, name) in enumerate(zip(panels, ("the clip", *found), strict=True)):
            small = Image.fromarray(panel).resize((side, side), Image.Resampling.BILINEAR)
            sheet.paste(small, (side * i, 14))
            ImageDraw.Draw(sheet).text((side * i + 3, 1), NAMES.get(name, name), fill="black")
        frames.append(sheet.quantize(64, dither=Image.Dither.NONE))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "10_video.gif"
    with atomic_write(path) as partial:
        look = {"save_all": True, "duration": 300, "loop": 0}
        frames[0].save(partial, format="GIF", append_images=frames[1:], **look)
    return path
