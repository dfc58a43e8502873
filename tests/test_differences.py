"""What each point of the published evaluation changes is measured against the published way."""

import numpy as np
import pytest

from scclip_core import load_clip
from scclip_lab.evaluation import differences
from scclip_lab.evaluation.differences import POINTS, scenes_of
from scclip_lab.studies.readme import CHINESE


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_every_point_compares_two_ways_that_differ(point):
    mini = load_clip("mini")
    picture = scenes_of([(500, 333)], 1, 2)[0][0]
    published, other = (prepare(mini, picture) for prepare in point.prepare)
    assert published.shape[1:] == (336, 505)
    differs = published.shape != other.shape or bool((published != other).any())
    assert differs != (len(set(point.methods)) == 2)
    assert point.here in ("published", "other")


def test_scenes_are_cut_to_benchmark_sizes_with_their_labels():
    pairs = scenes_of(differences.SIZES, 3, 2)
    assert [picture.shape for picture, _ in pairs] == [(333, 500, 3), (427, 640, 3), (500, 375, 3)]
    assert [labels.shape for _, labels in pairs] == [(333, 500), (427, 640), (500, 375)]


def test_agreement_and_both_scores_are_measured(monkeypatch):
    monkeypatch.setattr(differences, "POINTS", POINTS[2:3])
    table = differences.measure(count=1)
    row = table.iloc[0]
    assert 0.5 < row["agreement"] < 1 and row["scenes"] == 1
    assert 0 < row["mIoU as published"] < 1 and 0 < row["mIoU otherwise"] < 1
    assert not np.isclose(row["mIoU as published"], row["mIoU otherwise"])


def test_the_chinese_table_has_a_word_for_every_cell():
    cells = {cell for point in POINTS for cell in (point.name, point.published, point.other)}
    assert cells - CHINESE.keys() == {"505 x 336"}
