"""What is changed in a training step, and how it is drawn; why is told in `data/mini/README.md`."""

from dataclasses import dataclass

import numpy as np

# Of the image tower: blocks, pixels of a patch's side, patches of the full grid's side.
DEPTH, PATCH, GRID = 12, 16, 14


@dataclass(frozen=True)
class StepPlan:
    """What is changed in one training step, for the whole batch.

    Attributes:
        position: row and column of the image's first patch on the full grid of positions.
        crop: patches of a side of the separate crops that the image is cut into; 0 for none.
        crop_offset: row and column of the first crop's first patch.
        blind: whether the class token attends to itself alone before the last block.
        dropped: for each block, whether it is left out.
        summed: first and last + 1 of the layers whose sum is read as well, or None.
        by_attention: whether patches are read through the last block's attention among patches,
            instead of by their values alone.
        skip_attention: whether the image is read from the class token without the last block's
            attention, so from its residual alone.
        residual: factor on the class token's residual into the last block.
        skip_mlp: whether the last block's MLP is left out.
        pool: patches of a side of the windows that are read.
        power: of the mean that joins the windows of an image, see `losses.window_loss`.
        background: weight of the background in the coverage of the window loss, as a multiple of
            the number of objects in the scene; 0 where it counts as one object.
        seed: of the patches that are compared across images.
    """

    position: tuple[int, int]
    crop: int
    crop_offset: tuple[int, int]
    blind: bool
    dropped: tuple[bool, ...]
    summed: tuple[int, int] | None
    by_attention: bool
    skip_attention: bool
    residual: float
    skip_mlp: bool
    pool: int
    power: float
    background: float
    seed: int


def draw_plan(rng: np.random.Generator, side: int, background: float) -> StepPlan:
    """Draw the changes of a step for images of `side` x `side` patches.

    The weight of the background is that of the phase.
    """
    crop = int(rng.choice([s for s in (2, 3, 4, 5) if s <= side])) if rng.random() < 0.4 else 0
    spare = side % crop if crop else 0
    blind = bool(crop) or bool(rng.random() < 0.5)
    skip_attention = not blind and bool(rng.random() < 0.25)
    half_residual = not skip_attention and bool(rng.random() < 0.5)
    # Mostly many layers, as a sum of middle layers has them; else any, down to a single one.
    if rng.random() < 0.6:
        summed = int(rng.integers(2, 5)), int(rng.integers(8, DEPTH))
    else:
        start = int(rng.integers(2, DEPTH - 2))
        summed = start, int(rng.integers(start + 1, DEPTH))
    return StepPlan(
        position=_draw_pair(rng, GRID - side),
        crop=crop,
        crop_offset=_draw_pair(rng, spare),
        blind=blind,
        dropped=tuple(bool(d) for d in rng.random(DEPTH) < 0.08),
        summed=summed if rng.random() < 0.7 else None,
        by_attention=not crop and bool(rng.random() < 0.4),
        skip_attention=skip_attention,
        residual=float(rng.uniform(0, 0.6)) if half_residual else 1.0,
        skip_mlp=bool(rng.random() < 0.5),
        pool=int(rng.choice((1, 2, 2, 3, 3, 4) if side > 4 else (1, 2))),
        power=float(rng.choice([1.0, 2.0, 4.0])),
        background=background,
        seed=int(rng.integers(1 << 31)),
    )


def _draw_pair(rng: np.random.Generator, largest: int) -> tuple[int, int]:
    row, col = rng.integers(largest + 1, size=2)
    return int(row), int(col)
