"""What the chapters measure: each study against a case whose answer is known."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.neighbors import LocalOutlierFactor

from scclip_core import SCCLIPConfig, load_clip, studies
from scclip_core.config import SWITCHES
from scclip_core.evaluation import stack_images
from scclip_core.metrics import GAINED, class_counts
from scclip_core.plots import save_table
from scclip_core.similarity import adaptive_aggregate, threshold_similarity
from scclip_core.studies import (
    ablation,
    attention,
    captions,
    claims,
    outliers,
    shapes,
    similarity,
    timing,
    verdicts,
)
from scclip_core.studies.drawing import map_rows, read_maps


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini")


def test_the_four_formulas_are_the_local_outlier_factor():
    points = outliers.points_in_a_plane()
    oracle = -LocalOutlierFactor(10, algorithm="kd_tree").fit(points).negative_outlier_factor_
    assert np.allclose(outliers.lof_by_formula(points, 10)["lof"], oracle, atol=1e-9)


@pytest.mark.parametrize("source", outliers.SOURCES)
def test_planting_changes_ten_patches_and_no_other_pixel(source):
    scene = shapes.the_scene()
    planted, where = outliers.plant(scene, source, np.random.default_rng(3))
    changed = (planted.image != scene.image).any(-1)
    assert where.sum() == outliers.PLANTED
    assert not changed[~where.repeat(16, 0).repeat(16, 1)].any()
    assert changed.reshape(14, 16, 14, 16).any((1, 3))[where].all()
    assert np.array_equal(scene.image, shapes.the_scene().image)


def test_an_unknown_source_of_anomalies_is_refused():
    with pytest.raises(ValueError, match=r"source must be one of border, occlusion.* got 'rain'"):
        outliers.plant(shapes.the_scene(), "rain", np.random.default_rng(0))


@pytest.mark.parametrize("name", outliers.DETECTORS)
def test_a_far_away_token_has_the_highest_score_of_every_detector(name):
    tokens = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    tokens[7] = 12
    assert outliers.DETECTORS[name](tokens).argmax() == 7


def test_maps_survive_the_table():
    maps = {"a": torch.rand(3, 5), "b": torch.rand(3, 5)}
    read = read_maps(map_rows(maps))
    assert list(read) == ["a", "b"]
    assert all(np.allclose(read[name], maps[name]) for name in maps)


def test_a_patch_by_hand_is_the_models_own(mini):
    with torch.no_grad():
        table = shapes.patch_by_hand(mini, stack_images(mini, [shapes.the_scene()]), *shapes.PATCH)
    assert table["largest difference to the model"].max() < 1e-4


def test_shapes_on_the_meta_device_are_those_of_a_live_run(mini):
    live = shapes.walk(mini, shapes.the_scene())
    table = shapes.compare_walks({"mini": live, "ViT-B-16": shapes.walk_of_shapes("ViT-B-16")})
    assert len(table) >= 30
    for row in table.itertuples():
        assert row[3].count(",") == row[4].count(",")
    assert table.set_index("tensor").loc["projected", "ViT-B-16"] == "[1, 196, 512]"


def test_the_normalised_adjacency_aggregates_as_the_core_does():
    sparse = threshold_similarity(torch.rand(2, 9, 9), 0.4)
    tokens = torch.randn(2, 9, 4)
    assert torch.allclose(
        similarity.normalised_adjacency(sparse) @ tokens, adaptive_aggregate(tokens, sparse), atol=1e-6
    )


def test_sliders_show_the_map_of_a_patch_once(mini, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    widget = similarity.explore(mini, shapes.the_scene())
    assert [slider.description for slider in widget.children[:3]] == ["row", "col", "layer"]
    assert [slider.max for slider in widget.children[:3]] == [13, 13, mini.depth - 2]
    shown.clear()
    widget.f(row=8, col=3, layer=3)
    assert [axis.get_title() for axis in shown[-1].axes[:2]] == ["the picture", "layer 3"]
    assert len(shown) == 1 and not plt.get_fignums()


def test_every_kind_of_attention_has_rows_that_sum_to_one(mini):
    maps = attention.attention_maps(mini, stack_images(mini, [shapes.the_scene()]), SCCLIPConfig())
    assert set(maps) == set(attention.KINDS)
    for kind, weights in maps.items():
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-4), kind


def test_object_and_background_accuracy_make_up_pixel_accuracy():
    confusion = np.zeros((56, 56), int)
    confusion[3, 3], confusion[3, 50], confusion[50, 50] = 6, 2, 12
    assert attention.object_accuracy(class_counts(confusion)) == pytest.approx(6 / 8)
    assert attention.background_accuracy(class_counts(confusion)) == pytest.approx(1)


def test_ablations_start_with_all_off_end_with_the_seed_and_leave_out_one_each():
    configs = ablation.ablation_configs()
    assert configs["all off"] == SCCLIPConfig.maskclip()
    assert configs[f"add {SWITCHES[-1]}"] == SCCLIPConfig()
    for name in SWITCHES:
        differs = [
            f.name
            for f in dataclasses.fields(SCCLIPConfig)
            if getattr(configs[f"without {name}"], f.name) != getattr(SCCLIPConfig(), f.name)
        ]
        assert differs == [name]


def test_added_gains_sum_to_the_total():
    table = studies.stored("05_modules")
    summed = ablation.overlap(table).query("whose == 'here, added'")
    assert np.allclose(summed["sum of gains"], summed["total gain"], atol=1e-3)
    assert table["scenes"].min() >= 200


def test_the_winner_takes_the_best_setting_of_every_parameter():
    rows = [("beta", b, v, 0, 1) for b, v in ((0.2, 0.1), (0.6, 0.3))]
    rows += [("lof_neighbors", k, v, 0, 1) for k, v in ((5, 0.5), (30, 0.2))]
    table = pd.DataFrame(rows, columns=["parameter", "setting", "value", "low", "high"])
    chosen = ablation.winner(table)
    assert (chosen.beta, chosen.lof_neighbors, chosen.res_cls) == (0.6, 5, 0.3)


@pytest.mark.parametrize(("start", "end", "kept"), [(0.4, 0.3, (9, 10)), (0.3, 0.4, (3, 6))])
def test_of_two_ends_that_leave_no_layer_the_better_one_is_taken(start, end, kept):
    rows = [("multi_start_idx", 9, start), ("multi_end_idx", 6, end)]
    chosen = ablation.winner(pd.DataFrame(rows, columns=["parameter", "setting", "value"]))
    assert (chosen.multi_start_idx, chosen.multi_end_idx) == kept


@pytest.mark.parametrize(
    ("value", "gain_low", "verdict"),
    [(0.1, 0.01, verdicts.HOLDS), (0.3, 0.01, verdicts.FAILS), (0.3, -0.01, verdicts.UNDECIDED)],
)
def test_a_best_setting_is_refuted_only_by_a_paired_gain_above_zero(value, gain_low, verdict):
    rows = [("beta", 0.4, 0.2, 0.1, 0.3, 0, 0, 0), ("beta", 0.6, value, 0, 1, value - 0.2, gain_low, 0.5)]
    table = pd.DataFrame(rows, columns=["parameter", "setting", *GAINED])
    assert verdicts.swept("beta", 0.4)(table)[1] == verdict


def test_exponents_of_exact_powers_are_found():
    n = np.array([196, 400, 784])
    table = pd.DataFrame({"model": "m", "what": "w", "patches": n, "milliseconds": 3.0 * n**1.7})
    assert timing.fit_exponents(table)["exponent"].iloc[0] == pytest.approx(1.7)


def test_operations_by_formula_agree_with_torchs_counter():
    by_hand = timing.operations_by_formula(196, 768, 12)["share of vanilla (%)"].sum() / 100
    counted = timing.count_operations(("ViT-B-16",))["ratio"].iloc[0]
    assert by_hand == pytest.approx(counted, abs=0.03)


def test_the_ledger_has_a_row_a_claim_and_each_verdict_is_a_known_one():
    table = claims.ledger()
    assert len(table) == len(claims.CLAIMS) >= 25
    known = (verdicts.HOLDS, verdicts.FAILS, verdicts.UNDECIDED, verdicts.UNTESTED)
    assert table["verdict"].str.startswith(known).all()
    pd.testing.assert_frame_equal(table, studies.stored("08_ledger").astype(str), check_dtype=False)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.03, verdicts.HOLDS), (-0.03, -0.01, verdicts.FAILS), (-0.01, 0.02, verdicts.UNDECIDED)],
)
def test_a_gain_is_judged_by_its_interval(low, high, verdict):
    row = ("mIoU", "added", "repair", (low + high) / 2, low, high)
    table = pd.DataFrame([row], columns=["measure", "way", "module", "value", "low", "high"])
    assert verdicts.gain("repair")(table)[1] == verdict


def test_a_rule_that_finds_no_row_says_so():
    with pytest.raises(ValueError, match=r"exactly one row must match .*repair.*, got 0"):
        verdicts.gain("repair")(pd.DataFrame({"measure": [], "way": [], "module": []}))


def test_every_figure_is_drawn_again_from_its_numbers_alone(tmp_path):
    for name in ("02_plane", "03_kept", "05_modules"):
        save_table(studies.stored(name), name, tmp_path)
        studies.redraw(name, tmp_path)
        drawn, kept = (Image.open(f / f"{name}.png") for f in (tmp_path, studies.FIGURES))
        assert drawn.size == kept.size


@pytest.mark.parametrize("name", captions.CAPTIONS)
def test_a_caption_is_a_sentence_that_follows_the_numbers(name, tmp_path):
    studies.redraw_all(tmp_path)  # imports all chapters, draws nothing from an empty folder
    table = studies.stored(name)
    told = captions.CAPTIONS[name](table)
    assert name in studies.DRAWN and told.endswith(".") and re.search(r"\d", told)
    if name == "08_ledger":
        table = table.iloc[1:]
    else:
        numbers = [
            c
            for c in ("value", "gain", "ratio", "share", "milliseconds", "saved (% of vanilla)")
            if c in table
        ]
        table[numbers] = table[numbers] * np.linspace(1.5, 3, len(table))[:, None]
    assert captions.CAPTIONS[name](table) != told


def test_a_caption_stands_under_its_figure(tmp_path):
    save_table(studies.stored("05_winner"), "05_winner", tmp_path)
    drawn = studies.redraw("05_winner", tmp_path)
    (caption,) = drawn.texts
    assert caption.get_text().replace("\n", " ") == captions.winner(studies.stored("05_winner"))
    label = drawn.axes[0].xaxis.label.get_window_extent()
    assert caption.get_window_extent().y1 <= label.y0


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of .*02_plane.* got '99_none'"):
        studies.redraw("99_none", tmp_path)
