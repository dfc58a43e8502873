"""Measurements behind single claims: each against a case whose answer is known."""

import numpy as np
import pytest
import torch

from scclip_core import load_clip
from scclip_core.similarity import adaptive_aggregate
from scclip_lab.studies import ch08_claims as claims
from scclip_lab.studies import reasons, rules_mechanism, verdicts


@pytest.fixture(scope="module")
def table():
    return reasons.measure_reasons(load_clip("mini"), count=2, seed=3).set_index("what")


def test_a_rank_correlation_sees_order_alone():
    values = np.array([0.1, 0.2, 5.0, 100.0])
    assert reasons.rank_correlation(values, np.exp(values / 50)) == pytest.approx(1)
    assert reasons.rank_correlation(values, -values) == pytest.approx(-1)


def test_both_normalisations_agree_where_every_patch_has_the_same_sum():
    tokens = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    ring = torch.eye(4) + torch.eye(4).roll(1, 0) + torch.eye(4).roll(-1, 0)
    by_rows = adaptive_aggregate(tokens, ring[None])
    assert torch.allclose(reasons.symmetric_aggregate(tokens, ring[None]), by_rows, atol=1e-5)


def test_what_fusion_gains_under_noise_is_set_against_what_it_gains_without():
    # One class that is right in 8, 4, 6 and 6 of 10 pixels, and predicted nowhere else.
    counts = np.array([[[right], [10], [right]] for right in (8, 4, 6, 6)])
    assert reasons._more_gain_under_noise(counts) == pytest.approx(0.4)


def test_a_frozen_model_stays_as_it_is_and_repeats_itself(table):
    for what in (
        "parameters changed by a forward pass",
        "parameters that require a gradient",
        "largest difference of two runs",
    ):
        assert table.loc[what, "value"] == 0


def test_no_softmax_gives_a_negative_entry(table):
    assert table.loc["negative entries after the softmax", "value"] == 0
    assert 0.2 < table.loc["negative entries before the softmax", "value"] < 0.9


def test_similarities_know_the_labels_and_flags_have_one_number(table):
    assert table.loc["similarity and label, layer 8", "value"] > 0.6
    assert table.loc["numbers of flagged patches that occur", "value"] == 1
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["high"] + 1e-9).all()


def test_a_value_is_judged_against_its_bound(table):
    frame = table.reset_index()
    frame.loc[0, ["what", "value", "low", "high"]] = "auc", 0.6, 0.55, 0.65
    for direction, bound, verdict in (
        ("above", 0.5, verdicts.HOLDS),
        ("above", 0.7, verdicts.FAILS),
        ("above", 0.6, verdicts.UNDECIDED),
        ("below", 0.7, verdicts.HOLDS),
        ("below", 0, verdicts.FAILS),
    ):
        assert rules_mechanism.lies(direction, bound, what="auc")(frame)[1] == verdict
    with pytest.raises(ValueError, match="direction must be above or below, got 'over'"):
        rules_mechanism.lies("over", 0, what="auc")


def test_a_verdict_has_the_colour_of_its_kind():
    for verdict, colour in claims.COLOURS.items():
        assert colour in claims.verdict_style(f"{verdict} (with a remark)")
