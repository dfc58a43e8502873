"""Gains by place, errors of the residual, and over-smoothing, on scenes of known labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from scclip_core.similarity import adaptive_aggregate, threshold_similarity
from scclip_lab.datasets.scenes import N_OBJECTS, WORDS, Scene
from scclip_lab.studies import ch03_similarity as similarity
from scclip_lab.studies import ch04_attention as attention
from scclip_lab.studies import draw, places
from scclip_lab.studies.captions import CAPTIONS

DOG, CAT, GRASS = 3, 5, N_OBJECTS


@pytest.fixture
def scene():
    """32 x 32 pixels, four patches: one of an object, one cut, and two of background."""
    labels = np.full((32, 32), GRASS, np.uint8)
    labels[:16, :24] = DOG
    return Scene(np.zeros((32, 32, 3), np.uint8), labels, (WORDS[DOG],), WORDS[GRASS])


def test_a_patch_is_cut_where_it_has_two_labels(scene):
    assert places.cut_patches(scene.labels).tolist() == [[False, True], [False, False]]


def test_pixels_are_counted_at_their_place(scene):
    all_dog = torch.full((32, 32), DOG)
    assert places.count_places(all_dog, scene).tolist() == [
        [256, 256],
        [128, 128],
        [0, 512],
        [0, 128],
    ]


def test_no_pixels_have_no_share():
    shares = places.share_right(np.array([[1, 4], [0, 0]]))
    assert shares[0] == 0.25 and np.isnan(shares[1])


def test_an_unknown_module_is_refused():
    with pytest.raises(ValueError, match=r"module must be one of repair, .* got 'everything'"):
        places.gain_by_place(None, "everything", 1)


def test_gains_of_a_module_are_drawn_with_both_styles(mini, tmp_path):
    table = places.gain_by_place(mini, "first_aggregation", 2)
    assert table.groupby("styles")["share"].sum().round(6).eq(1).all()
    for name in ("03_where", "04_where"):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        assert draw(name, tmp_path).axes
        assert CAPTIONS[name](table).startswith("Training styles: most at ")


def test_weights_of_wrong_patches_divide_among_their_partners(mini):
    table = places.partners_of_wrong_patches(mini, 3)
    for _, rows in table[table["patches"] > 0].groupby("styles"):
        assert rows["value"].sum() == pytest.approx(1, abs=1e-5)


def test_wrong_pixels_are_told_apart_and_add_up(scene):
    read = np.full((32, 32), GRASS)
    assert attention.wrong_pixels(scene.labels, scene) == [0, 0, 0, 0]
    assert attention.wrong_pixels(read, scene) == [0, 0.375, 0, 0]
    assert attention.wrong_pixels(np.full((32, 32), DOG), scene) == [0.625, 0, 0, 0]
    assert attention.wrong_pixels(np.full((32, 32), CAT), scene) == [0, 0, 0, 1]


def test_both_class_tokens_together_are_the_residual_of_the_method(mini):
    table = attention.residual_errors(mini, 1, weight=0.3)
    assert list(table["branch"].unique()) == list(attention.BRANCHES)
    index, seed = 0, 2
    scene = attention.evaluation_scene(attention.VALIDATION, seed, index)
    images = attention.stack_images(mini, [scene])
    labels = attention.SCCLIP(mini).segment(images, WORDS)[0].numpy()
    both = table[table["branch"] == "both"]["value"]
    assert np.allclose(both, attention.wrong_pixels(labels, scene), atol=1e-3)


def test_powers_of_the_adjacency_are_repeated_aggregations():
    graph = threshold_similarity(torch.rand(1, 9, 9).double(), 0.4)
    tokens = repeated = torch.randn(1, 9, 4).double()
    for _ in range(3):
        repeated = adaptive_aggregate(repeated, graph)
    adjacency = similarity.normalised_adjacency(graph)
    powers = torch.linalg.matrix_power(adjacency, 3) @ tokens
    assert torch.allclose(powers, repeated, atol=1e-6)


def test_over_smoothing_starts_at_no_gain_and_is_drawn(mini, tmp_path):
    table = similarity.over_smoothing(mini, 2, powers=(0, 1, 256))
    start, end = table.iloc[0], table.iloc[-1]
    assert start["gain"] == start["objects right, gain"] == start["background right, gain"] == 0
    assert end["different labels"] > start["different labels"] + 0.1
    assert similarity.smoothing_gains(table).loc[0, "mIoU"] == "0.0 [0.0, 0.0]"
    table.to_csv(tmp_path / "03_smoothing.csv", index=False)
    assert draw("03_smoothing", tmp_path).axes
    assert "256 steps by" in CAPTIONS["03_smoothing"](pd.read_csv(tmp_path / "03_smoothing.csv"))


def test_cut_patches_come_last_within_their_label():
    scene = similarity.example_scene()
    order = similarity.patches_by_label(scene)
    assert sorted(order.tolist()) == list(range(196))
    labels = similarity.patch_labels(scene).ravel()[order]
    cut = places.cut_patches(scene.labels).ravel()[order]
    assert (np.diff(labels.astype(int)) >= 0).all()
    for label in np.unique(labels):
        assert (np.diff(cut[labels == label].astype(int)) >= 0).all()


def test_normalisations_differ_in_length_more_than_in_direction(mini):
    found = similarity.compare_normalisations(mini, 2).set_index("what")["value"]
    assert found["cosine"] > 0.98
    assert 0 < found["distance, as a share of the length"] < 0.5
