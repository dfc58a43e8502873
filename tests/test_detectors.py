"""Detectors find what stands apart, cost what they say, and change nothing but scores."""

import numpy as np
import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig, load_clip
from scclip_core.anomaly import local_outlier_factor
from scclip_core.config import CHOICES
from scclip_core.detectors import (
    DETECTORS,
    cosine_lof,
    detect,
    grid_lof,
    knn_distance,
    landmark_lof,
    neighbour_dissimilarity,
    projected_lof,
    unusual_norm,
)
from scclip_lab.datasets.scenes import VALIDATION, evaluation_scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies.ch11_flags import above_deviation, above_gap, above_limit
from scclip_lab.studies.ch11_planting import (
    NEURON_BLOCK,
    WithRegister,
    fired,
    low_information,
    plant_neuron,
    plant_tokens,
)
from scclip_lab.studies.reading import Continued

GRID = (8, 9)
# Detectors that do not look at the grid, nor choose positions at random.
FREE = ("lof", "projection", "cosine", "knn", "norm", "unusual-norm")


def tokens_of(seed, batch=1, n=72, width=24, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(width, generator=generator, dtype=dtype)
    return 4 * centre + torch.randn(batch, n, width, generator=generator, dtype=dtype)


def lof_on_the_grid(points, grid, k, radius):
    """LOF in plain loops, with neighbours from the window of each patch alone."""
    rows, cols = grid
    places = [divmod(i, cols) for i in range(rows * cols)]
    away = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = []
    for i, (row, col) in enumerate(places):
        window = [
            j
            for j, (r, c) in enumerate(places)
            if j != i and abs(r - row) <= radius and abs(c - col) <= radius
        ]
        near.append(sorted(window, key=lambda j, i=i: away[i, j])[:k])
    reach = [
        np.mean([max(away[j, near[j][-1]], away[i, j]) for j in near[i]]) for i in range(len(near))
    ]
    return np.array([reach[i] * np.mean([1 / reach[j] for j in near[i]]) for i in range(len(near))])


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("position", [0, 30, 71])
def test_every_detector_finds_an_isolated_token(name, position):
    tokens = tokens_of(0)
    tokens[0, position] = -6 * tokens[0, position]
    assert detect(name, tokens, GRID).argmax() == position


@pytest.mark.parametrize("name", FREE)
def test_a_permutation_of_the_patches_permutes_the_scores(name):
    tokens, order = tokens_of(1), torch.randperm(72, generator=torch.Generator().manual_seed(0))
    permuted = detect(name, tokens[:, order], GRID)
    assert torch.allclose(permuted, detect(name, tokens, GRID)[:, order])


@pytest.mark.parametrize("name", ["grid", "neighbours"])
def test_the_detectors_on_the_grid_depend_on_who_is_beside_whom(name):
    tokens = tokens_of(1)
    turned = tokens.unflatten(1, GRID).flip(1, 2).flatten(1, 2)
    scores = detect(name, tokens, GRID).unflatten(1, GRID)
    assert torch.allclose(detect(name, turned, GRID), scores.flip(1, 2).flatten(1))
    order = torch.randperm(72, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(detect(name, tokens[:, order], GRID), scores.flatten(1)[:, order])


@pytest.mark.parametrize(
    ("grid", "k", "radius"), [((6, 5), 3, 1), ((4, 7), 8, 2), ((1, 9), 2, 2), ((5, 5), 15, 3)]
)
def test_lof_on_the_grid_is_lof_restricted_to_the_window(grid, k, radius):
    tokens = tokens_of(2, batch=2, n=grid[0] * grid[1])
    scores = grid_lof(tokens, grid, k, radius)
    for own, points in zip(scores, tokens.numpy(), strict=True):
        np.testing.assert_allclose(own, lof_on_the_grid(points, grid, k, radius), rtol=1e-9)


def test_a_window_as_large_as_the_grid_gives_exact_lof():
    tokens = tokens_of(3, n=20)
    scores = grid_lof(tokens, (4, 5), k=7, radius=4)
    assert torch.allclose(scores, local_outlier_factor(tokens, 7))


def test_a_small_grid_has_as_many_neighbours_as_its_corner_sees():
    assert torch.allclose(grid_lof(tokens_of(0, n=2), (1, 2)), torch.ones(1, 2).double())
    tokens = tokens_of(0, n=4)
    assert torch.allclose(grid_lof(tokens, (2, 2)), local_outlier_factor(tokens, 3))


@pytest.mark.parametrize("landmarks", [72, 500])
def test_landmarks_that_are_all_tokens_give_exact_lof(landmarks):
    tokens = tokens_of(4, batch=2)
    assert torch.allclose(landmark_lof(tokens, 30, landmarks), local_outlier_factor(tokens, 30))


def test_other_landmarks_give_other_scores_and_the_same_seed_the_same():
    tokens = tokens_of(4)
    first, again, other = (landmark_lof(tokens, 10, 24, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_many_random_dimensions_come_near_to_exact_lof():
    tokens = tokens_of(5)
    exact = local_outlier_factor(tokens, 30)
    errors = [(projected_lof(tokens, 30, d) - exact).abs().max() for d in (4, 4096)]
    assert errors[1] < 0.02 < errors[0]


def test_unit_tokens_and_cosines_do_not_see_lengths():
    tokens = tokens_of(6)
    longer = tokens * torch.rand(1, 72, 1, generator=torch.Generator().manual_seed(0)).exp()
    assert torch.allclose(cosine_lof(tokens, 30), cosine_lof(longer, 30))
    before, after = (neighbour_dissimilarity(t, GRID) for t in (tokens, longer))
    assert torch.allclose(before, after)


def test_an_unusual_norm_may_be_short_or_long():
    tokens = tokens_of(6)
    tokens[0, 3] *= 1 / 9
    tokens[0, 4] *= 9
    assert set(unusual_norm(tokens)[0].topk(2).indices.tolist()) == {3, 4}


def test_the_kth_neighbour_is_found_and_a_token_is_not_its_own():
    points = torch.tensor([[[0.0], [1.0], [3.0], [7.0]]])
    assert knn_distance(points, 1).tolist() == [[1, 1, 2, 4]]
    assert knn_distance(points, 3).tolist() == [[7, 6, 4, 7]]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_equals_its_images_and_nothing_is_changed(name):
    tokens = tokens_of(7, batch=3, dtype=torch.float32)
    before = tokens.clone()
    scores = detect(name, tokens, GRID)
    assert torch.equal(tokens, before) and scores.shape == (3, 72) and torch.isfinite(scores).all()
    for i in range(3):
        one = detect(name, tokens[i : i + 1], GRID)
        assert torch.allclose(scores[i : i + 1], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DETECTORS)
def test_half_precision_is_computed_in_float32(name):
    tokens = tokens_of(8, dtype=torch.float32).half()
    assert torch.equal(detect(name, tokens, GRID), detect(name, tokens.float(), GRID))


@pytest.mark.parametrize("name", DETECTORS)
def test_equal_tokens_have_finite_scores(name):
    assert torch.isfinite(detect(name, torch.ones(1, 72, 4), GRID)).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda t: detect("forest", t, GRID), "name must be one of lof, landmarks, .*'forest'"),
        (lambda t: detect("grid", t, (7, 7)), "tokens must be .batch, 49, width. for a 7 x 7 grid"),
        (lambda t: grid_lof(t[:, :1], (1, 1)), r"grid must be of two patches at least, got \(1, 1"),
        (lambda t: grid_lof(t, GRID, radius=0), "radius must be at least 1, got 0"),
        (lambda t: grid_lof(t, GRID, k=0), "k must be at least 1, got 0"),
        (lambda t: landmark_lof(t, 30, 1), "landmarks must be at least 2, got 1"),
        (lambda t: landmark_lof(t, 72), "k must be at least 1 and less than the 72 .* got 72"),
        (lambda t: knn_distance(t, 0), "k must be at least 1 and less than the 72 .* got 0"),
        (lambda t: projected_lof(t, 30, 0), "dimensions must be at least 1, got 0"),
        (lambda t: detect("norm", t[0], GRID), "points must be .batch, points, dimensions."),
        (lambda t: detect("knn", t * torch.nan, GRID), "points must be finite"),
    ],
)
def test_what_makes_no_sense_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call(tokens_of(0))


@pytest.fixture(scope="module")
def model():
    return load_clip("mini")


@pytest.fixture(scope="module")
def images(model):
    return stack_images(model, [evaluation_scene(VALIDATION, 11, i) for i in range(2)])


def test_an_unknown_detector_is_refused_by_name():
    with pytest.raises(ValueError, match="detector must be one of lof, landmarks, grid, got 'knn'"):
        SCCLIPConfig(detector="knn")
    assert set(CHOICES["detector"]) <= set(DETECTORS)


def test_no_other_detector_has_the_published_variant():
    with pytest.raises(ValueError, match="detector must be lof where lof is published"):
        SCCLIPConfig(detector="grid", lof="published")


@pytest.mark.parametrize("name", CHOICES["detector"])
def test_the_pipeline_flags_by_the_detector_that_is_chosen(model, images, name):
    segmenter = SCCLIP(model, SCCLIPConfig(detector=name))
    _, cache = segmenter.run_with_cache(images, ["blocks.10.*", "stage3.*"])
    place = "stage3.lof_scores" if name == "lof" else "stage3.scores"
    wanted = detect(name, cache["blocks.10.hook_resid_post"][:, 1:], (14, 14))
    assert torch.equal(cache[place], wanted)
    assert cache["stage3.anomalous"].sum() == 20
    assert any(row["tensor"] == place for row in segmenter.trace(images))


@pytest.mark.parametrize("name", CHOICES["detector"])
@pytest.mark.parametrize("size", [(16, 32), (48, 80)])
def test_small_and_oblong_pictures_go_through(model, name, size):
    features = SCCLIP(model, SCCLIPConfig(detector=name)).features(torch.randn(1, 3, *size))
    assert torch.isfinite(features).all()


def test_planted_tokens_have_the_length_and_direction_that_is_asked_for():
    tokens, where = tokens_of(9, n=73), torch.zeros(1, 72, dtype=torch.bool)
    where[0, [2, 40]] = True
    usual = tokens[:, 1:].norm(dim=-1).median()
    for alike, cosine in ((True, 1.0), (False, None)):
        planted = plant_tokens(tokens, where, alike, 6.0)
        assert torch.equal(planted[:, 1:][~where], tokens[:, 1:][~where])
        changed, own = planted[:, 1:][where], tokens[:, 1:][where]
        assert torch.allclose(changed.norm(dim=-1), 6 * usual)
        if cosine is None:
            assert torch.allclose(torch.cosine_similarity(changed, own), torch.ones(2).double())
        else:
            assert torch.allclose(changed[0], changed[1])


def test_low_information_patches_are_those_with_plain_pixels():
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    images[:, :, :32] = 0.5
    where = low_information(images, 5)
    assert where.sum(1).tolist() == [5, 5] and not where[:, 12:].any()


def test_a_planted_neuron_makes_long_tokens_and_a_register_takes_them(model, images):
    damaged = plant_neuron(model)
    clean, planted = SCCLIP(model).encode(images), SCCLIP(damaged).encode(images)
    where = fired(clean, planted)
    assert where.any() and where.float().mean() < 0.15
    lengths = planted[NEURON_BLOCK][:, 1:].norm(dim=-1)
    assert lengths[where].mean() > 2 * lengths[~where].mean()
    changed = [
        (a - b).abs().amax((1,)) > 0
        for a, b in zip(damaged.parameters(), model.parameters(), strict=True)
        if a.ndim == 2 and not torch.equal(a, b)
    ]
    assert changed[0].sum() == 1
    neuron = int(changed[0].nonzero()[0])
    register = WithRegister(damaged, ((NEURON_BLOCK, neuron),))
    after = register.encode(images)[NEURON_BLOCK][:, 1:].norm(dim=-1)
    assert after[where].mean() < 1.5 * clean[NEURON_BLOCK][:, 1:].norm(dim=-1)[where].mean()


def test_sc_clip_continued_after_its_blocks_is_sc_clip(model, images):
    segmenter, continued = SCCLIP(model), Continued(model)
    _, cache = segmenter.run_with_cache(images, "stage3.anomalous")
    layers = segmenter.encode(images)
    given = continued.repaired_at(images, layers, cache["stage3.anomalous"])
    assert torch.equal(given, segmenter.features(images))


def test_the_rules_flag_what_they_say():
    scores = torch.tensor([[1.0, 1.1, 0.9, 1.0, 1.05, 3.0, 2.9, 0.95, 1.0, 1.02]])
    both = [False] * 5 + [True, True] + [False] * 3
    assert above_limit(scores).tolist() == [both]
    assert above_gap(scores, share=0.5).tolist() == [both]
    assert above_deviation(scores).tolist() == [both]
    even = torch.linspace(0.9, 1.1, 10)[None]
    assert not above_limit(even).any() and not above_deviation(even).any()
    assert above_gap(even).sum() == 1
