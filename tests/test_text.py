"""Class names to embeddings: synonyms, templates, and what is kept."""

import pytest
import torch
import torch.nn.functional as F

from scclip_core import SCCLIP, FrozenCLIP, SCCLIPConfig
from scclip_core.text import best_name, embed_names, parse_classes
from tests.conftest import tiny_clip

SEED = ("a photo of {}",)


def test_a_class_is_a_name_or_several():
    assert parse_classes(["dog", " cat | kitten ", ["sky", "clouds"]]) == [
        ("dog",),
        ("cat", "kitten"),
        ("sky", "clouds"),
    ]


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([], "non-empty list of names"),
        ("dog", "non-empty list of names, got 'dog'"),
        (["dog", ""], "no empty name, number 2 of 2"),
        (["dog", "  "], "no empty name, number 2 of 2"),
        (["dog", "cat|"], "no empty name, number 2 of 2"),
        ([[]], "no empty name, number 1 of 1"),
        (["dog", "cat", "dog"], "classes must differ, 'dog' is given twice"),
        (["dog", "cat|dog"], "'dog' is given twice"),
        (["dog", 1], "names or lists of names, got 1"),
        (["dog", ["cat", None]], "names or lists of names"),
    ],
)
def test_bad_classes_are_refused(classes, told):
    with pytest.raises(ValueError, match=told):
        parse_classes(classes)


def test_one_template_is_the_embedding_of_its_sentence(model):
    assert torch.allclose(embed_names(model, ["dog"], SEED), model.encode_text(["a photo of dog"]), atol=1e-6)


def test_full_prompts_are_names_with_the_empty_template(model):
    prompt = "two dogs on a beach"
    assert torch.allclose(embed_names(model, [prompt], ("{}",)), model.encode_text([prompt]), atol=1e-6)


def test_several_templates_are_averaged_and_normalised_again(model):
    templates = ("a photo of {}", "a drawing of {}", "{}")
    single = torch.stack([embed_names(model, ["dog"], (t,))[0] for t in templates])
    expected = F.normalize(single.mean(0), dim=-1)
    assert torch.allclose(embed_names(model, ["dog"], templates)[0], expected, atol=1e-6)


def test_what_was_embedded_is_kept_until_the_model_moves(monkeypatch):
    model, calls = FrozenCLIP(tiny_clip()), []
    encode = model.encode_text

    def counted(prompts):
        calls.append(list(prompts))
        return encode(prompts)

    monkeypatch.setattr(model, "encode_text", counted)
    first = embed_names(model, ["dog", "cat"], SEED)
    again = embed_names(model, ["cat", "dog", "grass"], SEED)
    assert calls == [["a photo of dog", "a photo of cat"], ["a photo of grass"]]
    assert torch.equal(first, again[[1, 0]])
    assert embed_names(model.double(), ["dog"], SEED).dtype == torch.float64
    assert len(calls) == 3


def test_a_class_takes_its_best_name():
    logits = torch.tensor([[1.0, 5.0, 2.0, 0.0]])
    assert best_name(logits, [("a",), ("b", "c"), ("d",)]).tolist() == [[1.0, 5.0, 0.0]]
    assert best_name(logits, [(n,) for n in "abcd"]) is logits


def test_a_synonym_never_lowers_a_class(model, images):
    plain, more = ["dog", "cat", "grass"], ["dog", "cat|kitten|lion", "grass"]
    segmenter = SCCLIP(model, SCCLIPConfig())
    a = segmenter.trace(images, plain)["logits"].tensor
    b = segmenter.trace(images, more)["logits"].tensor
    assert torch.allclose(a[..., [0, 2]], b[..., [0, 2]], atol=1e-6)
    assert (b[..., 1] >= a[..., 1] - 1e-6).all()


def test_a_thousand_classes_are_segmented(model, images):
    labels = SCCLIP(model).segment(images[:1, :, :32, :32], [f"thing {i}" for i in range(1000)])
    assert labels.shape == (1, 32, 32)
    assert 0 <= labels.min() <= labels.max() < 1000
