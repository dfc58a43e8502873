"""Verdicts on claims: each rule against tables whose verdict is known, and the whole ledger."""

import pandas as pd
import pytest

from scclip_lab import studies
from scclip_lab.datasets.scenes import STYLES
from scclip_lab.studies import ch08_claims as claims
from scclip_lab.studies import rules_mechanism as mechanism
from scclip_lab.studies import rules_results as rules
from scclip_lab.studies import verdicts
from scclip_lab.studies.tables import side_by_side


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
        table,
        studies.load_table("08_ledger").fillna("").astype(str).astype({"no.": int}),
        check_dtype=False,
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


def test_claims_are_numbered_part_by_part_and_listed_with_these_numbers():
    table = claims.ledger()
    assert list(table["no."]) == list(range(1, len(claims.CLAIMS) + 1))
    parts = [section[0] for section in table["section"]]
    assert parts == sorted(parts, key=list(claims.PARTS).index)
    listed = claims.list_claims().data.split("\n")
    for number, claim in zip(table["no."], table["claim"], strict=True):
        assert f"{number}. {claim}" in listed


def test_claims_of_a_section_are_added_to_those_of_a_table():
    by_table = claims.ledger("03_*")
    both = claims.ledger("03_*", "3.4")
    added = both[~both["no."].isin(by_table["no."])]
    assert len(added) and set(added["section"]) == {"3.4"}
    assert list(both["no."]) == sorted(both["no."])


def test_gains_are_told_in_points_and_need_a_whole_interval():
    table = pd.DataFrame({"what": ["a"], "value": [0.005], "low": [0.001], "high": [0.008]})
    assert mechanism.gains("a")(table) == ("+0.5 [+0.1, +0.8] points", verdicts.HOLDS)


@pytest.mark.parametrize(("numbers", "verdict"), [(1, verdicts.FAILS), (3, verdicts.HOLDS)])
def test_a_threshold_that_adapts_would_flag_other_numbers(numbers, verdict):
    what = "numbers of flagged patches that occur"
    table = pd.DataFrame({"what": [what], "value": [numbers], "scenes": [7]})
    text, found = mechanism.one_number_of_flags(table)
    assert found == verdict and text.endswith("7 scenes")


def test_a_table_is_read_side_by_side_in_its_own_order():
    rows = [
        (style, method, value, value - 0.1, value + 0.1)
        for style in ("training", "held-out")
        for method, value in (("values", 0.5), ("scclip", 0.75))
    ]
    table = pd.DataFrame(rows, columns=["styles", "method", "value", "low", "high"])
    shown = side_by_side(table, "method", "styles")
    assert list(shown.index) == ["values", "scclip"]
    assert list(shown.columns) == ["training styles", "style never seen"]
    assert shown.loc["scclip", "style never seen"] == "75.0 [65.0, 85.0]"
