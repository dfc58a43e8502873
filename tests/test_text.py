"""Class names to embeddings: synonyms, templates, and what is kept."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from scclip_core import SCCLIP, FrozenCLIP
from scclip_core.text import embed_names, max_over_names, parse_classes
from tests.conftest import tiny_clip

TEMPLATE = ("a photo of {}",)


def test_a_class_is_a_name_or_several():
    assert parse_classes(["dog", " cat | kitten ", ["sky", "clouds"]]) == [
        ("dog",),
        ("cat", "kitten"),
        ("sky", "clouds"),
    ]


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([], r"classes must hold at least one name, got \[\]"),
        ((), r"classes must hold at least one name, got \(\)"),
        (["dog", ""], "no empty name, number 2 of 2"),
        (["dog", "  "], "no empty name, number 2 of 2"),
        (["dog", "cat|"], "no empty name, number 2 of 2"),
        ([[]], "no empty name, number 1 of 1"),
        (["dog", "cat", "dog"], "classes must differ, 'dog' is given twice"),
        (["dog", "cat|dog"], "'dog' is given twice"),
        (["dog", "|"], "no empty name, number 2 of 2"),
        (["dog", ["cat", " "]], "no empty name, number 2 of 2"),
        ([["dog", "dog"]], "'dog' is given twice"),
    ],
)
def test_bad_classes_are_refused(classes, told):
    with pytest.raises(ValueError, match=told):
        parse_classes(classes)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("dog", "a list of names, such as .'dog', 'cat'., got 'dog'"),
        (None, "a list of names, .*, got NoneType"),
        (3, "a list of names, .*, got int"),
        ({"dog": 1}, "a list of names, .*, got dict"),
        ({"dog", "cat"}, "a list of names, .*, got set"),
        (torch.zeros(2), "a list of names, .*, got Tensor"),
        (["dog", 1], "names or lists of names, got 1"),
        (["dog", ["cat", None]], r"names or lists of names, got \['cat', None\]"),
        (["dog", {"cat": "kitten"}], "names or lists of names, got {'cat'"),
    ],
)
def test_classes_of_another_type_are_refused(classes, told):
    with pytest.raises(TypeError, match=f"classes must be {told}"):
        parse_classes(classes)


def test_a_tuple_of_names_and_tuples_is_as_good_as_lists():
    assert parse_classes(("dog", ("sky", "clouds"))) == [("dog",), ("sky", "clouds")]


def test_one_template_is_the_embedding_of_its_sentence(model):
    embedded = embed_names(model, ["dog"], TEMPLATE)
    assert torch.allclose(embedded, model.encode_text(["a photo of dog"]), atol=1e-6)


def test_full_prompts_are_names_with_the_empty_template(model):
    prompt = "two dogs on a beach"
    embedded = embed_names(model, [prompt], ("{}",))
    assert torch.allclose(embedded, model.encode_text([prompt]), atol=1e-6)


def test_bad_templates_are_refused(model):
    with pytest.raises(ValueError, match="templates must be a non-empty tuple"):
        embed_names(model, ["dog"], ["a photo of {}"])


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
    first = embed_names(model, ["dog", "cat"], TEMPLATE)
    again = embed_names(model, ["cat", "dog", "grass"], TEMPLATE)
    assert calls == [["a photo of dog", "a photo of cat"], ["a photo of grass"]]
    assert torch.equal(first, again[[1, 0]])
    assert embed_names(model.double(), ["dog"], TEMPLATE).dtype == torch.float64
    assert len(calls) == 3


@pytest.fixture
def small_vocabulary():
    """A model that was trained on "dog" and "cat" alone: all other rows of its table are zero."""
    model = FrozenCLIP(tiny_clip(), "small", ("dog", "cat"))
    table = model.clip.token_embedding.weight
    kept = [token for word in model.words for token in model.tokenizer.encode(word)]
    table[[row for row in range(len(table)) if row not in kept]] = 0
    return model


def test_names_that_were_never_trained_get_one_warning_with_the_words_that_were(small_vocabulary):
    told = (
        "small was never trained on 'zebra', 'dog house', so that what it finds there means"
        " nothing. It knows: dog, cat."
    )
    with pytest.warns(UserWarning) as warned:
        embed_names(small_vocabulary, ["dog", "zebra", "cat", "dog house"], ("{}",))
    assert [str(warning.message) for warning in warned] == [told]


def test_a_warning_of_many_names_counts_those_beyond_ten(small_vocabulary):
    names = [f"word{i}" for i in range(1000)]
    with pytest.warns(UserWarning, match="'word9' and 990 more, so that") as warned:
        embed_names(small_vocabulary, names, ("{}",))
    assert "word10" not in str(warned[0].message)


def test_trained_names_and_large_vocabularies_get_no_warning(small_vocabulary, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_names(small_vocabulary, ["dog", "Cat"], ("{}",))
        embed_names(model, ["zebra"], ("{}",))
    assert small_vocabulary.unknown_names(["cat", "zebra", "dog"]) == ["zebra"]
    assert model.unknown_names(["zebra"]) == []


def test_a_warning_without_known_words_lists_none(small_vocabulary):
    nameless = FrozenCLIP(small_vocabulary.clip, "small")
    with pytest.warns(UserWarning, match="small was never trained on 'zebra', .* nothing.$"):
        embed_names(nameless, ["zebra"], ("{}",))


def test_a_class_takes_its_max_over_names():
    logits = torch.tensor([[1.0, 5.0, 2.0, 0.0]])
    assert max_over_names(logits, [("a",), ("b", "c"), ("d",)]).tolist() == [[1.0, 5.0, 0.0]]
    assert max_over_names(logits, [(n,) for n in "abcd"]) is logits


def test_a_synonym_never_lowers_a_class(model, images):
    plain, more = ["dog", "cat", "grass"], ["dog", "cat|kitten|lion", "grass"]
    segmenter = SCCLIP(model)
    a, b = (
        max_over_names(segmenter.logits(images, text), names)
        for names, text in map(segmenter.embed_classes, (plain, more))
    )
    assert torch.allclose(a[..., [0, 2]], b[..., [0, 2]], atol=1e-6)
    assert (b[..., 1] >= a[..., 1] - 1e-6).all()
    assert (b[..., 1] > a[..., 1]).any()


def test_a_thousand_classes_are_segmented(model, images):
    labels = SCCLIP(model).segment(images[:1, :, :32, :32], [f"thing {i}" for i in range(1000)])
    assert labels.shape == (1, 32, 32)
    assert 0 <= labels.min() <= labels.max() < 1000


def test_a_sentence_that_would_be_cut_off_is_refused(model):
    fits, long = "dog " * 30, "dog " * 31  # of 32 tokens, two mark start and end
    embed_names(model, [fits.strip()], ("{}",))
    with pytest.raises(ValueError, match="classes must fit into 30 tokens with a template, got"):
        embed_names(model, [long.strip()], ("{}",))
