"""Chapter 5: gains of modules, interactions, kinds of errors, the fusion."""

import numpy as np
import pandas as pd
import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig, make_method
from scclip_core.similarity import adaptive_aggregate
from scclip_lab.datasets.scenes import STYLES, WORDS
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import cases_fusion as cases
from scclip_lab.studies import ch05_ablation as ablation
from scclip_lab.studies import ch05_errors as errors
from scclip_lab.studies import ch05_settings as settings
from scclip_lab.studies import rules_results, verdicts
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.shared import changed, no_module

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(scope="module")
def images(mini):
    return stack_images(mini, [example_scene()])


def test_with_no_module_sc_clip_is_the_values(mini, images):
    values = make_method("values", mini).features(images)
    assert torch.allclose(SCCLIP(mini, no_module()).features(images), values, atol=1e-5)


def test_modules_are_measured_in_both_groups_of_styles(mini):
    table = ablation.ablate(mini, 2)
    assert list(table["styles"].unique()) == list(STYLES)
    assert len(table) == 2 * 3 * (3 * len(ablation.MODULES) + 2)
    summed = ablation.sum_gains(table).query("whose == 'here, added'")
    assert np.allclose(summed["sum of gains"], summed["total gain"], atol=1e-4)


def test_an_interaction_is_the_gain_of_both_minus_the_two_gains():
    # Right pixels of 10 of one class, predicted nowhere else: both, first, second, none.
    counts = np.array([[[right], [10], [right]] for right in (9, 6, 5, 4)])
    found = ablation.interaction_of(lambda c: c[..., 0, 0] / c[..., 1, 0])(counts)
    assert found == pytest.approx((0.9 - 0.4) - (0.6 - 0.4) - (0.5 - 0.4))


def test_every_two_of_the_five_modules_have_an_interaction(mini):
    table = ablation.interact(mini, 2)
    assert len(table) == 2 * 3 * 10
    assert (table["low"] <= table["high"]).all()


def test_wrong_pixels_are_counted_by_what_they_are_taken_for():
    scene = example_scene()
    first, second = (WORDS.index(word) for word in scene.objects[:2])
    background = WORDS.index(scene.background)
    of_objects, of_background = errors.kinds_of_labels(scene.labels, scene)
    assert of_objects[1:].sum() == of_background[1:].sum() == 0
    labels = scene.labels.copy()
    where = np.flatnonzero(labels == first)
    labels.flat[where[:3]] = second
    labels.flat[where[3:5]] = background
    absent = next(i for i, word in enumerate(WORDS) if word not in scene.words)
    labels.flat[where[5:6]] = absent
    labels.flat[np.flatnonzero(scene.labels == background)[:4]] = first
    of_objects, of_background = errors.kinds_of_labels(labels, scene)
    assert of_objects[1:].tolist() == [2, 3, 1]
    assert of_background[1:].tolist() == [4, 0]
    assert of_objects.sum() + of_background.sum() == labels.size


def test_a_parameter_set_back_is_the_article_where_it_was_the_only_change(mini):
    table = settings.restore_each(mini, changed(SCCLIPConfig(), res_cls=1.0), 2)
    value = table.set_index("what")["value"]
    assert list(value.index) == ["all at the article's values", "all as chosen", "res_cls back"]
    assert value.iloc[0] == value.iloc[2]


def test_the_branches_of_the_fusion_sum_to_it(mini, images):
    config = SCCLIPConfig()
    _, cache = SCCLIP(mini).run_with_cache(images)
    layers = [cache[f"blocks.{i}.hook_resid_post"] for i in range(mini.depth - 1)]
    summed = sum(layers[config.multi_start_idx : config.multi_end_idx])
    content = cache["stage5.content_attention"]
    attended = SCCLIP(mini).attend(summed[:, :1], summed[:, 1:], content, "stage7")
    auxiliary = adaptive_aggregate(attended, cache["stage6.thresholded"])
    fused = cache["stage6.aggregated"] + auxiliary
    assert torch.allclose(fused, cache["stage7.fused"], atol=1e-3)


def test_an_exchange_reaches_the_branch_that_reads_its_place_alone(mini):
    segmenter, exchange = cases.fusion_alone(mini), cases.make_exchange(mini, example_scene())
    clean = cases.read_branches(segmenter, exchange.images, {})
    last = cases.read_branches(segmenter, exchange.images, exchange.hook_at(cases.LAST))
    nothing = cases.read_branches(segmenter, exchange.images, exchange.hook_at(cases.LAST, 0))
    assert torch.equal(clean[1], last[1]) and not torch.equal(clean[0], last[0])
    objects = exchange.chosen[0, 1:, 0].view(14, 14)
    assert torch.equal(clean[0][0][~objects], last[0][0][~objects])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(clean, nothing, strict=True))


def test_fusion_saves_tokens_that_the_last_layer_has_lost_and_not_those_lost_from_layer_3_on(mini):
    table = cases.fusion_limits(mini, 4, strengths=(0.75,)).set_index(["part", "branch", "x"])
    main, auxiliary, both = (table["value"]["last", name, 0.75] for name in cases.BRANCHES)
    assert main < 0.4 and auxiliary > 0.6 and both > 0.5
    assert table["value"]["layer", cases.BRANCHES[2], 3] < 0.1


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((1.18, 1.22), verdicts.HOLDS),
        ((1.02, 1.09), "does not hold here (it costs less)"),
        ((1.3, 1.4), "does not hold here (it costs more)"),
        ((1.05, 1.3), verdicts.FAILS),
    ],
)
def test_the_time_is_judged_at_one_image_and_at_eight(ratios, verdict):
    rows = [("ViT-B-16", b, "scclip", r, r, r) for b, r in zip((1, 8), ratios, strict=True)]
    columns = ["model", "batch", "what", "ratio", "ratio_low", "ratio_high"]
    assert rules_results.time_ratio(pd.DataFrame(rows, columns=columns))[1] == verdict
