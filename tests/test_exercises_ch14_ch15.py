"""Wrong answers to the exercises of chapters 14 and 15 are told what is wrong."""

import pytest
import torch

from scclip_core.text import max_over_names, parse_classes
from scclip_lab.exercises import check
from scclip_lab.exercises.solutions.ch14 import best_name, class_logits
from scclip_lab.exercises.solutions.ch15 import exchange_hook


def with_a_zero(logits, sizes):
    return best_name(logits, sizes).clamp(min=0)


def along_the_first(logits, sizes):
    return best_name(logits.flatten(0, -2), sizes)


def in_the_order_of_vectors(features, classes, vectors):
    text = torch.stack([*vectors.values()][: len(classes)])
    return features @ text.T


def every_name_a_class(features, classes, vectors):
    names = [name.strip() for one in classes for name in one.split("|")]
    return features @ torch.stack([vectors[name] for name in names]).T


def mean_of_the_names(features, classes, vectors):
    means = {one: torch.stack([vectors[n] for n in one.split("|")]).mean(0) for one in classes}
    return features @ torch.stack([means[one] for one in classes]).T


def never_below_zero(features, classes, vectors):
    found = class_logits(features, classes, vectors)
    return found.clamp(min=0) if any("|" in one for one in classes) else found


def with_its_spaces(features, classes, vectors):
    spaced = {f"{name} ": vector for name, vector in vectors.items()}
    spaced |= {f" {name}": -vector for name, vector in vectors.items()}
    known = {**vectors, **spaced}
    names = [tuple(one.split("|")) for one in classes]
    text = torch.stack([known[name] for one in names for name in one])
    return max_over_names(features @ text.T, names)


def two_names_at_most(features, classes, vectors):
    names = [one[:2] for one in parse_classes(classes)]
    text = torch.stack([vectors[name] for one in names for name in one])
    return max_over_names(features @ text.T, names)


def evened_in_place(pattern, head):
    pattern[:, head] = 1 / pattern.shape[-1]
    return pattern


def all_heads_even(pattern, head):
    return torch.full_like(pattern, 1 / pattern.shape[-1])


def called_at_once(other, chosen):
    return exchange_hook(other, chosen)(other)


def silent(other, chosen):
    return lambda tokens: None


def exchanged_in_place(other, chosen):
    def exchange(tokens):
        tokens[:, 1:][:, chosen] = other[:, 1:][:, chosen]
        return tokens

    return exchange


def patches_alone(other, chosen):
    return lambda tokens: exchange_hook(other, chosen)(tokens)[:, 1:]


def with_the_class_token(other, chosen):
    mask = torch.cat([torch.tensor([True]), chosen])[:, None]
    return lambda tokens: torch.where(mask, other, tokens)


def the_other_half(other, chosen):
    return exchange_hook(other, ~chosen)


def half_of_each(other, chosen):
    return lambda tokens: (exchange_hook(other, chosen)(tokens) + tokens) / 2


def always_something(other, chosen):
    return exchange_hook(other, chosen if chosen.any() else ~chosen)


@pytest.mark.parametrize(
    ("number", "wrong", "told"),
    [
        ("14-4", lambda logits, sizes: logits, r"give .2, 3., got .2, 4."),
        ("14-4", lambda logits, sizes: logits[..., :3], "takes the larger logit"),
        ("14-4", with_a_zero, "no zero may be mixed in"),
        ("14-4", along_the_first, "any number of dimensions"),
        ("14-5", lambda features, classes, vectors: features, r"give .2, 3., got .2, 4."),
        ("14-5", in_the_order_of_vectors, "whatever the order of the vectors"),
        ("14-5", every_name_a_class, "are two classes, so .2, 2., got .2, 3."),
        ("14-5", mean_of_the_names, "not their mean or sum"),
        ("14-5", never_below_zero, "no zero may be mixed in"),
        ("14-5", with_its_spaces, "do not belong to it"),
        ("14-5", two_names_at_most, "and of names in a class"),
        ("15-4", evened_in_place, "clone it first"),
        ("15-4", lambda pattern, head: pattern[:, head], "the shape must stay"),
        ("15-4", lambda pattern, head: pattern.clone(), "one fifth"),
        ("15-4", all_heads_even, "the other heads must stay"),
        ("15-5", called_at_once, "return it uncalled; got Tensor"),
        ("15-5", silent, "returns None"),
        ("15-5", exchanged_in_place, "clone first"),
        ("15-5", patches_alone, "the shape must stay"),
        ("15-5", with_the_class_token, "the class token is first"),
        ("15-5", the_other_half, "not chosen must stay"),
        ("15-5", half_of_each, "of its own place"),
        ("15-5", always_something, "nothing changes"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, wrong, told):
    with pytest.raises(AssertionError, match=told):
        check(number, wrong)
