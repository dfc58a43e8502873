"""`SCCLIPConfig.published()` computes what the published code computed, at every stage.

`official_128.npz` holds random weights, and the arrays that the published code made of them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from scclip_core import SCCLIP, SCCLIPConfig

GOLDEN = Path(__file__).parent / "data" / "official_128.npz"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def cache(golden):
    vision = CLIPVisionCfg(layers=12, width=64, head_width=32, patch_size=16, image_size=128)
    text = CLIPTextCfg(context_length=8, vocab_size=16, width=32, heads=2, layers=1)
    clip = CLIP(32, vision, text, quick_gelu=True)
    weights = {name: tensor for name, tensor in golden.items() if name.startswith("visual.")}
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith("visual.")]
    _, cache = SCCLIP(clip, SCCLIPConfig.published()).run_with_cache(golden["image"])
    return cache


def tokens(array):
    """[N, B, C], as the published code keeps tokens, to [B, N, C]."""
    return array.transpose(0, 1)


def from_map(array):
    """[B, C, rows, cols] to [B, N, C]."""
    return array.flatten(2).transpose(1, 2)


def as_it_is(array):
    return array


# array of the published code -> the tensor here, and how to bring the array to its shape
CHECKS = {
    "block_0": ("blocks.0.hook_resid_post", tokens),
    "block_3": ("blocks.3.hook_resid_post", tokens),
    "block_8": ("blocks.8.hook_resid_post", tokens),
    "block_10": ("blocks.10.hook_resid_post", tokens),
    "lof_scores": ("stage3.lof_scores", lambda scores: scores.view(1, -1)),
    "repaired_penultimate": ("stage3.repaired", from_map),
    "repaired_mid": ("stage4.repaired", from_map),
    "similarity_mid": ("stage4.thresholded", as_it_is),
    "aggregated_pre": ("stage4.aggregated", tokens),
    "attention_main": ("stage5.attention", tokens),
    "similarity_shallow": ("stage6.thresholded", as_it_is),
    "aggregated_post_main": ("stage6.aggregated", tokens),
    "attention_aux": ("stage7.attention", tokens),
    "aggregated_post_aux": ("stage7.aggregated", tokens),
    "features": ("stage8.projected", as_it_is),
}


@pytest.mark.parametrize("array", CHECKS)
def test_every_stage_agrees_with_the_published_code(golden, cache, array):
    name, reshape = CHECKS[array]
    expected = reshape(golden[f"out.{array}"])
    assert cache[name].shape == expected.shape
    assert (cache[name] - expected).abs().max() <= TOLERANCE


def test_lof_reads_the_patches_of_the_last_block_but_one(golden, cache):
    patches = cache["blocks.10.hook_resid_post"][0, 1:]
    assert (patches - golden["out.lof_input"]).abs().max() <= TOLERANCE


def test_the_same_patches_are_anomalous(golden, cache):
    anomalous = cache["stage3.anomalous"][0].nonzero().flatten().tolist()
    assert anomalous == sorted(golden["out.lof_outliers"].flatten().tolist())


def test_every_golden_array_is_compared(golden):
    compared = {f"out.{array}" for array in (*CHECKS, "lof_input", "lof_outliers")}
    assert compared == {name for name in golden if name.startswith("out.")}
