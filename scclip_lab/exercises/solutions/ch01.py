"""Solutions of chapter 1."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cut(image: Tensor, size: int) -> Tensor:
    """A picture as flattened patches, [3, H, W] -> [N, 3 * size * size]."""
    tiles = image.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [3, rows, size, cols, size]
    return tiles.permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)


def name_patches(tokens: Tensor, projection: Tensor, words: Tensor) -> Tensor:
    """The word with the largest cosine, [N, C], [C, D], [Q, D] -> int64 [N]."""
    features = F.normalize(tokens @ projection, dim=-1)
    return (features @ F.normalize(words, dim=-1).T).argmax(-1)


def _weights(cells: int, pixels: int) -> Tensor:
    """How much each pixel takes from each cell along one side, [pixels, cells]."""
    place = ((torch.arange(pixels) + 0.5) * cells / pixels - 0.5).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def enlarge(values: Tensor, height: int, width: int) -> Tensor:
    """A map at another size, bilinear, [rows, cols] -> [height, width]."""
    rows, cols = values.shape
    return _weights(rows, height) @ values @ _weights(cols, width).T


SOLUTIONS = {"01-4": cut, "01-5": name_patches, "01-6": enlarge}
