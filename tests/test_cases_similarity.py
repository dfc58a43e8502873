"""Made cases of chapters 3 and 4: they fail, are repaired, and stop being repaired, as told."""

import numpy as np
import pandas as pd
import pytest
import torch

from scclip_core.similarity import patch_similarity
from scclip_lab.studies import cases_attention, draw
from scclip_lab.studies import cases_similarity as cases
from scclip_lab.studies.captions import CAPTIONS

LABELS = cases.made_labels()
OBJECTS = LABELS != cases.GROUND


def share_right(tokens, words, where=OBJECTS):
    return float((cases.read_words(tokens, words) == LABELS)[where].double().mean())


def mean_right(change, where=OBJECTS, **options):
    made = [cases.made_case(seed, **options) for seed in range(6)]
    return np.mean([share_right(change(case), case.words, where) for case in made])


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9, 1.0])
def test_words_have_length_one_and_the_cosines_asked_for(alike):
    words = cases.unit_words(alike)
    gram = words @ words.T
    assert torch.allclose(gram.diagonal(), torch.ones(3), atol=1e-5)
    assert float(gram[cases.DISC, cases.BAR]) == pytest.approx(alike, abs=1e-5)
    assert float(gram[cases.GROUND, cases.BAR]) == pytest.approx(cases.COMMON, abs=1e-5)


def test_vectors_that_cannot_exist_are_refused():
    with pytest.raises(ValueError, match=r"alike must be in \[-0.82, 1\], got -0.95"):
        cases.unit_words(-0.95)


def test_averaging_repairs_errors_of_their_own_and_not_a_shared_one():
    alone = mean_right(lambda case: case.tokens)
    repaired = mean_right(lambda case: cases.aggregate(case, cases.BETA))
    assert repaired > alone + 0.15
    shared = mean_right(lambda case: case.tokens, shared=True)
    assert mean_right(lambda case: cases.aggregate(case, cases.BETA), shared=True) <= shared + 0.02


def test_a_beta_that_is_too_low_gives_the_objects_to_the_ground():
    def low(case):
        return cases.aggregate(case, cases.TOO_LOW)

    assert mean_right(low) < 0.3 and mean_right(low, ~OBJECTS) > 0.99


@pytest.mark.parametrize("n", [4, 16, 64])
def test_independent_errors_fall_with_the_root_of_their_number_and_shared_ones_stay(n):
    own, shared = (
        np.mean([cases.error_left(n, share, seed) for seed in range(40)]) for share in (0.0, 1.0)
    )
    assert own == pytest.approx(n**-0.5, rel=0.1) and shared == pytest.approx(1, rel=0.1)


def test_content_repairs_what_query_and_key_get_wrong_until_objects_are_alike():
    def read(kind):
        return lambda case: cases_attention.attention_kinds(case)[kind] @ case.tokens

    assert mean_right(read("qk")) < 0.1 < 0.95 < mean_right(read("content"))
    assert mean_right(read("content"), alike=1.0) < mean_right(read("itself"))


def test_attention_of_every_kind_has_rows_that_sum_to_one():
    for kind, weights in cases_attention.attention_kinds(cases.made_case(0)).items():
        assert torch.allclose(weights.sum(-1), torch.ones(196), atol=1e-4), kind


def test_alike_objects_are_alike_in_the_guide_alone():
    same = LABELS.flatten() == cases.DISC
    other = LABELS.flatten() == cases.BAR
    guides = [cases.made_case(0, alike).guide for alike in (cases.COMMON, 1.0)]
    apart, alike = (float(patch_similarity(g)[0][same][:, other].mean()) for g in guides)
    assert alike > apart + 0.3
    assert torch.equal(cases.made_case(0).tokens, cases.made_case(0, 1.0).tokens)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("03_made", cases.aggregated_maps),
        ("03_limits", lambda: cases.aggregation_limits(2)),
        ("04_made", cases_attention.attention_case_maps),
        ("04_likeness", lambda: cases_attention.attention_limits(2)),
    ],
)
def test_every_case_is_drawn_from_its_file_and_has_a_caption_where_it_is_sampled(
    name, measure, tmp_path, recwarn
):
    table = measure()
    table.to_csv(tmp_path / f"{name}.csv", index=False)
    assert draw(name, tmp_path).axes
    if name in CAPTIONS:
        assert "%" in CAPTIONS[name](pd.read_csv(tmp_path / f"{name}.csv"))
    assert not [w for w in recwarn if issubclass(w.category, pd.errors.PerformanceWarning)]
