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

from scclip_core import SCCLIPConfig, load_clip, make_method
from scclip_core.baselines import METHODS
from scclip_core.config import SWITCHES
from scclip_core.similarity import adaptive_aggregate, threshold_similarity
from scclip_lab import studies
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES
from scclip_lab.evaluation.metrics import (
    GAINED,
    background_accuracy,
    class_counts,
    object_accuracy,
)
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.plots import GREY, save_table
from scclip_lab.studies import captions, main_figures, verdicts
from scclip_lab.studies import ch01_shapes as shapes
from scclip_lab.studies import ch02_outliers as outliers
from scclip_lab.studies import ch03_similarity as similarity
from scclip_lab.studies import ch04_attention as attention
from scclip_lab.studies import ch05_ablation as ablation
from scclip_lab.studies import ch05_settings as settings
from scclip_lab.studies import ch07_timing as timing
from scclip_lab.studies import ch08_claims as claims
from scclip_lab.studies import ch09_baselines as baselines
from scclip_lab.studies import rules_results as rules
from scclip_lab.studies.drawing import (
    label_rows,
    legend_handles,
    map_rows,
    paint_labels,
    read_labels,
    read_maps,
    word_colours,
)
from scclip_lab.studies.tables import fit_exponents, row_where

# A column of chapter 7.
SAVED = "saved (% of vanilla)"


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini")


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


def test_maps_survive_the_table():
    maps = {"a": torch.rand(3, 5), "b": torch.rand(3, 5)}
    read = read_maps(map_rows(maps))
    assert list(read) == ["a", "b"]
    assert all(np.allclose(read[name], maps[name]) for name in maps)


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


@pytest.mark.parametrize(
    ("setting", "low", "verdict"),
    [(0.4, 0.0, verdicts.HOLDS), (0.6, 0.01, verdicts.FAILS), (0.6, -0.01, verdicts.UNDECIDED)],
)
def test_a_setting_is_refuted_only_by_one_that_gains_on_fresh_scenes(setting, low, verdict):
    row = ("beta", setting, 0.4, 0.02, low, 0.05)
    columns = ["parameter", "setting", "claimed", "value", "low", "high"]
    assert rules.best_in_sweep("beta")(pd.DataFrame([row], columns=columns))[1] == verdict


@pytest.mark.parametrize(
    ("value", "gain_low", "verdict"),
    [(0.1, 0.01, verdicts.HOLDS), (0.3, 0.01, verdicts.FAILS), (0.3, -0.01, verdicts.UNDECIDED)],
)
def test_a_best_weight_is_refuted_only_by_a_paired_gain_above_zero(value, gain_low, verdict):
    rows = [(0.3, 0.2, 0.1, 0.3, 0, 0, 0), (0.5, value, 0, 1, value - 0.2, gain_low, 0.5)]
    table = pd.DataFrame(rows, columns=["res_cls", *GAINED]).assign(measure="mIoU")
    assert rules.best_residual(table)[1] == verdict


@pytest.mark.parametrize(("left_out", "verdict"), [(0.01, verdicts.HOLDS), (0.03, verdicts.FAILS)])
def test_gains_overlap_where_each_module_can_be_spared(left_out, verdict):
    rows = [("mIoU", "left out", name, left_out) for name in SWITCHES[:2]]
    rows += [("mIoU", kind, SWITCHES[0], 0.02) for kind in ("alone", "added")]
    rows.append(("mIoU", "total", "all modules", 0.04))
    columns = ["measure", "ablation", "module", "value"]
    table = pd.DataFrame(rows, columns=columns)
    both = pd.concat([table.assign(styles=style) for style in STYLES])
    assert rules.overlapping_gains(both)[1] == verdict


def test_exponents_of_exact_powers_are_found():
    n = np.array([196, 400, 784])
    table = pd.DataFrame({"model": "m", "what": "w", "patches": n, "milliseconds": 3.0 * n**1.7})
    assert fit_exponents(table)["exponent"].iloc[0] == pytest.approx(1.7)


def test_operations_by_formula_agree_with_torchs_counter():
    by_hand = timing.operations_by_formula(196, 768, 12)["share of vanilla (%)"].sum() / 100
    counted = timing.count_operations(("ViT-B-16",))["ratio"].iloc[0]
    assert by_hand == pytest.approx(counted, abs=0.03)


def test_the_ledger_has_a_row_for_each_claim_and_each_verdict_is_a_known_one():
    table = claims.ledger()
    assert len(table) == len(claims.CLAIMS) >= 55
    told = table.set_index("claim")["published"]
    assert told["plain CLIP reaches 52.1 mIoU on VOC"] == "VOC21: 18.6 (told by a third party)"
    assert 5 <= (told != "").sum() < 10
    known = tuple(claims.COLOURS)
    assert table["verdict"].str.startswith(known).all()
    pd.testing.assert_frame_equal(
        table, studies.load_table("08_ledger").fillna("").astype(str), check_dtype=False
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, verdicts.HOLDS),
        (-0.03, -0.01, verdicts.FAILS),
        (-0.01, 0.02, verdicts.UNDECIDED),
    ],
)
def test_a_gain_is_judged_by_its_interval(low, high, verdict):
    gain = ("added", "repair", (low + high) / 2, low, high)
    rows = [("mIoU", *gain), ("objects right", "added", "repair", 0.05, 0, 1)]
    rows += [("background right", "added", "repair", -0.02, -1, 0)]
    table = pd.DataFrame(rows, columns=["measure", "ablation", "module", "value", "low", "high"])
    seen, unseen = (table.assign(styles=style) for style in STYLES)
    text, found = rules.added_gain("repair")(pd.concat([seen, unseen]))
    assert found == verdict
    assert text.count("(objects +5.0, background -2.0)") == 2
    unseen[["low", "high"]] = 0.04, 0.06
    found = rules.added_gain("repair")(pd.concat([seen, unseen]))[1]
    assert found == (verdict if verdict == verdicts.HOLDS else "undecided here (styles differ)")


def test_a_rule_that_finds_no_row_says_so():
    columns = ("styles", "measure", "ablation", "module")
    with pytest.raises(ValueError, match=r"exactly one row must match .*repair.*, got 0"):
        rules.added_gain("repair")(pd.DataFrame({name: [] for name in columns}))


def test_every_figure_is_drawn_again_from_its_numbers_alone(tmp_path):
    for name in ("02_plane", "03_kept", "05_modules"):
        save_table(studies.load_table(name), name, tmp_path)
        studies.redraw(name, tmp_path)
        drawn, kept = (Image.open(f / f"{name}.png") for f in (tmp_path, studies.FIGURES))
        assert drawn.size == kept.size


@pytest.mark.parametrize("name", captions.CAPTIONS)
def test_a_caption_is_a_sentence_that_follows_the_numbers(name, tmp_path):
    studies.redraw_all(tmp_path)  # imports all chapters, draws nothing from an empty folder
    table = studies.load_table(name)
    text = captions.CAPTIONS[name](table)
    assert name in studies.DRAW_FUNCTIONS and text.endswith(".") and re.search(r"\d", text)
    if name == "08_ledger":
        table = table.iloc[1:]
    else:
        numbers = [
            c
            for c in ("value", "gain", "change", "ratio", "share", "milliseconds", SAVED)
            if c in table
        ]
        table[numbers] = table[numbers] * np.linspace(1.5, 3, len(table))[:, None]
    assert captions.CAPTIONS[name](table) != text


def test_a_caption_stands_under_its_figure(tmp_path):
    save_table(studies.load_table("05_winner"), "05_winner", tmp_path)
    drawn = studies.redraw("05_winner", tmp_path)
    (caption,) = drawn.texts
    assert caption.get_text().replace("\n", " ") == captions.chosen_settings(
        studies.load_table("05_winner")
    )
    label = drawn.axes[0].xaxis.label.get_window_extent()
    assert caption.get_window_extent().y1 <= label.y0


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of .*02_plane.* got '99_none'"):
        studies.redraw("99_none", tmp_path)


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


def test_label_maps_survive_the_table():
    labels = torch.randint(0, 56, (5, 7)).repeat_interleave(4, 0).repeat_interleave(4, 1)
    lines = pd.DataFrame(label_rows(labels), columns=["line", "labels"])["labels"]
    assert np.array_equal(read_labels(lines), labels)


def test_a_word_has_one_colour_in_all_scenes_and_no_other_word_has_it():
    truths = [np.array([[0, 1, 50]]), np.array([[1, 2, 51]]), np.array([[3, 50, 50]])]
    colours = word_colours(truths, 56, first_background=48)
    shown = [0, 1, 2, 3, 50, 51]
    assert len({tuple(colour) for colour in colours[shown].tolist()}) == len(shown)
    others = np.delete(colours, shown, axis=0)
    assert (others == GREY).all() and not (colours[shown] == GREY).all(1).any()


def test_a_background_is_softer_than_an_object():
    truths = [np.array([[i, 48 + i]]) for i in range(8)]
    colours = word_colours(truths, 56, first_background=48).astype(int)
    saturation = colours.max(1) - colours.min(1)
    assert saturation[48:].max() < saturation[:8].min()


def test_wrong_labels_are_hatched_and_words_that_are_not_there_grey():
    truth = np.zeros((32, 32), int)
    truth[:, 16:] = 1
    colours = np.array([[200, 0, 0], [0, 0, 200], [0, 200, 0]], np.uint8)
    assert (paint_labels(truth, truth, colours) == colours[truth]).all()
    swapped = paint_labels(1 - truth, truth, colours)
    blue = {tuple(colour) for colour in swapped[:, :16].reshape(-1, 3).tolist()}
    assert len(blue) == 2 and all(b > max(r, g) for r, g, b in blue)
    assert tuple(colours[1].tolist()) not in blue
    absent = paint_labels(np.full_like(truth, 2), truth, colours).reshape(-1, 3)
    assert len(np.unique(absent, axis=0)) == 2 and (absent == absent[:, :1]).all()


def test_a_legend_names_the_true_words_and_the_most_frequent_absent_one():
    truth = np.array([[0, 0, 1, 1]])
    maps = [np.array([[0, 1, 2, 3]]), np.array([[3, 0, 1, 1]])]
    colours = word_colours([truth], 4, first_background=1)
    handles = legend_handles(truth, maps, colours, ["cat", "sky", "dog", "pig"])
    labels = [handle.get_label() for handle in handles]
    assert labels == ["cat", "sky", "not in the scene,\nmostly “pig”"]
    assert len(legend_handles(truth, [truth], colours, ["cat", "sky", "dog", "pig"])) == 2


def test_the_gallery_shows_scenes_by_their_number_and_all_methods(mini):
    drawn, table = main_figures.gallery(mini, per_style=1)
    assert list(table["method"]) == list(main_figures.METHODS) * 2
    assert set(table["scene"]) == {0}
    for _, row in table.iterrows():
        objects, background = row["objects right"], row["background right"]
        low, high = sorted((objects, background))
        assert low - 1e-9 <= row["pixel accuracy"] <= high + 1e-9
    titles = [axis.get_title() for axis in drawn.axes if axis.get_title()]
    names = [studies.METHOD_NAMES[name] for name in main_figures.METHODS]
    assert titles == ["picture", "truth", *names]
    captions_shown = [axis.get_xlabel() for axis in drawn.axes if axis.get_xlabel()]
    assert len(captions_shown) == 8
    assert all(re.search(r"mIoU .*\nobjects .*\nbackground", text) for text in captions_shown)
    plt.close(drawn)
