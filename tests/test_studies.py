"""What the chapters measure: each study against a case whose answer is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.neighbors import LocalOutlierFactor

from scclip_core import SCCLIPConfig, make_method
from scclip_core.baselines import METHODS
from scclip_core.config import SWITCHES
from scclip_core.similarity import adaptive_aggregate, threshold_similarity
from scclip_lab import studies
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES
from scclip_lab.evaluation.metrics import background_accuracy, class_counts, object_accuracy
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import ch01_shapes as shapes
from scclip_lab.studies import ch02_outliers as outliers
from scclip_lab.studies import ch03_similarity as similarity
from scclip_lab.studies import ch04_attention as attention
from scclip_lab.studies import ch05_ablation as ablation
from scclip_lab.studies import ch05_settings as settings
from scclip_lab.studies import ch07_timing as timing
from scclip_lab.studies import ch09_baselines as baselines
from scclip_lab.studies.tables import fit_exponents, row_where


def test_the_four_formulas_are_the_local_outlier_factor():
    points = outliers.points_in_a_plane()
    oracle = -LocalOutlierFactor(10, algorithm="kd_tree").fit(points).negative_outlier_factor_
    assert np.allclose(outliers.lof_by_formula(points, 10)["lof"], oracle, atol=1e-9)


@pytest.mark.parametrize("source", outliers.SOURCES)
def test_planting_changes_ten_patches_and_no_other_pixel(source):
    scene = shapes.example_scene()
    planted, where = outliers.plant_anomalies(scene, source, np.random.default_rng(3))
    changed = (planted.image != scene.image).any(-1)
    assert where.sum() == outliers.PLANTED
    assert not changed[~where.repeat(16, 0).repeat(16, 1)].any()
    assert changed.reshape(14, 16, 14, 16).any((1, 3))[where].all()
    assert np.array_equal(scene.image, shapes.example_scene().image)


def test_an_unknown_source_of_anomalies_is_refused():
    with pytest.raises(ValueError, match=r"source must be one of border, occlusion.* got 'rain'"):
        outliers.plant_anomalies(shapes.example_scene(), "rain", np.random.default_rng(0))


@pytest.mark.parametrize("name", outliers.DETECTORS)
def test_a_far_away_token_has_the_highest_score_of_every_detector(name):
    tokens = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    tokens[7] = 12
    assert outliers.DETECTORS[name](tokens).argmax() == 7


def test_a_patch_by_hand_is_the_models_own(mini):
    with torch.no_grad():
        table = shapes.patch_by_hand(
            mini, stack_images(mini, [shapes.example_scene()]), *shapes.PATCH
        )
    assert table["largest difference to the model"].max() < 1e-4


def test_shapes_on_the_meta_device_are_those_of_a_live_run(mini):
    live = shapes.trace_scene(mini, shapes.example_scene())
    table = shapes.compare_shapes({"mini": live, "ViT-B-16": shapes.trace_shapes("ViT-B-16")})
    assert len(table) >= 30
    for row in table.itertuples():
        assert row[3].count(",") == row[4].count(",")
    assert table.set_index("tensor").loc["stage8.projected", "ViT-B-16"] == "[1, 196, 512]"


def test_the_normalised_adjacency_aggregates_as_the_core_does():
    sparse = threshold_similarity(torch.rand(2, 9, 9), 0.4)
    tokens = torch.randn(2, 9, 4)
    assert torch.allclose(
        similarity.normalised_adjacency(sparse) @ tokens,
        adaptive_aggregate(tokens, sparse),
        atol=1e-6,
    )


def test_sliders_show_the_map_of_a_patch_once(mini, monkeypatch):
    plt.close("all")  # whatever other tests have left open
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    widget = similarity.explore(mini, shapes.example_scene())
    assert [slider.description for slider in widget.children[:3]] == ["row", "col", "layer"]
    assert [slider.max for slider in widget.children[:3]] == [13, 13, mini.depth - 2]
    shown.clear()
    widget.f(row=8, col=3, layer=3)
    assert [axis.get_title() for axis in shown[-1].axes[:2]] == ["the picture", "layer 3"]
    assert len(shown) == 1 and not plt.get_fignums()


def test_every_kind_of_attention_has_rows_that_sum_to_one(mini):
    maps = attention.attention_maps(
        mini, stack_images(mini, [shapes.example_scene()]), SCCLIPConfig()
    )
    assert set(maps) == set(attention.KINDS)
    for kind, weights in maps.items():
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-4), kind


def test_object_and_background_accuracy_make_up_pixel_accuracy():
    confusion = np.zeros((56, 56), int)
    confusion[3, 3], confusion[3, 50], confusion[50, 50] = 6, 2, 12
    assert object_accuracy(class_counts(confusion), N_OBJECTS) == pytest.approx(6 / 8)
    assert background_accuracy(class_counts(confusion), N_OBJECTS) == pytest.approx(1)


def test_ablations_start_with_all_off_end_with_the_article_and_leave_out_one_each():
    configs = ablation.ablation_configs()
    assert not any(getattr(configs["all off"], name) for name in SWITCHES)
    assert configs[f"add {SWITCHES[-1]}"] == SCCLIPConfig()
    for name in SWITCHES:
        differs = [
            f.name
            for f in dataclasses.fields(SCCLIPConfig)
            if getattr(configs[f"without {name}"], f.name) != getattr(SCCLIPConfig(), f.name)
        ]
        assert differs == [name]


def test_added_gains_sum_to_the_total():
    table = studies.load_table("05_modules")
    summed = ablation.sum_gains(table).query("whose == 'here, added'")
    assert set(summed["styles"]) == set(STYLES)
    assert np.allclose(summed["sum of gains"], summed["total gain"], atol=1e-3)
    assert table["scenes"].min() >= 200


def test_the_best_setting_of_every_parameter_is_taken():
    rows = [("beta", b, v, 0, 1) for b, v in ((0.2, 0.1), (0.6, 0.3))]
    rows += [("lof_neighbors", k, v, 0, 1) for k, v in ((5, 0.5), (30, 0.2))]
    table = pd.DataFrame(rows, columns=["parameter", "setting", "value", "low", "high"])
    others = table.assign(measure="objects right", value=1 - table["value"])
    chosen = settings.best_settings(pd.concat([table.assign(measure="mIoU"), others]))
    assert (chosen.beta, chosen.lof_neighbors, chosen.res_cls) == (0.6, 5, 0.3)


@pytest.mark.parametrize(("start", "end", "kept"), [(0.4, 0.3, (9, 10)), (0.3, 0.4, (3, 6))])
def test_of_two_ends_that_leave_no_layer_the_better_one_is_taken(start, end, kept):
    rows = [("multi_start_idx", 9, start), ("multi_end_idx", 6, end)]
    table = pd.DataFrame(rows, columns=["parameter", "setting", "value"])
    chosen = settings.best_settings(table.assign(measure="mIoU"))
    assert (chosen.multi_start_idx, chosen.multi_end_idx) == kept


def test_exponents_of_exact_powers_are_found():
    n = np.array([196, 400, 784])
    table = pd.DataFrame({"model": "m", "what": "w", "patches": n, "milliseconds": 3.0 * n**1.7})
    assert fit_exponents(table)["exponent"].iloc[0] == pytest.approx(1.7)


def test_operations_by_formula_agree_with_torchs_counter():
    by_hand = timing.operations_by_formula(196, 768, 12)["share of vanilla (%)"].sum() / 100
    counted = timing.count_operations(("ViT-B-16",))["ratio"].iloc[0]
    assert by_hand == pytest.approx(counted, abs=0.03)


def test_every_method_has_a_name_and_a_description():
    assert list(studies.METHOD_NAMES) == list(METHODS)
    assert list(baselines.CHANGES) == list(METHODS)
    assert len(set(studies.METHOD_NAMES.values())) == len(METHODS)


def test_with_all_modules_off_the_ablation_starts_at_the_baseline_values(mini):
    images = stack_images(mini, [shapes.example_scene()])
    everything_off = make_method("scclip", mini, **dict.fromkeys(SWITCHES, False))
    assert everything_off.config == ablation.ablation_configs()["all off"]
    values = make_method("values", mini).features(images)
    assert torch.allclose(everything_off.features(images), values, atol=1e-5)


def test_a_profile_names_every_tensor_and_its_shares_sum_to_one(model):
    table = timing.profile_stages(model, batch=1, repeats=2)
    trace = make_method("scclip", model).trace(torch.randn(1, 3, 224, 224))
    assert list(table["tensor"]) == [row["tensor"] for row in trace][1:]
    assert list(table["stage"]) == [row["stage"] for row in trace][1:]
    assert (table["share"] > 0).all() and table["share"].sum() == pytest.approx(1)


def test_one_row_is_found_or_an_error_says_how_many_there_are():
    table = pd.DataFrame({"a": [1, 1, 2], "b": [1, 2, 2]})
    assert row_where(table, a=1, b=2)["b"] == 2
    with pytest.raises(ValueError, match=r"exactly one row must match .*, got 2"):
        row_where(table, a=1)


def test_equivalent_scenes_are_interpolated_over_the_logarithm():
    rows = [("scclip", 0, 0.3), ("vanilla", 0, 0.1), ("values", 0, 0.9)]
    rows += [("linear head", 10, 0.2), ("linear head", 1000, 0.4)]
    table = pd.DataFrame(rows, columns=["trained", "labelled scenes", "value"])
    found = baselines.equivalent_scenes(table.assign(styles="training", measure="mIoU"))
    assert found.set_index("method")["labelled scenes"].to_dict() == {
        "SC-CLIP": "100",
        "vanilla CLIP": "fewer than 10",
        "values (last block)": "more than 1,000",
    }
