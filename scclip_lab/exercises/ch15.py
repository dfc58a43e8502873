"""Tests of the exercises of chapter 15: one head made even, and tokens exchanged by a hook."""

import torch

from scclip_lab.exercises import Attempt, exercise


@exercise("15-4")
def one_head_made_even(attempt: Attempt) -> None:
    """attempt(pattern [B, heads, L, L], head) -> the same with that head even, nothing in place."""
    pattern = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    before = pattern.clone()
    given = attempt(pattern, 1)
    assert torch.equal(pattern, before), (
        "a hook must not change the tensor that it is given: clone it first"
    )
    assert given.shape == pattern.shape, f"the shape must stay, got {list(given.shape)}"
    assert torch.allclose(given[:, 1], torch.full((2, 5, 5), 1 / 5)), (
        "an even head gives each of the five tokens one fifth"
    )
    assert torch.equal(given[:, [0, 2]], pattern[:, [0, 2]]), "the other heads must stay"


@exercise("15-5")
def exchange_by_a_hook(attempt: Attempt) -> None:
    """attempt(other [1, 1 + N, C], chosen bool [N]) -> a hook of tokens [B, 1 + N, C]."""
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(1, 7, 4, generator=generator)
    tokens = torch.randn(2, 7, 4, generator=generator)
    chosen = torch.tensor([True, True, False, True, False, False])
    before, others_before = tokens.clone(), other.clone()
    hook = attempt(other, chosen)
    assert callable(hook), (
        "a hook is a function of a tensor: define it inside of yours, and return it uncalled; got"
        f" {type(hook).__name__}"
    )
    given = hook(tokens)
    assert given is not None, "a hook that returns None leaves the tensor as it is: return the new"
    assert torch.equal(tokens, before) and torch.equal(other, others_before), (
        "a hook must not change the tensors that it is given: clone first, or use torch.where"
    )
    assert given.shape == tokens.shape, f"the shape must stay, got {list(given.shape)}"
    assert torch.equal(given[:, 0], tokens[:, 0]), (
        "the class token is first and none of the N patches: it stays, and the mask begins behind"
        " it"
    )
    patches, kept, others = given[:, 1:], tokens[:, 1:], other[:, 1:].expand(2, -1, -1)
    assert torch.equal(patches[:, ~chosen], kept[:, ~chosen]), (
        "patches that are not chosen must stay exactly as they are"
    )
    assert torch.equal(patches[:, chosen], others[:, chosen]), (
        "a chosen patch takes the other scene's token of its own place, for every picture of the"
        " batch"
    )
    nothing = attempt(other, torch.zeros(6, dtype=torch.bool))
    assert torch.equal(nothing(tokens), tokens), "where no patch is chosen nothing changes"
