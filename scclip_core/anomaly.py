"""Stage 3: anomalous patch tokens, found by the local outlier factor, repaired from neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.precision import at_least_float32, check_finite
from scclip_core.sharing import shareable

# Added to the mean reachability distance, as scikit-learn does, so that duplicates have a finite
# density.
LRD_FLOOR = 1e-10


def squared_distances(points: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs of points, [B, N, D] -> [B, N, N].

    |x_i - x_j|^2 = |x_i|^2 + |x_j|^2 - 2 x_i . x_j, of points centred on their mean, so that few
    digits are lost to a common offset; the diagonal is exactly 0. In float64 the differences
    themselves are squared, and duplicates are exactly 0 apart.
    """
    if points.dtype == torch.float64:
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(points, points, compute_mode=mode).square()
    points = points - points.mean(1, keepdim=True)
    gram = points @ points.mT  # [B, N, D] @ [B, D, N] -> [B, N, N]
    norms = gram.diagonal(dim1=1, dim2=2)
    squared = (norms[:, :, None] + norms[:, None, :] - 2 * gram).clamp_(min=0)
    return squared.diagonal_scatter(torch.zeros_like(norms), dim1=1, dim2=2)


@shareable
def local_outlier_factor(points: Tensor, k: int, variant: str = "standard") -> Tensor:
    """Local outlier factor of every point among the others of its set (stage 3).

    Breunig et al. (2000), definitions 3 to 7, with N_k(i) the k nearest neighbours of point i:

    reach(i, j) = max(k-distance(j), |x_i - x_j|)
    lrd(i) = 1 / mean over j in N_k(i) of reach(i, j)
    LOF(i) = mean over j in N_k(i) of lrd(j) / lrd(i)

    Args:
        points: [B, N, D], finite. Half precisions are computed in float32.
        k: number of neighbours, 1 <= k < N.
        variant: "standard" is the definition above and equals scikit-learn's
            `LocalOutlierFactor`. "published" is what the published SC-CLIP code computes: squared
            distances, and the k-distance of the point itself in place of its neighbour's, so that
            every reachability distance of a point equals its own k-distance.

    Returns scores [B, N]: about 1 inside a cluster of even density, larger where a point is more
    isolated than its neighbours are. A permutation of the points permutes the scores.

    Raises ValueError for a wrong shape, a k out of range, an unknown variant, or values that are
    not finite.
    """
    if not 1 <= k < check_points(points).shape[1]:
        n = points.shape[1]
        raise ValueError(f"k must be at least 1 and less than the {n} points of a set, got {k}")
    if variant not in ("standard", "published"):
        raise ValueError(f"variant must be standard or published, got {variant!r}")
    points = at_least_float32(points)
    distances = squared_distances(points)
    if variant == "standard":
        distances = distances.sqrt_()
    # A point is no neighbour of itself, even where duplicates lie at distance 0.
    itself = torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    near, index = distances.masked_fill_(itself, torch.inf).topk(k, largest=False)  # [B, N, k]
    return factor_of_neighbours(near, index, variant)


def check_points(points: Tensor) -> Tensor:
    """`points`, where they are [B, N, D] and finite; a ValueError otherwise."""
    if points.ndim != 3:
        given = tuple(points.shape)
        raise ValueError(f"points must be [batch, points, dimensions], got shape {given}")
    check_finite("points", points)
    return points


def factor_of_neighbours(near: Tensor, index: Tensor, variant: str = "standard") -> Tensor:
    """Local outlier factor of points whose k neighbours are known, however they were found.

    Args:
        near: distances of every point to its neighbours, the farthest last, [B, N, k].
        index: which points these neighbours are, in 0..N - 1, [B, N, k].
        variant: as in `local_outlier_factor`.

    Returns scores [B, N].
    """
    k_distance = near[..., -1]  # [B, N]
    if variant == "standard":
        neighbour_k_distance = _gather(k_distance, index)  # [B, N, k]
        density = 1 / (torch.maximum(near, neighbour_k_distance).mean(-1) + LRD_FLOOR)
    else:
        density = 1 / (k_distance + LRD_FLOOR)
    return _gather(density, index).mean(-1) / density


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """values [B, N] at index [B, N, k] -> [B, N, k]."""
    return values.gather(1, index.flatten(1)).view(index.shape)


@shareable
def flag_anomalies(scores: Tensor, contamination: float) -> Tensor:
    """True where a score lies above the (1 - contamination) quantile of its image (stage 3).

    The comparison is strict, as in scikit-learn's `LocalOutlierFactor.fit_predict`. Takes scores
    [B, N]; returns bool [B, N]. Raises ValueError unless 0 < contamination <= 0.5.
    """
    if not 0 < contamination <= 0.5:
        raise ValueError(f"contamination must be in (0, 0.5], got {contamination!r}")
    scores = at_least_float32(scores)
    return scores > torch.quantile(scores, 1 - contamination, dim=1, keepdim=True)


@shareable
def repair_anomalies(
    tokens: Tensor, anomalous: Tensor, grid: tuple[int, int], repair_from: str = "all"
) -> Tensor:
    """Replace anomalous patch tokens by the mean of their 8 neighbours on the grid (stage 3).

    f'_i = mean over j in N_8(i) of f_j where i is anomalous, else f_i

    Args:
        tokens: [B, N, C] with N = rows * cols. Not changed.
        anomalous: bool [B, N].
        grid: (rows, cols).
        repair_from: "all" neighbours on the grid (the article), or "clean" ones only, and then a
            token without a clean neighbour stays as it is (the published code).

    Returns [B, N, C]. Raises ValueError where the shapes do not fit or `repair_from` is unknown.
    """
    rows, cols = grid
    if tokens.ndim != 3 or tokens.shape[1] != rows * cols:
        needed = f"[batch, {rows * cols}, width] for a {rows} x {cols} grid"
        raise ValueError(f"tokens must be {needed}, got shape {tuple(tokens.shape)}")
    if anomalous.shape != tokens.shape[:2]:
        wanted, given = tuple(tokens.shape[:2]), tuple(anomalous.shape)
        raise ValueError(f"anomalous must be {wanted}, got {given}")
    if repair_from not in ("all", "clean"):
        raise ValueError(f"repair_from must be all or clean, got {repair_from!r}")
    usable = torch.ones_like(anomalous) if repair_from == "all" else ~anomalous
    weight = usable.to(tokens.dtype)[..., None]  # [B, N, 1]
    # The last channel counts the neighbours that are used.
    weighted = torch.cat([tokens * weight, weight], -1)  # [B, N, C + 1]
    total = neighbour_sum(torch.unflatten(weighted, 1, grid)).flatten(1, 2)  # [B, N, C + 1]
    mean = total[..., :-1] / total[..., -1:].clamp(min=1)
    replace = anomalous[..., None] & (total[..., -1:] > 0)
    return torch.where(replace, mean, tokens)


def neighbour_sum(maps: Tensor) -> Tensor:
    """Sum over the 8 neighbours on the grid, [B, rows, cols, C] -> the same shape."""
    rows = maps.shape[1]
    padded = F.pad(maps, (0, 0, 1, 1, 1, 1))
    beside = padded[:, :, :-2] + padded[:, :, 2:]  # [B, rows + 2, cols, C]
    across = beside + padded[:, :, 1:-1]
    # The patch itself is left out, not subtracted: an anomaly may be far longer than the others.
    return across[:, :rows] + beside[:, 1:-1] + across[:, 2:]
