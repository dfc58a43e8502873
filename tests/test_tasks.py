"""Other tasks on frozen features: each measure against a case whose answer is known."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from scclip_core import make_method
from scclip_lab.datasets.scenes import TEST, WORDS
from scclip_lab.evaluation.metrics import GAINED
from scclip_lab.studies import ch10_tasks as chapter
from scclip_lab.studies import tasks_correspondence as correspondence
from scclip_lab.studies import tasks_example as example
from scclip_lab.studies import tasks_retrieval as retrieval
from scclip_lab.studies import tasks_video as video
from scclip_lab.studies.tasks_common import (
    LayerTokens,
    Pixels,
    all_readers,
    as_input,
    read_all,
    score_rows,
)
from tests.test_posed_emoji import still

# One interface


def test_one_pass_through_the_blocks_gives_every_methods_own_features(mini):
    readers, images = all_readers(mini, (0, 3, 10), modules=True), as_input(mini, still().images)
    for name, features in read_all(readers, images).items():
        assert torch.equal(features, readers[name].features(images)), name
        assert features.shape[:3] == (1, 14, 14)
        assert torch.allclose(features.norm(dim=-1), torch.ones(1, 14, 14), atol=1e-4)


def test_the_tokens_of_a_layer_are_those_of_the_cache(mini):
    images = as_input(mini, still().images)
    name = "blocks.5.hook_resid_post"
    _, cache = make_method("values", mini).run_with_cache(images, name)
    wanted = F.normalize(cache[name][:, 1:], dim=-1).unflatten(1, (14, 14))
    assert torch.allclose(LayerTokens(mini, 5).features(images), wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"layer must be in 0..10, got 11"):
        LayerTokens(mini, 11)


def test_paired_scores_are_zero_against_themselves():
    scores = {"values": np.array([0.2, 0.4, 0.9]), "scclip": np.array([0.3, 0.5, 1.0])}
    rows = score_rows("x", "training", scores, 0)
    assert rows[0][-3:] == (0, 0, 0)
    assert np.allclose(rows[1][-3:], 0.1)


# By example


def test_an_object_is_found_by_itself_where_features_are_its_mask():
    mask = np.zeros((224, 224), bool)
    mask[32:96, 48:128] = True
    features = torch.stack([example.coverage(mask), 1 - example.coverage(mask)], -1)
    alike = example.similarity_map(features, example.prototype(features, mask), 224)
    assert example.mask_iou(alike > 0.5, mask) > 0.8
    assert example.mask_iou(mask, mask) == 1 and example.mask_iou(~mask, mask) == 0


def test_the_iou_of_all_thresholds_is_that_of_each():
    rng = np.random.default_rng(0)
    alike, truth = rng.uniform(-1, 1, (40, 40)), rng.random((40, 40)) < 0.3
    alike[np.isclose(alike[..., None], example.GRID).any(-1)] += 1e-6
    wanted = [example.mask_iou(alike > t, truth) for t in example.GRID]
    assert np.allclose(example.iou_by_threshold(alike, truth), wanted)


def test_reference_and_targets_show_one_object_in_three_styles():
    drawn = example.draw_example(TEST, 0, 0)
    styles = [clip.poses[0][0].style for clip in (drawn.reference, *drawn.targets.values())]
    assert len(set(styles)) == 3 and styles[2] == "fluent"
    assert {clip.words[0] for clip in drawn.targets.values()} == {drawn.word}


# Correspondence


def test_the_correspondence_of_a_picture_with_itself_is_exact(mini):
    source, _ = correspondence.draw_pair(0, 1)
    patches, truth = correspondence.true_matches(source, source)
    assert np.allclose(truth, (patches + 0.5) * 16)
    features = F.normalize(
        torch.randn(14, 14, 64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    found = correspondence.match_points(features, features, patches, 224)
    assert np.abs(found - truth).max() <= correspondence.STEP
    assert correspondence.pck(found, truth, 100) == 1


def test_a_smaller_object_keeps_its_points_on_itself():
    source, targets = correspondence.draw_pair(0, 2)
    for target in targets.values():
        _, truth = correspondence.true_matches(source, target)
        row, col = truth.astype(int).T
        assert len(truth) and (target.instances[0][row, col] == 1).all()
        assert 0 < correspondence.chance(target, truth) < 0.3


def test_points_are_right_up_to_a_tenth_of_the_box():
    truth = np.zeros((4, 2))
    found = np.array([[0.0, 0.0], [6.0, 8.0], [0.0, 10.1], [30.0, 0.0]])
    assert correspondence.pck(found, truth, 100) == 0.5
    with pytest.raises(ValueError, match="at least one point, got none"):
        correspondence.pck(found[:0], truth[:0], 100)


# Video


def test_a_clip_that_stands_still_keeps_its_masks():
    features = torch.randn(1, 14, 14, 64, generator=torch.Generator().manual_seed(0))
    features = F.normalize(features, dim=-1).expand(4, -1, -1, -1)
    first = video.patch_masks(still().instances[0], 3)
    masks = video.propagate(features, first)
    # The four other voters resemble a patch by chance alone, and weigh next to nothing.
    assert (masks - first).abs().max() < 0.05
    shown = video.to_instances(masks, 224)
    assert all((a == b).mean() > 0.99 for a, b in pairwise(shown))


def test_a_step_is_the_vote_of_the_most_similar_near_patches():
    tokens = F.normalize(torch.randn(9, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    masks, near = torch.rand(9, 2), video.near_patches((3, 3), 1)
    given = video.propagate_step(tokens, tokens[None], masks[None], near)
    for i in range(9):
        alike = {j: float(tokens[i] @ tokens[j]) for j in range(9) if near[i, j]}
        best = sorted(alike, key=lambda j, alike=alike: -alike[j])[: video.TOP]
        chosen = torch.tensor([alike[j] for j in best])
        weights = (chosen / video.TEMPERATURE).softmax(0)
        wanted = sum(w * masks[j] for w, j in zip(weights, best, strict=False))
        assert near[i].sum() < video.TOP or torch.allclose(given[i], wanted, atol=1e-5)


def test_regions_and_outlines_agree_with_themselves_and_not_with_others():
    mask = np.zeros((224, 224), bool)
    mask[50:120, 60:160] = True
    shifted = np.roll(mask, 2, 1)
    for measure in (video.region_similarity, video.contour_accuracy):
        assert measure(mask, mask) == 1
        assert measure(mask, np.roll(mask, 100, 0)) < 0.05
        assert measure(~mask & False, ~mask & False) == 1
        assert measure(mask, ~mask & False) == 0
    # Two pixels are within the tolerance of an outline, but not of a region.
    assert video.contour_accuracy(shifted, mask) == 1
    assert np.isclose(video.region_similarity(shifted, mask), 98 / 102)


def test_true_masks_score_one_and_the_animation_is_the_same_each_time(mini, tmp_path):
    clip = video.draw_clip(0, 0, "training")
    assert video.score_clip(clip.instances, clip) == (1, 1)
    first, again = (video.save_animation(mini, tmp_path / name) for name in "ab")
    assert first.read_bytes() == again.read_bytes()
    assert first.stat().st_size < 1e6


# Retrieval


def test_a_query_is_scored_by_where_its_regions_rank():
    similarity, relevant = np.array([0.9, 0.8, 0.7, 0.1]), np.array([False, True, False, True])
    scores = retrieval.ranking_scores(similarity, relevant)
    assert scores == {"recall@1": 0, "recall@5": 1, "average precision": (1 / 2 + 2 / 4) / 2}


def test_regions_that_are_their_words_are_found_in_both_directions():
    words, pictures = np.array([0, 3, 50, 3, 51]), np.array([0, 0, 0, 1, 1])
    text = torch.eye(len(WORDS))
    collection = retrieval.Collection({"values": text[words]}, words, pictures)
    for direction in retrieval.score_retrieval(collection, {"values": text}):
        for scores in direction.values():
            assert (scores["values"] == 1).all()


def test_a_region_is_cut_out_whole_and_pooled_by_its_mask():
    shown = still(words=("dog",))
    (_, background), (word, mask) = retrieval.regions_of(shown)
    assert word == WORDS.index("dog") and not (mask & background).any()
    assert retrieval.crop(shown.images[0], mask).shape == (112, 112, 3)
    pooled = example.prototype(Pixels().features(torch.rand(1, 3, 224, 224))[0], mask)
    assert np.isclose(float(pooled.norm()), 1, atol=1e-5)


def test_the_class_token_is_open_clips_own(mini):
    images = as_input(mini, still().images)
    wanted = mini.clip.encode_image(images, normalize=True)
    with torch.no_grad():
        assert torch.allclose(retrieval.class_tokens(mini, images), wanted, atol=1e-5)


# Verdicts


def test_a_verdict_is_that_of_the_paired_interval():
    def table(measure, gains):
        rows = [
            (measure, style, method, "values", value, value, value, *gain)
            for style, gain in gains.items()
            for method, value, gain in (("values", 0.5, (0, 0, 0)), ("scclip", 0.6, gain))
        ]
        return pd.DataFrame(rows, columns=["measure", "styles", "method", "base", *GAINED])

    gains = {"a": (0.1, 0.05, 0.2), "b": (-0.1, -0.2, -0.01), "c": (0.1, -0.1, 0.2)}
    tables = {task: table(measure, gains) for task, measure in chapter.MEASURES.items()}
    judged = chapter.judge(tables)
    wanted = [chapter.BETTER, chapter.WORSE, chapter.EQUAL]
    assert judged["verdict"].tolist() == wanted * len(tables)
    assert set(judged["best"]) == {"scclip"}
