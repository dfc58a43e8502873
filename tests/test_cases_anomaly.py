"""Chapter 2's made case and its flags on scenes: each against what is known of it."""

import numpy as np
import pytest
import torch

from scclip_core import SCCLIP
from scclip_core.segmentation import upsample
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import cases_anomaly as cases
from scclip_lab.studies import ch01_shapes as shapes
from scclip_lab.studies import ch02_outliers as outliers
from scclip_lab.studies import flags_anomaly as flags
from scclip_lab.studies.drawing import read_maps


def case_of(where, **options):
    return cases.make_case(where, **options)


def test_ordinary_tokens_are_all_named_right():
    case = case_of(cases.block(0, 0))
    assert not case.outliers.any()
    assert torch.equal(cases.name_tokens(case, case.tokens), case.labels)


def test_outliers_are_longer_lie_on_the_ground_and_take_the_attention():
    case = case_of(cases.scattered(4, np.random.default_rng(0)))
    length = case.tokens[0].norm(dim=1)
    assert length[case.outliers].min() > 8 * length[~case.outliers].max()
    assert (case.labels[case.outliers] == 0).all() and case.outliers.sum() == 4
    weights = cases.attention_weights(case.tokens)[0]
    assert weights[:, case.outliers].sum(1).min() > 0.99
    assert len(cases.name_tokens(case, case.tokens).unique()) == 1


def test_repair_gives_the_attention_back():
    case = case_of(cases.scattered(4, np.random.default_rng(0)))
    _, flagged, repaired = cases.flag_and_repair(case.tokens)
    assert flagged[case.outliers].all()
    weights = cases.attention_weights(repaired)[0]
    assert weights[:, case.outliers].sum(1).max() < 0.2
    assert (cases.name_tokens(case, repaired) == case.labels).float().mean() > 0.9


def test_more_than_k_identical_outliers_hide_one_another():
    many = cases.scattered(40, np.random.default_rng(0))
    for alike, found in ((True, 0), (False, 10)):
        case = case_of(many, alike=alike)
        assert cases.flag_and_repair(case.tokens)[1][case.outliers].sum() == found


def test_a_block_is_repaired_from_clean_neighbours_alone():
    case = case_of(cases.block(2, 2))
    right = {
        kind: (cases.name_tokens(case, cases.flag_and_repair(case.tokens, kind)[2]) == case.labels)
        for kind in ("all", "clean")
    }
    objects = case.labels > 0
    assert right["all"][objects].float().mean() < 0.1 < right["clean"][objects].float().mean()


def test_scattered_outliers_do_not_touch_while_there_is_room():
    where = cases.scattered(12, np.random.default_rng(1))
    row, col = where.nonzero().T
    apart = torch.maximum((row[:, None] - row).abs(), (col[:, None] - col).abs())
    assert apart.fill_diagonal_(9).min() >= 2
    with pytest.raises(ValueError, match=r"count must be in 0..\d+, .* got 197"):
        cases.scattered(197, np.random.default_rng(0))


def test_tables_of_the_case_have_every_state_and_curve():
    table = cases.repair_maps()
    assert table["panel"].nunique() == 12 and len(table) == 12 * 196
    table = cases.limits(seeds=2, counts=(1, 28, 32))
    assert list(table["panel"].unique()) == ["flagged", "objects right", "ground right"]
    assert table["value"].between(0, 1).all() and (table["seeds"] == 2).all()


def test_every_patch_has_one_place():
    scene = evaluation_scene(TEST, 1, 0)
    places = flags.patch_places(scene)
    inside = scene.labels.reshape(14, 16, 14, 16)
    assert (inside.transpose(0, 2, 1, 3)[places == 3] < N_OBJECTS).all()
    assert (inside.transpose(0, 2, 1, 3)[places == 0] == WORDS.index(scene.background)).all()
    assert set(np.unique(places)) == {0, 1, 2, 3}


def test_shares_of_patches_and_of_flags_sum_to_one(mini):
    table = flags.measure_flags(mini, 2)
    shares = table.groupby("what")["value"].sum()
    assert shares["patches"] == pytest.approx(1) and shares["flags"] == pytest.approx(1)
    assert table["value"].dropna().between(0, 1).all()


def test_identical_anomalies_have_each_other_for_neighbours():
    tokens = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    where = np.arange(80) < 5
    tokens[:5] = 7
    found = flags.describe_anomalies(tokens, where, 10)
    assert found["anomalies among the 10 nearest"] == 4
    assert found["distance to the nearest"] < 1e-3 < 1 < found["distance to neighbour 10"]
    assert found["LOF of the anomalies"] >= found["LOF that is flagged"] - 1e-5


def test_planted_anomalies_are_described_by_source(mini):
    table = outliers.describe_planted(mini, 1)
    assert list(table["source"]) == list(outliers.SOURCES)
    assert table.loc[table["source"] == "occlusion", "anomalies among the 30 nearest"].item() <= 9


def test_weights_by_word_sum_to_one_and_the_label_maps_are_of_both_scenes(mini):
    table = shapes.weight_by_word(mini, shapes.both_scenes()["a failure"], "lion")
    assert np.allclose(table.drop(columns="weights").sum(axis=1), 1, atol=1e-4)
    maps = shapes.compare_scenes(mini)
    assert list(maps["scene"].unique()) == list(shapes.both_scenes())
    assert maps.groupby("scene")["method"].nunique().tolist() == [4, 4]


def test_far_from_outlines_the_grid_loses_nothing(mini):
    table = shapes.right_near_outlines(mini).set_index(["scene", "where"])
    assert (table.xs("elsewhere", level="where")["grid"] > 0.999).all()
    assert np.allclose(table.groupby(level="scene")["pixels"].sum(), 1)


def test_the_best_of_the_logit_maps_is_the_label_map(mini):
    scene = shapes.example_scene()
    maps = read_maps(shapes.logit_maps(mini, scene))
    assert set(scene.words) <= set(maps)
    stacked = torch.tensor(np.stack(list(maps.values()), -1))[None]  # [1, rows, cols, words]
    best = upsample(stacked, scene.labels.shape).argmax(1)[0]
    found = torch.tensor([WORDS.index(word) for word in maps])[best]
    label_map = SCCLIP(mini).segment(stack_images(mini, [scene]), WORDS)[0]
    assert (found == label_map).float().mean() > 0.999
