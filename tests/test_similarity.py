"""Which patches look alike, and what averaging over them does."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity

TOKENS = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))


def test_similarity_is_the_cosine_of_every_pair():
    similarity = patch_similarity(TOKENS)
    for i in range(12):
        expected = torch.nn.functional.cosine_similarity(TOKENS[:, i : i + 1], TOKENS, dim=-1)
        assert torch.allclose(similarity[:, i], expected, atol=1e-6)
    assert torch.allclose(similarity, similarity.mT)


def test_similarity_does_not_see_the_length_of_tokens():
    assert torch.allclose(patch_similarity(TOKENS), patch_similarity(7 * TOKENS), atol=1e-6)


def test_half_precision_is_compared_in_float32():
    assert patch_similarity(TOKENS.bfloat16()).dtype == torch.float32
    assert patch_similarity(TOKENS.double()).dtype == torch.float64


def test_beta_minus_one_keeps_all_and_beta_one_only_the_token_itself():
    similarity = patch_similarity(TOKENS.double()).clamp(-1, 1)
    similarity.diagonal(dim1=1, dim2=2).fill_(1)
    assert torch.equal(threshold_similarity(similarity, -1.0), similarity)
    assert torch.equal(
        threshold_similarity(similarity, 1.0), torch.eye(12).double().expand(2, 12, 12)
    )


def test_a_similarity_equal_to_beta_is_kept():
    similarity = torch.tensor([[[1.0, 0.5], [0.25, 1.0]]])
    assert threshold_similarity(similarity, 0.5).tolist() == [[[1.0, 0.5], [0.0, 1.0]]]


@given(beta=st.floats(-1, 1))
@settings(deadline=None)
def test_what_is_kept_is_unchanged_and_what_is_not_is_zero(beta):
    similarity = patch_similarity(TOKENS)
    kept = threshold_similarity(similarity, beta)
    above = similarity >= min(beta, 1 - 1e-6)  # the rule that keeps a token itself at beta = 1
    assert torch.equal(kept[above], similarity[above])
    assert not kept[~above].any()


def test_aggregation_with_the_identity_changes_nothing():
    assert torch.allclose(
        adaptive_aggregate(TOKENS, torch.eye(12).expand(2, 12, 12)), TOKENS, atol=1e-4
    )


def test_a_row_of_weights_sums_to_a_millionth_less_than_one():
    aggregated = adaptive_aggregate(TOKENS.double(), torch.eye(12).double().expand(2, 12, 12))
    assert torch.allclose(aggregated, TOKENS.double() / (1 + 1e-6), rtol=1e-12, atol=0)


def test_a_token_that_resembles_none_becomes_zero_and_not_nan():
    similarity = torch.eye(12).expand(2, 12, 12).clone()
    similarity[:, 5] = 0
    aggregated = adaptive_aggregate(TOKENS, similarity)
    assert not aggregated[:, 5].any()


def test_aggregation_keeps_what_all_tokens_share():
    similarity = threshold_similarity(patch_similarity(TOKENS), 0.1)
    ones = torch.ones(2, 12, 3)
    assert torch.allclose(adaptive_aggregate(ones, similarity), ones, atol=1e-5)  # rows sum to 1


def test_aggregation_with_equal_weights_is_the_mean():
    mean = TOKENS.mean(1, keepdim=True).expand_as(TOKENS)
    assert torch.allclose(adaptive_aggregate(TOKENS, torch.ones(2, 12, 12)), mean, atol=1e-5)


def test_aggregation_follows_a_permutation_of_the_tokens():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    similarity = threshold_similarity(patch_similarity(TOKENS), 0.2)
    permuted = adaptive_aggregate(TOKENS[:, order], similarity[:, order][:, :, order])
    assert torch.allclose(permuted, adaptive_aggregate(TOKENS, similarity)[:, order], atol=1e-6)


def test_beta_one_keeps_every_token_as_it_is_in_spite_of_rounding():
    tokens = torch.randn(1, 196, 128, generator=torch.Generator().manual_seed(0))
    alone = threshold_similarity(patch_similarity(tokens), 1.0)
    assert torch.equal(alone != 0, torch.eye(196, dtype=torch.bool)[None])
    assert torch.allclose(adaptive_aggregate(tokens, alone), tokens, atol=1e-4)
