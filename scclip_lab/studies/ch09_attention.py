"""Chapter 9: where one patch attends to in the last block, by method."""

import pandas as pd
import torch
from matplotlib.figure import Figure

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_lab.datasets.scenes import Scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.ch01_shapes import PATCH, example_scene
from scclip_lab.studies.drawing import draw_maps, map_rows

# Methods whose last block has an attention of its own.
SHOWN = ("vanilla", "sclip", "clearclip", "naclip", "scclip")


@torch.no_grad()
def attention_of_a_patch(model: FrozenCLIP, scene: Scene, row: int, col: int) -> pd.DataFrame:
    """Where one patch attends to in the last block, as rows panel, row, col, value.

    Values are weights on the other patches, means over heads, scaled so that they sum to the
    number of patches: 1 is an even share. Weights on the class token are left out.
    """
    images = stack_images(model, [scene])
    rows, cols = grid = model.grid_of(images)
    place, count = f"blocks.{model.depth - 1}.attn.hook_pattern", rows * cols
    maps = {}
    for name in SHOWN:
        _, cache = make_method(name, model).run_with_cache(images, place)
        pattern = cache[place][0, :, -count:, -count:]  # [heads, N, N]
        weights = pattern[:, row * cols + col].mean(0)
        maps[METHOD_NAMES[name]] = (count * weights / weights.sum()).view(grid)
    return map_rows(maps).assign(patch_row=row, patch_col=col)


def example_attention(model: FrozenCLIP) -> pd.DataFrame:
    """`attention_of_a_patch` of the book's example, a patch on the pizza."""
    return attention_of_a_patch(model, example_scene(), *PATCH)


@figure("09_attention")
def draw_attention(table: pd.DataFrame) -> Figure:
    """The picture with one patch marked, and where that patch attends to by each method."""
    return draw_maps(table, example_scene().image, columns=3, label="weight, 1: an even share")
