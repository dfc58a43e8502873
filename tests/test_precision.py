"""Scores are computed in float32 at least, whatever the model's dtype; tokens keep theirs."""

import pytest
import torch

from scclip_core.anomaly import local_outlier_factor, repair_anomalies
from scclip_core.attention import content_attention, mixed_attention, self_attention_weights
from scclip_core.similarity import adaptive_aggregate, patch_similarity

HALVES = [torch.bfloat16, torch.float16]
TOKENS = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("variant", ["standard", "published"])
def test_half_precision_points_are_scored_as_their_float32_values(dtype, variant):
    points = TOKENS.to(dtype)
    scores = local_outlier_factor(points, 9, variant)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, local_outlier_factor(points.float(), 9, variant))


def test_an_offset_that_all_points_share_costs_no_digits_in_float32():
    shared = 300 * torch.ones(16)
    exact = local_outlier_factor((TOKENS + shared).double(), 9)
    assert torch.allclose(local_outlier_factor(TOKENS + shared, 9).double(), exact, atol=1e-3)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_tokens_keep_their_dtype(dtype):
    tokens, similarity = TOKENS.to(dtype), patch_similarity(TOKENS)
    anomalous = torch.arange(40).expand(2, 40) % 7 == 0
    qkv = torch.stack([tokens] * 3).unflatten(3, (2, 8)).transpose(2, 3)  # [3, B, heads, N, d]
    assert adaptive_aggregate(tokens, similarity).dtype == dtype
    assert repair_anomalies(tokens, anomalous, (5, 8)).dtype == dtype
    assert mixed_attention(qkv, content_attention(similarity, 3.0), "qk", 0.5).dtype == dtype


def test_self_attention_of_half_precision_is_normalised_in_float32():
    qkv = TOKENS.bfloat16().expand(3, 1, 2, 40, 16)  # [3, B, heads, N, d]
    query, key = qkv[0], qkv[1]
    logits = (query @ key.mT / 16**0.5).float()
    weights = self_attention_weights(qkv, "qk")
    assert weights.dtype == torch.bfloat16
    assert torch.equal(weights, logits.softmax(-1).bfloat16())


@pytest.mark.parametrize(
    ("kind", "query", "key"), [("qk", 0, 1), ("kk", 1, 1), ("qq", 0, 0), ("vv", 2, 2)]
)
def test_the_kind_says_which_projections_score(kind, query, key):
    # [3, B, heads, N, d]
    qkv = torch.randn(3, 2, 4, 10, 8, generator=torch.Generator().manual_seed(1))
    expected = (qkv[query] @ qkv[key].mT / 8**0.5).softmax(-1)
    assert torch.allclose(self_attention_weights(qkv, kind), expected, atol=1e-6)
    alone = mixed_attention(qkv, torch.zeros(2, 10, 10), kind, 0.0)
    assert torch.allclose(alone, (expected @ qkv[2]).transpose(1, 2).flatten(2), atol=1e-5)


@pytest.mark.parametrize("value", [0.1, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("patches", [1, 3, 49, 196])
def test_a_patch_keeps_itself_where_all_look_alike(value, patches):
    similarity = torch.full((1, patches, patches), value)
    similarity[0, 0, 0] = torch.nextafter(similarity[0, 0, 0], torch.tensor(torch.inf))
    content = content_attention(similarity, 3.0)  # rounding puts most entries below the mean
    assert torch.allclose(content.sum(-1), torch.ones(1, patches))
    assert (content.diagonal(dim1=1, dim2=2) > 0).all()
