"""The calibrated attention: content attention, self-attention, and their mix."""

import pytest
import torch

from scclip_core.attention import content_attention, mixed_attention, self_attention_weights
from scclip_core.similarity import patch_similarity

GENERATOR = torch.Generator().manual_seed(0)
QKV = torch.randn(3, 2, 4, 10, 8, generator=GENERATOR)  # [3, B, heads, N, d]
SIMILARITY = patch_similarity(torch.randn(2, 10, 16, generator=GENERATOR))


def test_content_attention_rows_sum_to_one():
    assert torch.allclose(content_attention(SIMILARITY, 3.0).sum(-1), torch.ones(2, 10))


def test_content_attention_ignores_pairs_less_alike_than_the_mean():
    content = content_attention(SIMILARITY, 3.0)
    below = SIMILARITY < SIMILARITY.mean((1, 2), keepdim=True)
    assert not content[below].any()
    assert (content[~below] > 0).all()


def test_a_pair_as_alike_as_the_mean_is_attended_to():
    similarity = torch.tensor([[[1.0, 0.5], [0.5, 0.0]]])  # the mean is 0.5
    content = content_attention(similarity, 3.0)
    assert torch.allclose(content[0, 0], torch.tensor([1.5, 0.0]).softmax(0))
    # The second patch is unlike itself, and still keeps itself.
    assert torch.allclose(content[0, 1], torch.tensor([0.0, -1.5]).softmax(0))


def test_content_attention_is_its_formula():
    logits = 3 * (SIMILARITY - SIMILARITY.mean((1, 2), keepdim=True))
    logits[logits < 0] = -torch.inf
    assert torch.allclose(content_attention(SIMILARITY, 3.0), logits.softmax(-1))


def test_a_larger_gain_attends_more_sharply():
    gentle, sharp = (content_attention(SIMILARITY, gain).amax(-1) for gain in (3.0, 9.0))
    assert (sharp > gentle).all()


def test_patches_that_are_all_alike_give_no_nan():
    alike = patch_similarity(torch.ones(1, 10, 7) * 0.3)
    assert torch.isfinite(content_attention(alike, 3.0)).all()


@pytest.mark.parametrize("kind", ["qk", "kk", "qq", "vv"])
@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_the_mix_equals_the_mixed_weights_applied_to_the_values(kind, mix):
    content = content_attention(SIMILARITY, 3.0)
    weights = mix * content[:, None] + (1 - mix) * self_attention_weights(QKV, kind)
    expected = (weights @ QKV[2]).transpose(1, 2).flatten(2)
    assert torch.allclose(mixed_attention(QKV, content, kind, mix), expected, atol=1e-5)


def test_self_attention_is_the_softmax_of_scaled_products():
    expected = (QKV[0] @ QKV[1].mT / 8**0.5).softmax(-1)
    assert torch.allclose(self_attention_weights(QKV, "qk"), expected, atol=1e-6)


def test_scores_of_keys_with_keys_are_symmetric_before_the_softmax():
    logarithms = self_attention_weights(QKV, "kk").log()
    # log softmax = score - log normaliser of the row: the difference to the diagonal cancels it
    own_score = QKV[1].square().sum(-1) / 8**0.5  # [B, heads, N]
    score = logarithms + (own_score - logarithms.diagonal(dim1=2, dim2=3))[..., None]
    assert torch.allclose(score, score.mT, atol=1e-4)
