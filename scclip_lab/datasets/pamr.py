"""PAMR, pixel-adaptive mask refinement: maps that follow the edges of their picture.

Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020,
arXiv 2005.00770, section 3.3. NACLIP's published numbers have it as their last step.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Distances in pixels of the neighbours that NACLIP's published code looks at.
DILATIONS = (8, 16)
# Standard deviations are multiplied by this, so that only pixels of like colour count.
SHARPNESS = 0.1


@torch.no_grad()
def refine(
    maps: Tensor, picture: Tensor, steps: int, dilations: Sequence[int] = DILATIONS
) -> Tensor:
    """Maps averaged over neighbours of similar colour, `steps` times.

    The neighbours N(i) of a pixel are the eight around it at every distance in `dilations`; beyond
    the border, the nearest pixel stands in. With x_i the colour of a pixel and s_i, by channel, the
    standard deviation of the colours around it, itself counted once for every distance:

        a_ij = softmax over j in N(i) of the mean over channels of -|x_i - x_j| / (0.1 s_i)
        m_i <- sum over j in N(i) of a_ij m_j

    Args:
        maps: [Q, H, W], of any meaning.
        picture: [3, H, W], in any scale.
        steps: how often; 0 gives the maps back.
        dilations: distances of the neighbours, in pixels.

    Returns [Q, H, W]. Raises ValueError where picture and maps have not one size.
    """
    if picture.shape[1:] != maps.shape[1:]:
        sizes = f"{tuple(maps.shape[1:])}, the picture {tuple(picture.shape[1:])}"
        raise ValueError(f"maps and picture must have one size, got {sizes}")
    around = torch.stack(list(_neighbours(picture, dilations)))  # [8 * distances, 3, H, W]
    centre = picture.expand(len(dilations), -1, -1, -1)
    deviation = torch.cat([around, centre]).std(0)  # [3, H, W]
    distance = (around - picture).abs() / (1e-8 + SHARPNESS * deviation)
    affinity = (-distance.mean(1)).softmax(0)  # [8 * distances, H, W]
    for _ in range(steps):
        pairs = zip(affinity, _neighbours(maps, dilations), strict=True)
        refined = torch.zeros_like(maps)
        for weight, shifted in pairs:
            refined += weight * shifted
        maps = refined
    return maps


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Maps [Q, H, W] shifted so that each pixel holds a neighbour: eight for every distance."""
    height, width = maps.shape[1:]
    for distance in dilations:
        padded = F.pad(maps[None], [distance] * 4, mode="replicate")[0]
        for row in range(3):
            for column in range(3):
                if (row, column) != (1, 1):
                    top, left = row * distance, column * distance
                    yield padded[:, top : top + height, left : left + width]
