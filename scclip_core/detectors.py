"""Cheaper ways to find anomalous patch tokens, beside the local outlier factor of stage 3.

Every detector takes tokens [B, N, C], finite, and returns scores [B, N] that are larger where a
token is more anomalous. None changes its argument, is trained, or looks at another image of the
batch. Half precisions are computed in float32.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.anomaly import (
    check_points,
    factor_of_neighbours,
    local_outlier_factor,
    neighbour_sum,
)
from scclip_core.anomaly import squared_distances as _squared_distances
from scclip_core.precision import at_least_float32
from scclip_core.sharing import shareable
from scclip_core.similarity import unit_tokens

Grid = tuple[int, int]


def landmark_lof(tokens: Tensor, k: int = 30, landmarks: int = 64, seed: int = 0) -> Tensor:
    """Local outlier factor with neighbours sought among a few tokens alone, the landmarks.

    The landmarks are the same random positions in all images. Each token takes the nearest
    ceil(k * landmarks / N) of them, the same share of all candidates as k is of N, so that with N
    landmarks or more this is the local outlier factor itself. N * landmarks distances are needed
    in place of N^2.

    Args:
        tokens: [B, N, C].
        k: the number of neighbours that the local outlier factor would have, 1 <= k < N.
        landmarks: how many, >= 2.
        seed: of the choice.

    Returns scores [B, N]. Raises ValueError for a k or a number of landmarks that is not allowed.
    """
    n = check_points(tokens).shape[1]
    _require("k", 1 <= k < n, f"at least 1 and less than the {n} tokens of an image", k)
    _require("landmarks", landmarks >= 2, "at least 2", landmarks)
    count = min(landmarks, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    chosen = order[:count].sort().values.to(tokens.device)  # [M]
    tokens = at_least_float32(tokens)
    # The difference of means cancels, and with it the digits that a common offset would cost.
    tokens = tokens - tokens.mean(1, keepdim=True)
    marks = tokens[:, chosen]  # [B, M, C]
    squared = tokens.square().sum(-1)  # [B, N]
    products = tokens @ marks.mT  # [B, N, C] @ [B, C, M] -> [B, N, M]
    distances = squared[:, :, None] + squared[:, None, chosen] - 2 * products
    distances = distances.clamp_(min=0).sqrt_()
    # A landmark is no neighbour of itself.
    distances[:, chosen, torch.arange(count, device=tokens.device)] = torch.inf
    nearest = min(-(-k * count // n), count - 1)
    near, index = distances.topk(nearest, largest=False)  # [B, N, k']
    return factor_of_neighbours(near, chosen[index])


def projected_lof(tokens: Tensor, k: int = 30, dimensions: int = 16, seed: int = 0) -> Tensor:
    """Local outlier factor after a random projection to a few dimensions.

    x -> x R / sqrt(dimensions), with standard normal R; it keeps distances up to a relative error
    of order 1 / sqrt(dimensions) (Johnson and Lindenstrauss 1984). N^2 distances remain, each of
    fewer terms.

    Takes tokens [B, N, C], a k as `local_outlier_factor`, a number of dimensions >= 1 and the seed
    of R; returns scores [B, N]. Raises ValueError for numbers that are not allowed.
    """
    _require("dimensions", dimensions >= 1, "at least 1", dimensions)
    tokens = at_least_float32(check_points(tokens))
    shape = (tokens.shape[-1], dimensions)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    matrix = matrix.to(tokens) / dimensions**0.5
    return local_outlier_factor(tokens @ matrix, k)  # [B, N, C] @ [C, d] -> [B, N, d]


def grid_lof(tokens: Tensor, grid: Grid, k: int = 15, radius: int = 3) -> Tensor:
    """Local outlier factor with neighbours sought around each patch on the grid alone.

    A patch takes the k nearest tokens, by distance in feature space, of the square window of
    2 radius + 1 patches around it. Each row of the grid is multiplied with the rows of its window
    and no others, so that N (2 radius + 1) cols products are needed in place of N^2: they grow as
    N^1.5 on a square grid.

    Args:
        tokens: [B, N, C] with N = rows * cols.
        grid: (rows, cols), two patches at least.
        k: number of neighbours, >= 1; at most as many as the window of a corner has.
        radius: of the window, in patches, >= 1.

    Returns scores [B, N]. Raises ValueError for numbers and shapes that are not allowed.
    """
    _require("k", k >= 1, "at least 1", k)
    _require("radius", radius >= 1, "at least 1", radius)
    maps = _as_maps(tokens, grid)
    (rows, cols), side = grid, 2 * radius + 1
    corner = min(radius + 1, rows) * min(radius + 1, cols) - 1
    _require("grid", corner >= 1, "of two patches at least", grid)
    maps = maps - maps.mean((1, 2), keepdim=True)
    squared = maps.square().sum(-1)  # [B, rows, cols]
    border = (radius,) * 4
    padded = F.pad(maps, (0, 0, *border))  # [B, rows + 2 radius, cols + 2 radius, C]
    # Beyond the border the distance is infinite.
    there = F.pad(squared, border, value=torch.inf).unfold(2, side, 1)  # [B, .., cols, side]
    bands = []
    for down in range(side):
        products = maps @ padded[:, down : down + rows].mT  # [B, rows, cols, cols + 2 radius]
        # Of the products of column c with all columns, those of c and the side - 1 next ones.
        band = products.flatten(2).unfold(2, side, cols + side)  # [B, rows, cols, side]
        bands.append(there[:, down : down + rows] - 2 * band)
    apart = torch.stack(bands, 3).flatten(3) + squared[..., None]  # [B, rows, cols, side^2]
    apart[..., side * side // 2] = torch.inf  # a patch is no neighbour of itself
    apart = apart.flatten(1, 2).clamp_(min=0).sqrt_()  # [B, N, side^2]
    near, which = apart.topk(min(k, corner), largest=False)  # [B, N, k]
    place = torch.arange(rows * cols, device=tokens.device)[None, :, None]  # [1, N, 1]
    step = (which // side - radius) * cols + which % side - radius
    return factor_of_neighbours(near, place + step)


def neighbour_dissimilarity(tokens: Tensor, grid: Grid) -> Tensor:
    """How little a token resembles its 8 neighbours on the grid.

    s_i = -mean over j in N_8(i) of cos(f_i, f_j)

    Takes tokens [B, N, C] with N = rows * cols and grid (rows, cols); returns scores [B, N], from
    -1 to 1, and 0 for a patch without neighbours. Raises ValueError for shapes that do not fit.
    """
    unit = F.normalize(_as_maps(tokens, grid), dim=-1)  # [B, rows, cols, C]
    ones = unit.new_ones(1, *grid, 1)
    total = neighbour_sum(unit)  # [B, rows, cols, C]
    count = neighbour_sum(ones)[..., 0]  # [1, rows, cols]
    likeness: Tensor = (unit * total).sum(-1) / count.clamp(min=1)
    return -likeness.flatten(1)


def cosine_lof(tokens: Tensor, k: int = 30) -> Tensor:
    """Local outlier factor of the tokens at unit length, so that directions alone count.

    |u_i - u_j|^2 = 2 - 2 cos(f_i, f_j): the distances are those of the similarities of the layer.

    Takes tokens [B, N, C] and k as `local_outlier_factor`; returns scores [B, N].
    """
    return local_outlier_factor(unit_tokens(tokens), k)


def knn_distance(tokens: Tensor, k: int = 30) -> Tensor:
    """Distance to the k-th nearest token (Ramaswamy et al. 2000): LOF's first step alone.

    Takes tokens [B, N, C] and 1 <= k < N; returns scores [B, N]. Raises ValueError for another k.
    """
    n = check_points(tokens).shape[1]
    _require("k", 1 <= k < n, f"at least 1 and less than the {n} tokens of an image", k)
    distances = _squared_distances(at_least_float32(tokens))
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # a token is no neighbour of itself
    near: Tensor = distances.topk(k, largest=False).values  # [B, N, k]
    return near[..., -1].sqrt()


def token_norm(tokens: Tensor) -> Tensor:
    """Length of every token, [B, N, C] -> [B, N] (Darcet et al. 2024, arXiv 2309.16588)."""
    lengths: Tensor = at_least_float32(check_points(tokens)).norm(dim=-1)
    return lengths


def unusual_norm(tokens: Tensor) -> Tensor:
    """How far a token's length is from the usual one of its image, whether longer or shorter.

    s_i = |log(|f_i| / median over j of |f_j|)|

    Takes tokens [B, N, C]; returns scores [B, N].
    """
    lengths = token_norm(tokens).clamp(min=torch.finfo(torch.float32).tiny)
    usual = lengths.median(1, keepdim=True).values  # [B, 1]
    return (lengths.log() - usual.log()).abs()


# What takes tokens [B, N, C], their grid, and LOF's number of neighbours.
Detector = Callable[[Tensor, Grid, int], Tensor]
DETECTORS: dict[str, Detector] = {
    "lof": lambda tokens, grid, k: local_outlier_factor(tokens, k),
    "landmarks": lambda tokens, grid, k: landmark_lof(tokens, k),
    "projection": lambda tokens, grid, k: projected_lof(tokens, k),
    "grid": lambda tokens, grid, k: grid_lof(tokens, grid),
    "cosine": lambda tokens, grid, k: cosine_lof(tokens, k),
    "knn": lambda tokens, grid, k: knn_distance(tokens, k),
    "neighbours": lambda tokens, grid, k: neighbour_dissimilarity(tokens, grid),
    "norm": lambda tokens, grid, k: token_norm(tokens),
    "unusual-norm": lambda tokens, grid, k: unusual_norm(tokens),
}


@shareable
def detect(name: str, tokens: Tensor, grid: Grid, k: int = 30) -> Tensor:
    """The scores of a detector by its name.

    Args:
        name: of `DETECTORS`.
        tokens: [B, N, C] with N = rows * cols.
        grid: (rows, cols), for the detectors that need to know who is beside whom.
        k: neighbours of those that seek them in the whole image, 1 <= k < N.

    Returns scores [B, N]. Raises ValueError, with the names that exist, for another name.
    """
    _require("name", name in DETECTORS, f"one of {', '.join(DETECTORS)}", name)
    return DETECTORS[name](tokens, grid, k)


def _require(name: str, holds: bool, allowed: str, given: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {given!r}")


def _as_maps(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens [B, N, C] as maps [B, rows, cols, C]."""
    rows, cols = grid
    if check_points(tokens).shape[1] != rows * cols:
        needed = f"[batch, {rows * cols}, width] for a {rows} x {cols} grid"
        raise ValueError(f"tokens must be {needed}, got shape {tuple(tokens.shape)}")
    return torch.unflatten(at_least_float32(tokens), 1, grid)
