"""ResCLIP: attention of middle blocks, and feedback of the words' own first segmentation."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from scclip_core import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.resclip import ResCLIP, ResCLIPConfig, patch_labels, same_label_affinity
from scclip_core.segmentation import upsample
from tests.conftest import tiny_clip
from tests.slow import by_loops, entering, heads, project, softmax_rows

GRID = (3, 4)
WORDS = ["car", "cup", "road"]


def window(a, b, sigma=5.0):
    squared = (a // 4 - b // 4) ** 2 + (a % 4 - b % 4) ** 2
    return math.exp(-squared / (2 * sigma**2))


def slow_last_block(model, images, feedback=None):
    """The formula with the parameters written out; feedback [N, N] of every image."""
    inputs, results = entering(model, images), []
    for image in range(len(images)):
        crosses = []
        for i in range(5, 9):
            q, k, _ = heads(model, model.blocks[i], inputs[i][image])
            pairs = zip(q, k, strict=True)
            crosses.append([softmax_rows(a @ b.T / math.sqrt(a.shape[1])) for a, b in pairs])
        block, outputs = model.blocks[-1], []
        _, k, v = heads(model, block, inputs[-1][image])
        for h in range(model.heads):
            logits = k[h] @ k[h].T / math.sqrt(k[h].shape[1])
            if feedback is not None:
                affinity = torch.zeros(13, 13)
                affinity[1:, 1:] = feedback[image] / feedback[image].max()
                logits = 1.8 * (0.3 * logits + 0.7 * affinity)
            for a in range(12):
                for b in range(12):
                    logits[1 + a, 1 + b] += window(a, b)
            cross = sum(one[h] for one in crosses) / 4
            outputs.append(by_loops(2.0 * (0.6 * softmax_rows(logits) + 0.4 * cross), v[h]))
        results.append(project(block, torch.cat(outputs, 1))[1:])
    return torch.stack(results)


@torch.no_grad()
def test_resclip_is_its_formula(model, few):
    found = make_method("resclip", model).dense_tokens(few, GRID)
    assert torch.allclose(found, slow_last_block(model, few), atol=1e-4)


@torch.no_grad()
def test_with_words_the_last_block_runs_again_with_their_feedback(model, few):
    method = make_method("resclip", model)
    _, text = method.embed_classes(WORDS)
    feedback = []
    for logits in method.features(few) @ text.T:
        feedback.append(same_label_affinity(patch_labels(logits, 16, 40.0, 0.11), 5.0))
    expected = slow_last_block(model, few, feedback)
    expected = F.normalize(model.project(expected), dim=-1).unflatten(1, GRID)
    found = method.features_for(few, text)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(method.logits(few, text), found @ text.T, atol=1e-6)
    assert (found - method.features(few)).abs().max() > 1e-3


@torch.no_grad()
def test_a_batch_with_words_equals_its_images_one_by_one(model, few):
    method = make_method("resclip", model)
    _, text = method.embed_classes(WORDS)
    apart = torch.cat([method.logits(one, text) for one in few.split(1)])
    assert (method.logits(few, text) - apart).abs().max() <= 1e-5


def test_patch_labels_are_the_most_frequent_among_their_pixels():
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = patch_labels(logits, 8, 3.0, 0.4)
    pixels = (3.0 * upsample(logits[None], (24, 32))[0]).softmax(0)
    for row in range(3):
        for col in range(4):
            counts = Counter()
            for y in range(8 * row, 8 * row + 8):
                for x in range(8 * col, 8 * col + 8):
                    largest = pixels[:, y, x].max()
                    counts[int(pixels[:, y, x].argmax()) if largest >= 0.4 else 0] += 1
            assert counts[int(found[row, col])] == max(counts.values())
    assert len(found.unique()) > 2


def test_pixels_that_are_not_sure_count_as_the_first_name():
    assert not patch_labels(torch.randn(3, 4, 5), 8, 3.0, 1.0).any()


def slow_affinity(labels, sigma):
    rows, cols = labels.shape
    n, longest = rows * cols, max(rows, cols) - 1
    affinity = torch.zeros(n, n)
    for a in range(n):
        for b in range(n):
            (y, x), (v, u) = divmod(a, cols), divmod(b, cols)
            steps, connected = max(abs(v - y), abs(u - x)), True
            for step in range(steps + 1):
                t = step / longest
                row, col = round(y + (v - y) * t), round(x + (u - x) * t)
                connected &= bool(labels[row, col] == labels[y, x])
            if labels[y, x] == labels[v, u]:
                affinity[a, b] = 1.0 if connected else math.exp(-steps / longest)
    half = (min(n, int(6 * sigma + 1)) // 2 * 2 + 1) // 2
    weights = [math.exp(-(o**2) / (2 * sigma**2)) for o in range(-half, half + 1)]
    smooth = torch.zeros(n, n)
    for a in range(n):
        for b in range(n):
            for weight, c in zip(weights, range(b - half, b + half + 1), strict=True):
                if 0 <= c < n:
                    smooth[a, b] += weight * affinity[a, c]
    return smooth / smooth.sum(1, keepdim=True)


@pytest.mark.parametrize("shape", [(4, 5), (6, 3), (1, 7)])
@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_the_affinity_of_equal_labels_is_its_formula(shape, sigma):
    labels = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(2))
    found = same_label_affinity(labels, sigma)
    assert torch.allclose(found, slow_affinity(labels, sigma), atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(len(found)), atol=1e-5)


def test_patches_of_one_label_are_near_to_all_alike_but_for_the_borders_of_the_rows():
    even = same_label_affinity(torch.zeros(6, 6, dtype=torch.int64), 0.2)
    assert torch.allclose(even, torch.full((36, 36), 1 / 36), atol=1e-5)


def test_a_single_patch_is_its_own_neighbour():
    assert torch.allclose(
        same_label_affinity(torch.zeros(1, 1, dtype=torch.int64), 5.0), torch.ones(1, 1)
    )


def test_without_middle_attention_and_feedback_it_is_naclip(model, few):
    alone = make_method("resclip", model, cross_mix=0.0, cross_scale=1.0)
    naclip = make_method("naclip", model)
    assert (alone.features(few) - naclip.features(few)).abs().max() <= 1e-5


def test_predictions_use_the_feedback(model, picture):
    method = make_method("resclip", model)
    _, text = method.embed_classes(WORDS)
    image = model.preprocess(picture)[None]
    assert method.segment(image, WORDS).shape[1:] == image.shape[2:]
    prediction = method.predict(picture, WORDS, scores=True)
    assert prediction.labels.shape == (60, 90)
    with_words, without = method.logits(image, text), method.features(image) @ text.T
    assert (with_words - without).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sigma": 0}, "sigma must be a number > 0, in patches, got 0"),
        ({"first": -1}, "first must be a whole number >= 0, got -1"),
        ({"first": 5.0}, "first must be a whole number >= 0, got 5.0"),
        ({"end": 5}, "end must be a whole number > first, 5, got 5"),
        ({"end": 12}, "end must be at most 11, the blocks before the last, got 12"),
        ({"cross_mix": 1.1}, r"cross_mix must be a number in \[0, 1\], got 1.1"),
        ({"feedback_mix": -0.1}, r"feedback_mix must be a number in \[0, 1\], got -0.1"),
        ({"threshold": "1"}, r"threshold must be a number in \[0, 1\], got '1'"),
        ({"cross_scale": 0}, "cross_scale must be a finite number > 0, got 0"),
        ({"feedback_scale": math.inf}, "feedback_scale must be a finite number > 0, got inf"),
        ({"logit_scale": -1}, "logit_scale must be a finite number > 0, got -1"),
        ({"templates": ()}, "templates must be a non-empty tuple"),
    ],
)
def test_parameters_out_of_range_are_refused(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_method("resclip", model, **parameters)


def test_the_defaults_are_those_of_the_published_code():
    config = ResCLIPConfig()
    assert (config.first, config.end, config.sigma) == (5, 9, 5.0)
    assert (config.cross_scale, config.cross_mix) == (2.0, 0.4)
    assert (config.feedback_scale, config.feedback_mix) == (1.8, 0.7)
    assert (config.logit_scale, config.threshold) == (40.0, 0.11)


def test_a_model_of_few_blocks_needs_other_layers():
    shallow = FrozenCLIP(tiny_clip(layers=4))
    with pytest.raises(ValueError, match="end must be at most 3"):
        ResCLIP(shallow)
    assert ResCLIP(shallow, ResCLIPConfig(first=1, end=3)).features(torch.zeros(1, 3, 32, 32)).any()
