"""Detection on frozen features: boxes around components, and average precision as in COCO."""

import numpy as np

from scclip_lab.studies import tasks_detection as detection
from scclip_lab.studies.tasks_detection import Box
from tests.test_posed_emoji import still


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
