"""What every method promises: frozen, repeatable, batched, and label maps from its features."""

import pytest
import torch
from torch import nn

from scclip_core import METHODS, DenseCLIP, SCCLIPConfig, make_method
from scclip_core.segmentation import upsample
from scclip_core.text import max_over_names
from tests.conftest import CLASSES, TEXT, tiny_clip


def test_nothing_of_the_model_and_of_the_images_changes(method, images, picture):
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    given = images.clone()
    method.segment(images, CLASSES)
    method.trace(images, CLASSES)
    method.predict(picture, CLASSES, scores=True)
    method.run_with_hooks(images, {"stage8.features": lambda features: -features})
    after = method.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(images, given)
    assert not any(p.requires_grad for p in method.parameters())
    assert not any(module.training for module in method.modules())


def test_no_output_carries_a_gradient(method, images):
    assert not method(images.clone().requires_grad_()).requires_grad
    _, text = method.embed_classes(CLASSES)
    assert not method.logits(images, text.clone().requires_grad_()).requires_grad


def test_outputs_repeat_bit_for_bit(method, images):
    assert torch.equal(method.features(images), method.features(images))


def test_a_batch_equals_its_images_one_by_one(method, images):
    apart = torch.cat([method.features(one) for one in images.split(1)])
    assert (method.features(images) - apart).abs().max() <= 1e-5


def test_features_have_the_images_grid_and_unit_length(method):
    features = method.features(torch.randn(2, 3, 48, 80))
    assert features.shape == (2, 3, 5, 24)
    assert torch.allclose(features.norm(dim=-1), torch.ones(2, 3, 5), atol=1e-5)


def test_features_that_are_not_normalised_are_the_projected_tokens(method, images):
    plain = method.features(images, normalize=False)
    assert torch.allclose(nn.functional.normalize(plain, dim=-1), method(images), atol=1e-6)
    assert (plain.norm(dim=-1) - 1).abs().max() > 0.1


def test_label_maps_have_image_size_and_index_the_classes(method, images):
    labels = method.segment(images, CLASSES)
    assert labels.shape == (3, 128, 128)
    assert labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_segment_is_the_largest_upsampled_logit(method, images):
    words = ["car", "cup", "road"]
    _, text = method.embed_classes(words)
    expected = upsample(method.logits(images, text), (128, 128)).argmax(1)
    assert torch.equal(method.segment(images, words), expected)
    assert len(expected.unique()) > 1


def test_one_class_covers_everything(segmenter, images):
    assert not segmenter.segment(images, ["dog"]).any()


def test_a_segmenter_is_called_like_any_module(method, images):
    assert torch.equal(method(images), method.features(images))


def test_train_leaves_everything_in_evaluation_mode(method):
    whole = nn.Sequential(method)
    for change in (method.train, method.model.train, whole.train):
        change()
        assert not any(module.training for module in method.modules())
    assert method.train() is method
    assert method.model.train(True) is method.model


def test_the_features_compile_into_one_graph(method, images):
    torch.compiler.reset()  # what other methods compiled counts towards a limit
    compiled = torch.compile(method.features, fullgraph=True, backend="aot_eager")
    assert (compiled(images) - method.features(images)).abs().max() <= 1e-4


def test_a_plain_open_clip_model_is_frozen_in_place():
    clip = tiny_clip().train()
    for name in METHODS:
        method = make_method(name, clip)
        assert method.model.clip is clip
        assert not any(module.training for module in method.modules())
    assert not any(p.requires_grad for p in clip.parameters())


def test_a_method_without_dense_tokens_cannot_be_made(model):
    class Unfinished(DenseCLIP):
        config_class = SCCLIPConfig

    with pytest.raises(TypeError, match="dense_tokens"):
        Unfinished(model)


def test_a_sentence_is_cut_where_the_models_own_context_ends(model):
    words = ["word"] * TEXT["context_length"]
    long, longer = model.encode_text([" ".join(words), " ".join(words * 3)])
    assert torch.equal(long, longer)


def test_logits_are_cosines_and_a_class_takes_its_best_name(segmenter, images):
    names, text = segmenter.embed_classes(CLASSES)
    logits = segmenter.logits(images, text)
    assert logits.shape == (3, 8, 8, 4)
    assert torch.allclose(logits, segmenter.features(images) @ text.T, atol=1e-6)
    labels = upsample(max_over_names(logits, names), (128, 128)).argmax(1)
    assert torch.equal(labels, segmenter.segment(images, CLASSES))
