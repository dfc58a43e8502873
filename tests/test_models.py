"""Larger models: counted right, predicted in the right order, and measured as they say."""

import numpy as np
import pandas as pd
import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig, load_clip
from scclip_lab.evaluation.metrics import GAINED
from scclip_lab.studies import ch13_cost as cost
from scclip_lab.studies import ch13_models as models
from scclip_lab.studies import ch13_precision as precision


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini")


def test_models_are_counted_without_any_numbers():
    table = cost.count_models(("ViT-B-32", "ViT-H-14")).set_index("model")
    assert list(table["depth"]) == [12, 32] and list(table["layers from"]) == ["known", "rule"]
    assert table.loc["ViT-B-32", "patches"] == 49 and table.loc["ViT-H-14", "patches"] == 256
    assert table.loc["ViT-H-14", "middle"] == 21 and table.loc["ViT-H-14", "fusion"] == "8 to 26"
    # Patch embedding, 12 L C^2 + 2 L^2 C for every block, projection.
    length, width = 50, 768
    by_hand = 49 * 3 * 32**2 * width + 12 * (12 * length * width**2 + 2 * length**2 * width)
    counted = table.loc["ViT-B-32", "vanilla (G)"]
    assert by_hand / 1e9 == pytest.approx(counted, rel=0.01)
    parameters = 1e6 * table["parameters (millions)"]
    for kind, size in cost.BYTES.items():
        assert np.allclose(table[f"{kind} (GiB)"], parameters * size / 2**30)


def test_the_memory_by_hand_grows_with_heads_and_shrinks_by_rows():
    even, odd = (cost.predicted_memory(4096, 768, 12, heads) for heads in (12, 11))
    matrix = 4 * 4097**2 / 2**20
    assert even["vanilla"] - odd["vanilla"] > 11 * matrix
    whole, rows = (cost.predicted_memory(4096, 192, 12, 6, r)["scclip"] for r in (None, 256))
    assert rows < whole / 2
    assert cost.predicted_memory(196, 192, 12, 6, 256) == cost.predicted_memory(196, 192, 12, 6)


def test_a_random_model_has_the_shape_of_its_name_and_finite_features():
    model = cost.random_model("ViT-B-32", blocks=4)
    assert (model.depth, model.width, model.patch_size) == (4, 768, 32)
    features = SCCLIP(model).features(torch.randn(1, 3, 96, 64))
    assert features.shape == (1, 3, 2, 512) and torch.isfinite(features).all()
    assert torch.equal(cost.random_model("ViT-B-32", 4).visual.proj, model.visual.proj)


def times():
    rows = [
        ("ViT-B-16", "vanilla", 10.0, 100.0, 1.0),
        ("ViT-B-16", "scclip", 10.0, 110.0, 1.1),
        ("ViT-L-14", "vanilla", 50.0, 600.0, 1.0),
        ("ViT-L-14", "scclip", 50.0, 500.0, 0.83),
    ]
    table = pd.DataFrame(rows, columns=["model", "what", "GMAC", "milliseconds", "ratio"])
    return table.assign(patches=196)


def test_the_cost_model_is_the_time_of_an_operation():
    table = models.predict_times(times())
    assert table["predicted"].tolist() == [100, 100, 500, 500]
    assert table["quotient"].tolist() == pytest.approx([1, 1.1, 1.2, 1])


def test_hours_and_cost_of_a_million_pictures_are_the_formula():
    throughput = pd.DataFrame({"part": ["all", "forward"], "ms": [46.0, 36.0]})
    table = models.million_pictures(throughput, times(), processes=4, price=2.0).set_index("model")
    assert table.loc["mini", "ms a picture"] == 46
    assert table.loc["ViT-B-16", "ms a picture"] == 120
    assert table.loc["ViT-L-14", "hours"] == pytest.approx(1e6 * 0.51 / 3600 / 4)
    assert table["cost"].tolist() == pytest.approx((2 * table["hours"]).tolist())


def test_layers_are_varied_one_at_a_time_against_the_rule(mini):
    table = models.vary_layers(mini, 2)
    assert len(table) == 2 * 2 * 11 * 3
    rule = SCCLIPConfig()
    for name, layer in (("pre_adjust_idx", rule.pre_adjust_idx), ("post_adjust_idx", 3)):
        part = table[table["parameter"] == name]
        assert set(part["rule"]) == {layer} and set(part["layer"]) == set(range(11))
        assert not part.loc[part["layer"] == layer, ["gain", "gain_low", "gain_high"]].any().any()
    judged = models.judge_rule(table)
    assert list(judged["layer"]) == ["middle layer", "shallow layer"]


@pytest.mark.parametrize(
    ("best", "interval", "verdict"),
    [
        (2, (0.0, 0.0), "the same layer"),
        (1, (0.01, 0.03), "the rule loses"),
        (1, (-0.01, 0.03), "no difference shown"),
        (1, (-0.03, -0.01), "the rule wins"),
    ],
)
def test_the_rule_loses_only_to_a_gain_on_test_scenes(best, interval, verdict):
    rows = [
        (split, layer, measure, 1.0 if layer == best else 0.5, 0, 0, sum(interval) / 2, *interval)
        for split in ("validation", "test")
        for layer in range(4)
        for measure in ("mIoU", "objects right", "background right")
    ]
    table = pd.DataFrame(rows, columns=["split", "layer", "measure", *GAINED])
    table = table.assign(model="student", depth=5, parameter="pre_adjust_idx", rule=2)
    judged = models.judge_rule(table).iloc[0]
    assert judged["verdict"] == verdict
    assert judged["rank of the rule"] == ("1 of 4" if best == 2 else "2 of 4")


def test_every_listed_tower_has_an_example_and_an_answer():
    table = models.list_towers().set_index("tower")
    assert table.loc["CLIP's ViT", "answer"] == "supported"
    assert table["answer"].str.startswith(("supported", "refused: ")).all()
    assert models.count_answers().sum() > 100


def test_rounding_to_many_bits_changes_little_and_to_few_bits_more(mini):
    weight = mini.visual.transformer.resblocks[3].mlp.c_fc.weight
    errors = []
    for bits in (4, 8, 16):
        rounded = precision.round_weights(mini, bits).visual.transformer.resblocks[3].mlp
        errors.append(float((rounded.c_fc.weight - weight).abs().max()))
        assert rounded.c_fc.weight[0].unique().numel() <= 2**bits - 1
    assert errors[0] > errors[1] > errors[2] > 0
    assert weight is mini.visual.transformer.resblocks[3].mlp.c_fc.weight


def test_precisions_are_compared_with_float32_on_the_same_scenes(mini):
    table = precision.compare_precisions(mini, 2, batch=2)
    own = table[table["precision"] == precision.FULL].set_index("measure")
    assert own.loc[precision.AGREEMENT, "value"] == 1 and own.loc["mIoU", "gain"] == 0
    others = table[(table["measure"] == precision.AGREEMENT)].set_index("precision")["value"]
    assert (others > 0.9).all() and len(others) == 4
    ratios = pd.DataFrame({"what": [precision.FULL, precision.BF16], "ratio": [1.0, 3.0]})
    shown = precision.show_precisions(table, ratios)
    assert shown.loc[precision.BF16, "time"] == 3 and shown.isna()["time"].sum() == 2
