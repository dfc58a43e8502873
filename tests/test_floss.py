"""FLOSS: templates chosen by their entropy, and classes claimed by their experts."""

import math

import pytest
import torch
import torch.nn.functional as F

from scclip_core import make_method
from scclip_core.floss import (
    choose_experts,
    entropy_sums,
    expert_labels,
    probabilities,
    segment_with_experts,
    template_entropies,
)
from scclip_core.segmentation import upsample
from scclip_core.text import embed_names

WORDS = ["car", "cup", "road"]
TEMPLATES = ("a photo of {}", "a drawing of {}", "{}", "many {}")
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = F.normalize(torch.randn(2, 3, 4, 8, generator=GENERATOR), dim=-1)
EXPERTS = F.normalize(torch.randn(3, 3, 8, generator=GENERATOR), dim=-1)
AVERAGE = F.normalize(EXPERTS.mean(0), dim=-1)
SIZE = (12, 16)


@pytest.fixture(scope="module")
def method(model):
    return make_method("values", model)


def test_probabilities_are_the_softmax_of_scaled_cosines_at_image_size():
    found = probabilities(FEATURES, AVERAGE, SIZE, 5.0)
    assert found.shape == (2, 3, 12, 16)
    expected = (5 * upsample(FEATURES @ AVERAGE.T, SIZE)).softmax(1)
    assert torch.allclose(found, expected)


def test_entropies_are_summed_over_the_pixels_of_each_class():
    probability = probabilities(FEATURES, AVERAGE, SIZE, 5.0)
    sums, counts = entropy_sums(probability)
    expected, number = [0.0] * 3, [0] * 3
    for image in probability:
        for y in range(12):
            for x in range(16):
                p = image[:, y, x].tolist()
                k = p.index(max(p))
                expected[k] -= sum(value * math.log(value) for value in p)
                number[k] += 1
    assert counts.tolist() == number
    assert torch.allclose(sums, torch.tensor(expected, dtype=torch.float64), atol=1e-3)


def test_a_sure_pixel_has_no_entropy_and_an_even_one_the_most():
    sums, counts = entropy_sums(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    assert sums.tolist() == [0.0, 0.0, 0.0] and counts.tolist() == [1.0, 0.0, 0.0]
    sums, _ = entropy_sums(torch.full((1, 3, 1, 1), 1 / 3))
    assert sums.sum() == pytest.approx(math.log(3))


def test_the_entropies_of_all_templates_are_means_over_all_pictures(method, images):
    found = template_entropies(method, images.split(1), WORDS, TEMPLATES, 50.0)
    assert found.shape == (4, 3) and found.dtype == torch.float64
    features = method.features(images)
    for m, template in enumerate(TEMPLATES):
        text = embed_names(method.model, WORDS, (template,))
        sums, counts = entropy_sums(probabilities(features, text, (128, 128), 50.0))
        seen = counts > 0
        assert torch.allclose(found[m][seen], (sums / counts)[seen], atol=1e-6)
        assert torch.isinf(found[m][~seen]).all()


def test_the_models_own_scale_is_the_default(method, images):
    own = template_entropies(method, [images], WORDS, TEMPLATES)
    given = template_entropies(method, [images], WORDS, TEMPLATES, method.model.logit_scale)
    assert torch.equal(own, given)


def test_the_experts_of_a_class_are_the_templates_of_lowest_entropy():
    entropies = torch.tensor(
        [[0.3, 1.0, torch.inf], [0.1, torch.inf, torch.inf], [0.2, 0.5, torch.inf]]
    )
    assert choose_experts(entropies, 2) == [(1, 2), (2, 0), (0, 1, 2)]
    assert choose_experts(entropies, 1) == [(1,), (2,), (0, 1, 2)]


def slow_labels(features, experts, average, size, scale):
    each = [probabilities(features, text, size, scale) for text in experts]
    fallback = probabilities(features, average, size, scale).argmax(1)
    labels = torch.zeros_like(fallback)
    for image in range(len(features)):
        for y in range(size[0]):
            for x in range(size[1]):
                claims = [
                    (float(p[image, k, y, x]), k)
                    for k, p in enumerate(each)
                    if int(p[image, :, y, x].argmax()) == k
                ]
                best = max(claims)[1] if claims else int(fallback[image, y, x])
                labels[image, y, x] = best
    return labels


def test_a_pixel_goes_to_the_surest_expert_that_claims_it_and_else_to_the_average():
    expected = slow_labels(FEATURES, EXPERTS, AVERAGE, SIZE, 5.0)
    found = expert_labels(FEATURES, EXPERTS, AVERAGE, SIZE, 5.0)
    assert torch.equal(found, expected)
    plain = probabilities(FEATURES, AVERAGE, SIZE, 5.0).argmax(1)
    assert not torch.equal(found, plain)


def test_experts_that_are_all_the_average_change_nothing():
    same = AVERAGE.expand(3, 3, 8)
    plain = probabilities(FEATURES, AVERAGE, SIZE, 5.0).argmax(1)
    assert torch.equal(expert_labels(FEATURES, same, AVERAGE, SIZE, 5.0), plain)


def test_segmenting_with_all_templates_as_experts_is_segmenting_with_their_mean(model, images):
    method = make_method("values", model, templates=TEMPLATES)
    everything = [tuple(range(4))] * 3
    found = segment_with_experts(method, images, WORDS, TEMPLATES, everything)
    assert torch.equal(found, method.segment(images, WORDS))


def test_chosen_experts_segment_pictures(method, images):
    experts = choose_experts(template_entropies(method, [images], WORDS, TEMPLATES), 2)
    labels = segment_with_experts(method, images, WORDS, TEMPLATES, experts)
    texts = [embed_names(method.model, WORDS, tuple(TEMPLATES[m] for m in e)) for e in experts]
    average = embed_names(method.model, WORDS, TEMPLATES)
    expected = expert_labels(
        method.features(images),
        torch.stack(texts),
        average,
        (128, 128),
        method.model.logit_scale,
    )
    assert torch.equal(labels, expected) and labels.dtype == torch.int64


def test_what_does_not_fit_is_refused(method, images):
    with pytest.raises(ValueError, match=r"classes must have one name each, got 'cup\|mug'"):
        template_entropies(method, [images], ["car", "cup|mug"], TEMPLATES)
    with pytest.raises(ValueError, match="templates must be a non-empty tuple"):
        template_entropies(method, [images], WORDS, ())
    with pytest.raises(ValueError, match="batches must hold at least one image, got none"):
        template_entropies(method, [], WORDS, TEMPLATES)
    with pytest.raises(ValueError, match="logit_scale must be a finite number > 0, got 0"):
        template_entropies(method, [images], WORDS, TEMPLATES, 0)
    for count in (0, 5, 1.0):
        with pytest.raises(ValueError, match=rf"count must be in 1\.\.4, .* got {count}"):
            choose_experts(torch.zeros(4, 3), count)
    for experts in ([(0,)] * 2, [(0,), (1,), ()], [(0,), (1,), (4,)]):
        with pytest.raises(
            ValueError, match=r"experts must be 3 non-empty tuples of numbers in 0\.\.3"
        ):
            segment_with_experts(method, images, WORDS, TEMPLATES, experts)
    with pytest.raises(TypeError, match="images must be a tensor"):
        segment_with_experts(method, "a.png", WORDS, TEMPLATES, [(0,)] * 3)
