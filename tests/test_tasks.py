"""Other tasks on frozen features: each measure against a case whose answer is known."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from scclip_core import load_clip, make_method
from scclip_lab.datasets.clips import (
    Pose,
    choose_words,
    generator,
    make_clip,
    make_still,
    render,
)
from scclip_lab.datasets.scenes import TEST, WORDS
from scclip_lab.evaluation.metrics import GAINED
from scclip_lab.studies import ch10_tasks as chapter
from scclip_lab.studies import tasks_correspondence as correspondence
from scclip_lab.studies import tasks_detection as detection
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
from scclip_lab.studies.tasks_detection import Box


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini")


def still(index=0, words=("dog", "dog", "cat")):
    return make_still(generator("stills", TEST, 3, index), words)


# Posed emoji


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 35.0, -120.0])
def test_a_pose_maps_points_both_ways(angle, flip):
    pose = Pose("dog", "noto", (80.0, 130.0), 90.0, angle, flip)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    assert np.allclose(pose.to_drawing(pose.to_picture(points)), points)


@pytest.mark.parametrize(("angle", "flip"), [(0.0, False), (50.0, False), (-75.0, True)])
def test_a_drawing_is_seen_where_its_pose_says(angle, flip):
    upright = Pose("guitar", "noto", (112.0, 112.0), 160.0)
    turned = Pose("guitar", "noto", (100.0, 120.0), 120.0, angle, flip)
    masks = [render(np.zeros((224, 224, 3)), [pose])[1] == 1 for pose in (upright, turned)]
    centres = np.argwhere(masks[0]) + 0.5
    places = turned.to_picture(upright.to_drawing(centres)).astype(int)
    assert masks[1][tuple(places.T)].mean() > 0.95


def test_a_picture_is_a_pure_function_of_its_seed_and_shows_a_word_twice():
    a, b = still(), still()
    assert np.array_equal(a.images, b.images) and a.has_twins
    assert a.images.shape == (1, 224, 224, 3) and a.images.dtype == np.uint8
    assert (a.labels[0] == WORDS.index("dog")).sum() == np.isin(a.instances[0], [1, 2]).sum()
    assert not np.array_equal(a.images, still(1).images)


def test_a_clip_moves_its_objects_until_they_meet():
    clip = make_clip(generator("clips", TEST, 0, 0), ("dog", "cat"), frames=8)
    assert clip.images.shape == (8, 224, 224, 3) and len(clip.poses) == 8
    apart = [np.linalg.norm(np.subtract(a.centre, b.centre)) for a, b in clip.poses]
    assert min(apart) < apart[0] and np.argmin(apart) in (3, 4, 5)


def test_twins_are_drawn_with_the_chance_given():
    draws = [choose_words(np.random.default_rng(i), (3,), 0.5) for i in range(200)]
    assert 0.4 < np.mean([len(set(words)) < 3 for words in draws]) < 0.6


def test_an_unknown_kind_or_split_is_refused():
    with pytest.raises(ValueError, match=r"kind must be one of stills, .* got 'films'"):
        generator("films", TEST, 0, 0)
    with pytest.raises(ValueError, match=r"split must be VALIDATION \(1\) or TEST \(2\), got 0"):
        generator("stills", 0, 0, 0)


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


# Detection


def test_a_box_lies_around_each_component_that_is_large_enough():
    labels = np.full((64, 64), 50)
    labels[4:24, 8:28] = 3
    labels[40:60, 30:50] = 3
    labels[0:3, 60:64] = 5
    boxes = detection.find_boxes(labels, np.where(labels == 3, 0.5, 0.1))
    assert boxes == [Box(3, 0.5, 4, 8, 20, 20), Box(3, 0.5, 40, 30, 20, 20)]


def test_a_perfect_detector_has_average_precision_one():
    truth = [detection.true_boxes(still(i)) for i in range(4)]
    matches = detection.match_boxes(truth, truth)
    assert np.allclose(detection.average_precision(matches, np.ones(4)), 1)


def test_no_box_has_average_precision_zero_and_no_truth_has_none():
    truth = [detection.true_boxes(still(i)) for i in range(2)]
    nothing = detection.match_boxes(truth, [[], []])
    assert np.allclose(detection.average_precision(nothing, np.ones(2)), 0)
    assert np.isnan(detection.average_precision(nothing, np.zeros(2))).all()


def test_average_precision_by_hand():
    # Two true boxes; hits at ranks 1 and 3. Precision is 1 up to recall 1/2, then 2/3:
    # of 101 recalls, 51 are at most 1/2.
    truth = [[Box(0, 1.0, 0, 0, 10, 10), Box(0, 1.0, 50, 50, 10, 10)]]
    found = [[Box(0, 0.9, 0, 0, 10, 10), Box(0, 0.8, 100, 100, 9, 9), Box(0, 0.7, 50, 50, 10, 10)]]
    scores = detection.average_precision(detection.match_boxes(truth, found), np.ones(1))
    assert np.allclose(scores, (51 + 50 * 2 / 3) / 101)


def test_average_precision_is_that_of_pycocotools_on_any_draw_of_pictures():
    rng = np.random.default_rng(0)
    truth, found = [], []
    for _ in range(12):
        boxes = [
            Box(int(rng.integers(3)), 1.0, *rng.integers(0, 60, 2).tolist(), 30, 40)
            for _ in range(3)
        ]
        truth.append(boxes)
        moved = [b._replace(top=b.top + int(rng.integers(0, 12))) for b in boxes]
        noise = [Box(int(rng.integers(3)), 1.0, 5, 5, 20, 20) for _ in range(2)]
        found.append([b._replace(score=float(rng.random())) for b in (*moved, *noise)])
    from pycocotools.cocoeval import COCOeval

    times = rng.multinomial(12, np.full(12, 1 / 12))
    for weights in (np.ones(12, int), times):
        drawn = np.repeat(np.arange(12), weights)
        judge = COCOeval(
            detection._as_coco([truth[i] for i in drawn]),
            detection._as_coco([found[i] for i in drawn]),
            "bbox",
        )
        judge.params.iouThrs = np.array(detection.THRESHOLDS)
        judge.evaluate()
        judge.accumulate()
        precision = judge.eval["precision"][:, :, :, 0, -1]  # [thresholds, recalls, words]
        wanted = [level[level > -1].mean() for level in precision]
        own = detection.average_precision(detection.match_boxes(truth, found), weights)
        assert np.allclose(own, wanted)


def test_boxes_apart_share_nothing():
    assert detection.box_iou(Box(0, 1, 0, 0, 10, 10), Box(0, 1, 50, 50, 10, 10)) == 0
    assert detection.box_iou(Box(0, 1, 0, 0, 10, 10), Box(0, 1, 0, 5, 10, 10)) == 50 / 150


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
    images = still().images
    wanted = mini.clip.encode_image(as_input(mini, images), normalize=True)
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
