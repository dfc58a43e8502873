"""Verdicts on claims: each rule against tables whose verdict is known, and the whole ledger."""

import pandas as pd
import pytest

from scclip_lab import studies
from scclip_lab.datasets.scenes import STYLES
from scclip_lab.studies import ch08_claims as claims
from scclip_lab.studies import rules_results as rules
from scclip_lab.studies import verdicts


@pytest.mark.parametrize(
    ("setting", "low", "verdict"),
    [
        (0.4, 0.0, verdicts.HOLDS),
        (0.6, 0.01, verdicts.FAILS),
        (0.6, -0.01, verdicts.UNDECIDED),
        (0.6, -0.09, verdicts.HOLDS),
    ],
)
def test_a_setting_is_refuted_only_by_one_that_gains_on_fresh_scenes(setting, low, verdict):
    row = ("beta", setting, 0.4, low + 0.02, low, low + 0.04)
    columns = ["parameter", "setting", "claimed", "value", "low", "high"]
    assert rules.best_in_sweep("beta")(pd.DataFrame([row], columns=columns))[1] == verdict


@pytest.mark.parametrize(
    ("total", "left", "verdict"),
    [
        (0.04, 0.02, verdicts.HOLDS),
        (0.04, -0.02, verdicts.FAILS),
        (0.04, 0.005, verdicts.UNDECIDED),
        (-0.04, 0.02, verdicts.UNDECIDED),  # no gain that modules could share
    ],
)
def test_gains_overlap_where_each_module_can_be_spared(total, left, verdict):
    rows = [
        ("mIoU", name, "all modules", value, value - 0.01, value + 0.01)
        for name, value in (("total", total), ("total minus left out", left))
    ]
    columns = ["measure", "ablation", "module", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    both = pd.concat([table.assign(styles=style) for style in STYLES])
    assert rules.overlapping_gains(both)[1] == verdict


def test_the_ledger_has_a_row_for_each_claim_and_each_verdict_is_a_known_one():
    table = claims.ledger()
    assert len(table) == len(claims.CLAIMS) >= 55
    told = table.set_index("claim")["published"]
    assert told["plain CLIP reaches 52.1 mIoU on VOC"] == "VOC21: 18.6 (reported by a third party)"
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
