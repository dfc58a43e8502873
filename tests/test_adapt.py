"""Rules that read no label: what they score, what they choose, and what they refuse."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from scclip_core import SCCLIP, SCCLIPConfig, load_clip
from scclip_core.adapt import (
    CHANGES,
    PREDICTIONS,
    RULES,
    WITH_WORDS,
    WITHOUT_WORDS,
    Adapted,
    candidates,
    entropy,
    evidence_of,
    join,
    near_far_gaps,
    read_evidence,
    scores_of,
    views_of,
)
from scclip_core.similarity import patch_similarity
from scclip_core.text import max_over_names
from scclip_lab.datasets.scenes import VALIDATION, WORDS, evaluation_scene
from scclip_lab.datasets.weathering import KINDS, weather
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import ch12_adaptation as study
from scclip_lab.studies.ch12_cells import count_right, data_sets, measure_cell
from scclip_lab.studies.ch12_rules import (
    OtsuEachPicture,
    mixture_threshold,
    otsu_threshold,
    set_beta,
    spectral_gap,
    spectral_scores,
)

CLASSES = ("dog", "cat", "sand|beach")


def views(plain, flip=None, crop=None):
    """Logits [B, 4, 4, C] of three views; the others are what `plain` gives for them."""
    flip = plain.flip(2) if flip is None else flip
    return {"as is": plain, "flip": flip, "crop": plain[:, 1:, 1:] if crop is None else crop}


def test_candidates_begin_with_the_base_and_change_one_or_two_fields():
    found = candidates(SCCLIPConfig())
    assert next(iter(found)) == "as given" and found["as given"] == SCCLIPConfig()
    assert len(set(found.values())) == len(found) and 24 <= len(found) <= 40
    names = [field.name for field in fields(SCCLIPConfig)]
    for config in found.values():
        changed = {n for n in names if getattr(config, n) != getattr(SCCLIPConfig(), n)}
        assert changed <= set(CHANGES)
        assert len(changed) <= 1 or changed == {"beta", "pre_adjust_idx"}
    assert found["beta=0.8, pre_adjust_idx=6"] == SCCLIPConfig(beta=0.8, pre_adjust_idx=6)


@pytest.mark.parametrize("depth", [3, 8, 24])
def test_layers_of_candidates_lie_at_the_same_relative_depth(depth):
    base = (
        SCCLIPConfig.for_depth(depth)
        if depth != 3
        else SCCLIPConfig(
            depth=3, pre_adjust_idx=1, post_adjust_idx=0, multi_start_idx=0, multi_end_idx=2
        )
    )
    found = candidates(base)
    assert found["as given"] == base and all(c.depth == depth for c in found.values())
    middles = {c.pre_adjust_idx for c in found.values()} - {base.pre_adjust_idx}
    assert middles <= {min(round(i * depth / 12), depth - 2) for i in CHANGES["pre_adjust_idx"]}


def test_a_candidate_keeps_everything_else_of_the_base():
    base = SCCLIPConfig(fusion=False, beta=0.55, templates=("{}",))
    assert all(not c.fusion and c.templates == ("{}",) for c in candidates(base).values())


def test_views_are_flipped_and_cropped_at_whole_patches(images):
    found = views_of(images, 16)
    assert torch.equal(found["as is"], images)
    assert torch.equal(found["flip"], images.flip(-1))
    assert torch.equal(found["crop"], images[:, :, 16:, 16:])
    with pytest.raises(ValueError, match="images must have at least 2 x 2 patches, got 1 x 8"):
        views_of(images[:, :, :16], 16)


def test_the_evidence_is_that_of_a_segmenter_alone(model, images):
    config = SCCLIPConfig(beta=0.6, post_adjust_idx=5)
    read = list(read_evidence(model, images, CLASSES, {"a": SCCLIPConfig(), "b": config}))
    (name, found, logits), alone = read[1], SCCLIP(model, config)
    assert [one[0] for one in read] == ["a", "b"] and name == "b"
    names, text = alone.embed_classes(CLASSES)
    seen = {view: alone.logits(x, text) for view, x in views_of(images, 16).items()}
    wanted = {view: max_over_names(x, names) for view, x in seen.items()}
    assert torch.allclose(logits, wanted["as is"], atol=1e-6) and logits.shape == (3, 8, 8, 3)
    for what, values in evidence_of(wanted, model.logit_scale).items():
        assert torch.allclose(found[what], values, atol=1e-5), what
    gaps = near_far_gaps(alone.encode(images), (8, 8))
    assert torch.allclose(found["near and far"], gaps[8] + gaps[5], atol=1e-5)


def test_predictions_that_do_not_change_agree_fully_and_others_by_their_share():
    plain = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    found = evidence_of(views(plain), 10.0)
    assert found["flip"].tolist() == found["crop"].tolist() == [1, 1]
    flip = plain.flip(2).clone()
    flip[0, 0, 0] = -flip[0, 0, 0]
    assert evidence_of(views(plain, flip=flip), 10.0)["flip"].tolist() == [15 / 16, 1]
    crop = plain[:, 1:, 1:].clone()
    crop[1, 2, 2] = -crop[1, 2, 2]
    assert evidence_of(views(plain, crop=crop), 10.0)["crop"].tolist() == pytest.approx([1, 8 / 9])


def test_entropy_and_mutual_information_of_known_predictions():
    sure = 100 * torch.eye(4)[torch.arange(16) % 4].view(1, 4, 4, 4)
    known = evidence_of(views(sure), 1.0)
    none = evidence_of(views(torch.zeros(1, 4, 4, 4)), 1.0)
    scores = {rule: scores_of({"sure": known, "none": none}, rule) for rule in PREDICTIONS}
    assert scores["entropy"] == pytest.approx({"sure": 0, "none": -np.log(4)}, abs=1e-5)
    wanted = {"sure": np.log(4), "none": 0}
    assert scores["mutual information"] == pytest.approx(wanted, abs=1e-5)
    assert entropy(torch.tensor([0.5, 0.5, 0.0])) == pytest.approx(np.log(2))


def test_mutual_information_is_that_of_all_pictures_together():
    one, other = (100 * torch.eye(2)[i].expand(1, 4, 4, 2) for i in (0, 1))
    parts = [evidence_of(views(x), 1.0) for x in (one, other)]
    assert scores_of({"a": parts[0]}, "mutual information")["a"] == pytest.approx(0, abs=1e-5)
    both = scores_of({"a": join(parts)}, "mutual information")["a"]
    assert both == pytest.approx(np.log(2), abs=1e-5)


def test_the_consensus_is_a_mean_of_ranks():
    better = 100 * torch.eye(4)[torch.arange(16) % 4].view(1, 4, 4, 4)
    worse = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found = {
        "good": evidence_of(views(better), 1.0),
        "bad": evidence_of(views(worse, flip=-worse, crop=-worse[:, 1:, 1:]), 1.0),
    }
    scores = scores_of(found, "consensus")
    assert scores["good"] > scores["bad"] and scores["good"] == 0.5 and scores["bad"] == 0
    assert scores_of({"a": found["bad"], "b": found["bad"]}, "consensus")["a"] == pytest.approx(
        scores_of({"a": found["bad"], "b": found["bad"]}, "consensus")["b"]
    )


@pytest.mark.parametrize("rule", RULES)
def test_adapt_chooses_the_candidate_with_the_highest_score_and_says_why(model, images, rule):
    found = SCCLIPConfig.adapt(model, images, CLASSES, rule=rule)
    assert isinstance(found, Adapted) and found.rule == rule
    assert list(found.scores) == list(candidates(SCCLIPConfig()))
    assert found.scores[found.candidate] == max(found.scores.values())
    assert found.config == candidates(SCCLIPConfig())[found.candidate]
    changed = {n for n in CHANGES if getattr(found.config, n) != getattr(SCCLIPConfig(), n)}
    assert set(found.reasons) == changed
    for name, reason in found.reasons.items():
        assert reason.startswith(f"{getattr(SCCLIPConfig(), name)} -> ") and "score" in reason
    assert RULES[rule] in str(found) and len(str(found).splitlines()) == 1 + max(1, len(changed))
    SCCLIP(model, found.config).segment(images, CLASSES)


def test_the_batch_changes_nothing_and_a_single_picture_is_enough(model, images):
    one, other = (SCCLIPConfig.adapt(model, images, CLASSES, batch=b) for b in (1, 8))
    assert one.scores == pytest.approx(other.scores, abs=1e-5)
    alone = SCCLIPConfig.adapt(model, images[:1])
    assert alone.rule == WITHOUT_WORDS and other.rule == WITH_WORDS


def test_adapt_starts_where_it_is_told_to(model, images):
    base = SCCLIPConfig(fusion=False, beta=0.6)
    found = SCCLIPConfig.adapt(model, images, CLASSES, base)
    assert not found.config.fusion
    if "beta" in found.reasons:
        assert found.reasons["beta"].startswith("0.6 -> ")
    plain = Adapted(base, "as given", "flip", {"as given": 1.0}, {})
    assert "nothing was changed" in str(plain)


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"model": "mini"}, TypeError, "model must be a FrozenCLIP, as load_clip .* got str"),
        ({"images": [1, 2]}, TypeError, "images must be a tensor, got list"),
        ({"images": torch.zeros(0, 3, 128, 128)}, ValueError, r"images must be \[batch, 3"),
        ({"images": torch.zeros(1, 3, 16, 128)}, ValueError, "at least 2 x 2 patches, got 1 x 8"),
        ({"classes": (), "rule": "flip"}, ValueError, "classes"),
        ({"classes": None, "rule": "crop"}, ValueError, "classes must be given for the rule 'crop"),
        ({"rule": "oracle"}, ValueError, "rule must be one of near and far, .*, got 'oracle'"),
        ({"batch": 0}, ValueError, "batch must be a whole number >= 1, got 0"),
        ({"base": {}}, TypeError, "base must be an SCCLIPConfig, got dict"),
        ({"base": SCCLIPConfig.for_depth(24)}, ValueError, "made for the model's 12 blocks"),
    ],
)
def test_bad_input_is_refused_by_name(model, images, changed, error, told):
    given = {"model": model, "images": images, "classes": CLASSES, **changed}
    with pytest.raises(error, match=told):
        SCCLIPConfig.adapt(**given)


def test_thresholds_lie_between_two_heaps():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.05, 3000), rng.normal(0.7, 0.05, 300)])
    for threshold in (otsu_threshold, mixture_threshold):
        assert 0.1 < threshold(values) < 0.6
    assert otsu_threshold(np.array([-0.5] * 9 + [0.5])) == pytest.approx(0, abs=0.02)
    assert mixture_threshold(values) == mixture_threshold(values)


def test_gaps_are_large_where_there_are_clusters():
    sides = torch.eye(8)[:2].repeat_interleave(4, 0).repeat(8, 1)[None]  # left and right halves
    noise = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))
    ordered, mixed = ((5 * sides + noise), noise)
    with_class = [torch.cat([x[:, :1], x], 1) for x in (ordered, mixed)]
    large, small = near_far_gaps(with_class, (8, 8))
    assert large > small + 0.2
    large, small = (spectral_gap(patch_similarity(x), 0.4) for x in (ordered, mixed))
    assert large > small + 0.2


def test_two_separate_clusters_have_the_known_spectrum():
    similarity = torch.block_diag(*[torch.ones(6, 6)] * 3)[None]
    assert spectral_gap(similarity, 0.5) == pytest.approx(1, abs=1e-5)  # 0, 0, 0, then ones


def test_a_rule_that_reads_layers_does_not_see_other_parameters(model, images):
    configs = candidates(SCCLIPConfig())
    scores = spectral_scores(SCCLIP(model).encode(images), configs)
    assert scores["mix=0.0"] == scores["as given"] != scores["beta=0.8"]
    scores = SCCLIPConfig.adapt(model, images, rule="near and far").scores
    assert scores["beta=0.8"] == scores["as given"] != scores["post_adjust_idx=5"]


def test_otsu_for_each_picture_is_otsu_for_a_picture_alone(model, images):
    found = OtsuEachPicture(model, SCCLIPConfig()).features(images)
    for i in range(len(images)):
        own = images[i : i + 1]
        config = set_beta(SCCLIPConfig(), otsu_threshold, SCCLIP(model).encode(own))
        assert torch.allclose(SCCLIP(model, config).features(own)[0], found[i], atol=1e-5)


def test_weathering_depends_on_the_number_alone_and_keeps_labels():
    scene = evaluation_scene(VALIDATION, 7, 0)
    for index, kind in enumerate(KINDS):
        damaged = weather(scene, index)
        assert np.array_equal(damaged.image, weather(scene, index).image), kind
        assert not np.array_equal(damaged.image, scene.image)
        assert np.array_equal(damaged.labels, scene.labels)
    with pytest.raises(ValueError, match="index must be at least 0, got -1"):
        weather(scene, -1)


@pytest.fixture(scope="module")
def cell():
    return measure_cell(load_clip("mini"), "training styles", tests=2, pictures=2)


def test_a_cell_counts_what_a_segmenter_gets_right(cell):
    model, name = load_clip("mini"), "beta=0.8"
    scenes = [data_sets()["training styles"].make(VALIDATION, i) for i in range(2)]
    segmenter = SCCLIP(model, SCCLIPConfig(beta=0.8))
    _, text = segmenter.embed_classes(WORDS)
    counts = count_right(segmenter.logits(stack_images(model, scenes), text), scenes)
    assert np.array_equal(counts, cell.counts[VALIDATION][name])
    assert counts[:, 1].sum() == 2 * 56 * 56


def test_the_regret_of_a_rule_is_that_of_its_choice(cell):
    table = study.regrets([cell])
    part = table.query("split == 'test' and measure == 'mIoU' and data == 'all'").set_index("rule")
    assert (part.loc[[*study.SCORING], "value"] >= 0).all()
    scores = {n: study.mean_iou(c.sum(0)) for n, c in cell.counts[study.TEST].items()}
    best = max(value for name, value in scores.items() if name in cell.evidence)
    assert part.loc["flip", "value"] == pytest.approx(best - scores[cell.choice("flip")])
    assert part.loc["flip", "gain"] == pytest.approx(
        scores[cell.choice("flip")] - scores["as given"]
    )
    mean = np.mean([scores[name] for name in cell.evidence])
    assert part.loc[study.CHANCE, "value"] == pytest.approx(best - mean)
    assert study.winner(table) in study.CHOSEN
    shown = study.correlations([cell])
    assert set(shown["rule"]) == set(study.SCORING) and shown["spearman"].abs().max() <= 1
    models = study.model_table([cell]).query("measure == 'mIoU'").set_index("setting")
    assert models.loc[WITH_WORDS, "chosen"] == cell.choice(WITH_WORDS)
    assert models["value"].max() == models.loc[study.ORACLE, "value"]
    assert study.draw_regret(table).axes and study.draw_correlations(shown).axes
    assert study.draw_models(models.reset_index()).axes
