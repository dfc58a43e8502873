"""Local outlier factor: equal to scikit-learn's, and what repair does to the patches it flags."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import LocalOutlierFactor

from scclip_core.anomaly import (
    flag_anomalies,
    local_outlier_factor,
    repair_anomalies,
    squared_distances,
)

SEEDS = st.integers(0, 2**32 - 1)


def sklearn_lof(points: np.ndarray, k: int) -> np.ndarray:
    lof = LocalOutlierFactor(n_neighbors=k, algorithm="kd_tree").fit(points)
    return -lof.negative_outlier_factor_


def cloud(kind: str, seed: int, n: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, dim))
    if kind == "clustered":
        points = 0.01 * points + 5 * rng.standard_normal((3, dim))[rng.integers(3, size=n)]
    if kind == "duplicated":
        points[n // 2 :] = points[: n - n // 2]
    if kind == "shifted":
        points = points + 100
    return points


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "clustered", "duplicated", "shifted"])
def test_squared_distances_are_sums_of_squared_differences(kind, dtype):
    points = torch.from_numpy(np.stack([cloud(kind, seed, 30, 7) for seed in (0, 1)])).to(dtype)
    expected = (points[:, :, None] - points[:, None]).square().sum(-1)
    found = squared_distances(points)
    assert found.dtype == dtype
    # In float32 the error grows with the spread of the points, not with their distance from 0.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    spread = (points - points.mean(1, keepdim=True)).square().sum(-1).max()
    assert (found - expected).abs().max() <= tolerance * spread
    assert not found.diagonal(dim1=1, dim2=2).any()
    assert (found >= 0).all()


def test_in_float64_duplicates_are_exactly_0_apart_and_near_ones_lose_no_digits():
    points = torch.from_numpy(cloud("duplicated", 0, 200, 64))[None]
    assert not squared_distances(points)[0].diagonal(100).any()
    points[0, 100:] += 1e-7
    near = squared_distances(points)[0].diagonal(100)
    assert torch.allclose(near, torch.full_like(near, 64e-14), rtol=1e-6, atol=0)


def test_rounding_makes_no_distance_negative():
    near = cloud("random", 0, 10, 16).repeat(20, 0) + 1e-5 * cloud("random", 1, 200, 16)
    points = torch.from_numpy(near).float()[None]
    assert (squared_distances(points) >= 0).all()
    assert torch.isfinite(local_outlier_factor(points, 10)).all()


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["random", "clustered", "duplicated", "shifted"]),
    seed=SEEDS,
    n=st.integers(12, 80),
    dim=st.integers(2, 20),
    k=st.integers(3, 11),
)
def test_scores_equal_scikit_learn(kind, seed, n, dim, k):
    points = cloud(kind, seed, n, dim)
    ours = local_outlier_factor(torch.from_numpy(points)[None], k)[0].numpy()
    np.testing.assert_allclose(ours, sklearn_lof(points, k), rtol=1e-9, atol=1e-9)


def test_more_copies_of_a_point_than_neighbours_are_handled_as_scikit_learn_does():
    points = np.repeat(np.random.default_rng(0).standard_normal((5, 4)), 6, axis=0)
    ours = local_outlier_factor(torch.from_numpy(points)[None], 4)[0].numpy()
    np.testing.assert_allclose(ours, sklearn_lof(points, 4), rtol=1e-9, atol=1e-9)


def test_float32_agrees_with_float64_on_tokens():
    points = torch.randn(
        2, 196, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    single, double = local_outlier_factor(points.float(), 30), local_outlier_factor(points, 30)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=1e-4)


def test_the_published_variant_is_its_formula():
    points = torch.randn(1, 20, 5, generator=torch.Generator().manual_seed(0))
    k, scores = 6, []
    squared = [[float((a - b).square().sum()) for b in points[0]] for a in points[0]]
    near = [
        sorted((d, j) for j, d in enumerate(row) if j != i)[:k] for i, row in enumerate(squared)
    ]
    # reachability is the larger of a distance and the point's own k-distance: always the latter
    density = [k / sum(max(d, row[-1][0]) for d, _ in row) for row in near]
    scores = [sum(density[j] for _, j in row) / k / density[i] for i, row in enumerate(near)]
    ours = local_outlier_factor(points, k, "published")[0]
    np.testing.assert_allclose(ours.numpy(), scores, rtol=1e-4)


def test_copies_of_a_point_are_dense_in_the_published_variant_too():
    points = torch.randn(1, 20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points[0, :8] = points[0, 0]  # eight copies, whose 4th neighbour is at distance 0
    squared = (points[0, :, None] - points[0]).square().sum(-1).fill_diagonal_(torch.inf)
    k_distance, neighbours = (part.tolist() for part in squared.sort())
    density = [1 / (row[3] + 1e-10) for row in k_distance]
    expected = [
        sum(density[j] for j in row[:4]) / 4 / density[i] for i, row in enumerate(neighbours)
    ]
    scores = local_outlier_factor(points, 4, "published")[0]
    np.testing.assert_allclose(scores[:8].numpy(), 1, rtol=1e-12)
    # Beyond the copies, ties do not matter: every copy has one density.
    np.testing.assert_allclose(scores[8:].numpy(), expected[8:], rtol=1e-9)
    assert (scores > 0).all()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_a_permutation_of_the_points_permutes_the_scores(seed):
    points = torch.from_numpy(cloud("random", seed, 30, 5))[None]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(30))
    for variant in ("standard", "published"):
        scores = local_outlier_factor(points, 7, variant)
        assert torch.allclose(local_outlier_factor(points[:, order], 7, variant), scores[:, order])


def test_an_isolated_point_has_the_highest_score():
    points = torch.from_numpy(cloud("random", 0, 50, 8))[None]
    points[0, 17] += 20
    for variant in ("standard", "published"):
        assert local_outlier_factor(points, 10, variant).argmax() == 17


def test_a_batch_equals_its_sets_one_by_one():
    points = torch.randn(4, 40, 6, generator=torch.Generator().manual_seed(0))
    together = local_outlier_factor(points, 9)
    apart = torch.cat([local_outlier_factor(one, 9) for one in points.split(1)])
    assert torch.allclose(together, apart, atol=1e-6)


@pytest.mark.parametrize("variant", ["standard", "published"])
def test_identical_points_are_all_equally_ordinary(variant):
    scores = local_outlier_factor(torch.ones(1, 12, 3), 4, variant)
    assert torch.allclose(scores, torch.ones(1, 12))
    assert not flag_anomalies(scores, 0.05).any()


@pytest.mark.parametrize(
    ("points", "k", "variant", "told"),
    [
        (torch.zeros(5, 3), 2, "standard", "points must be .*dimensions., got shape .5, 3."),
        (torch.zeros(1, 1, 5, 3), 2, "standard", "points must be .*, got shape .1, 1, 5, 3."),
        (torch.zeros(1, 5, 3), 6, "standard", "k must be .*, got 6"),
        (torch.zeros(1, 5, 3), 5, "standard", "k must be at least 1 and less than the 5 points"),
        (torch.zeros(1, 5, 3), 0, "standard", "k must be at least 1"),
        (torch.zeros(1, 5, 3), 2, "fast", "variant must be standard or published, got 'fast'"),
        (torch.full((1, 5, 3), torch.nan), 2, "standard", "finite"),
        (torch.full((1, 5, 3), torch.inf), 2, "standard", "finite"),
    ],
)
def test_bad_points_are_refused(points, k, variant, told):
    with pytest.raises(ValueError, match=told):
        local_outlier_factor(points, k, variant)


def test_shapes_alone_are_computed_where_there_are_no_values():
    assert local_outlier_factor(torch.zeros(2, 5, 3, device="meta"), 2).shape == (2, 5)


@given(seed=SEEDS, contamination=st.floats(0.01, 0.5))
@settings(deadline=None, max_examples=20)
def test_what_is_flagged_is_what_scikit_learn_flags(seed, contamination):
    points = cloud("random", seed, 60, 4)
    fitted = (
        LocalOutlierFactor(n_neighbors=10, contamination=contamination).fit_predict(points) == -1
    )
    scores = local_outlier_factor(torch.from_numpy(points)[None], 10)
    assert flag_anomalies(scores, contamination)[0].tolist() == fitted.tolist()


def test_of_196_patches_ten_are_flagged():
    scores = torch.randperm(196, generator=torch.Generator().manual_seed(0)).float()[None]
    assert flag_anomalies(scores, 0.05).sum() == 10


@pytest.mark.parametrize("contamination", [0.0, -0.1, 0.51])
def test_contamination_out_of_range_is_refused(contamination):
    with pytest.raises(ValueError, match="contamination must be in"):
        flag_anomalies(torch.zeros(1, 4), contamination)


def slow_repair(tokens, anomalous, grid, repair_from):
    rows, cols = grid
    result = tokens.clone()
    for b, index in anomalous.nonzero().tolist():
        row, col = divmod(index, cols)
        near = [
            r * cols + c
            for r in range(max(row - 1, 0), min(row + 2, rows))
            for c in range(max(col - 1, 0), min(col + 2, cols))
            if (r, c) != (row, col) and (repair_from == "all" or not anomalous[b, r * cols + c])
        ]
        if near:
            result[b, index] = tokens[b, near].mean(0)
    return result


@given(
    seed=SEEDS,
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    kind=st.sampled_from(["all", "clean"]),
)
@settings(deadline=None, max_examples=60)
def test_repair_equals_its_loop(seed, rows, cols, kind):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, rows * cols, 3, generator=generator)
    anomalous = torch.rand(2, rows * cols, generator=generator) < 0.4
    before = tokens.clone(), anomalous.clone()
    fixed = repair_anomalies(tokens, anomalous, (rows, cols), kind)
    assert torch.allclose(fixed, slow_repair(tokens, anomalous, (rows, cols), kind), atol=1e-5)
    assert torch.equal(tokens, before[0])
    assert torch.equal(anomalous, before[1])


def test_a_corner_takes_the_mean_of_its_three_neighbours():
    tokens = torch.arange(9.0).view(1, 9, 1)
    corner = torch.zeros(1, 9, dtype=torch.bool)
    corner[0, 0] = True
    assert repair_anomalies(tokens, corner, (3, 3))[0, 0] == pytest.approx((1 + 3 + 4) / 3)


def test_a_token_among_anomalies_alone_stays_as_it_is_when_only_clean_ones_repair():
    tokens = torch.arange(9.0).view(1, 9, 1)
    everything = torch.ones(1, 9, dtype=torch.bool)
    assert torch.equal(repair_anomalies(tokens, everything, (3, 3), "clean"), tokens)


def test_nothing_anomalous_changes_nothing():
    tokens = torch.randn(2, 12, 5)
    assert torch.equal(
        repair_anomalies(tokens, torch.zeros(2, 12, dtype=torch.bool), (3, 4)), tokens
    )


@pytest.mark.parametrize(
    ("tokens", "mask", "kind", "told"),
    [
        ((1, 8, 2), (1, 8), "all", r"tokens must be .batch, 9, width. .* \(1, 8, 2\)"),
        ((1, 10, 2), (1, 10), "all", r"for a 3 x 3 grid, got shape \(1, 10, 2\)"),
        ((1, 9), (1, 9), "all", r"tokens must be .*, got shape \(1, 9\)"),
        ((1, 9, 2, 1), (1, 9), "all", r"tokens must be .*, got shape \(1, 9, 2, 1\)"),
        ((1, 9, 2), (1, 8), "all", r"anomalous must be \(1, 9\), got \(1, 8\)"),
        ((1, 9, 2), (2, 9), "all", r"anomalous must be \(1, 9\), got \(2, 9\)"),
        ((2, 9, 2), (1, 9), "all", r"anomalous must be \(2, 9\), got \(1, 9\)"),
        ((1, 9, 2), (1, 9), "few", "repair_from must be all or clean, got 'few'"),
    ],
)
def test_bad_repairs_are_refused(tokens, mask, kind, told):
    with pytest.raises(ValueError, match=told):
        repair_anomalies(torch.zeros(tokens), torch.zeros(mask, dtype=torch.bool), (3, 3), kind)


def test_a_long_anomaly_costs_its_repaired_token_no_digits():
    tokens = torch.rand(1, 25, 4, generator=torch.Generator().manual_seed(0))
    tokens[:, 12] *= 1000
    flags = torch.zeros(1, 25, dtype=torch.bool)
    flags[:, 12] = True
    exact = repair_anomalies(tokens.double(), flags, (5, 5))
    low = repair_anomalies(tokens.bfloat16(), flags, (5, 5))
    assert (low.double() - exact)[:, 12].abs().max() < 0.01
