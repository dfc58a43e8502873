"""The reference configuration computes what the published code computed, at every stage.

`official_128.npz` holds seeded random weights and the arrays that the published SC-CLIP code made of them.
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
def trace(golden):
    vision = CLIPVisionCfg(layers=12, width=64, head_width=32, patch_size=16, image_size=128)
    text = CLIPTextCfg(context_length=8, vocab_size=16, width=32, heads=2, layers=1)
    clip = CLIP(32, vision, text, quick_gelu=True)
    weights = {name: tensor for name, tensor in golden.items() if name.startswith("visual.")}
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith("visual.")]
    return SCCLIP(clip, SCCLIPConfig.reference()).trace(golden["image"])


def tokens(array):
    """[N, B, C], as the published code keeps tokens, to [B, N, C]."""
    return array.transpose(0, 1)


def from_map(array):
    """[B, C, rows, cols] to [B, N, C]."""
    return array.flatten(2).transpose(1, 2)


CHECKS = {
    "block_0": tokens,
    "block_3": tokens,
    "block_8": tokens,
    "block_10": tokens,
    "lof_scores": lambda a: a.view(1, -1),
    "repaired_penultimate": from_map,
    "repaired_mid": from_map,
    "similarity_mid": lambda a: a,
    "similarity_shallow": lambda a: a,
    "aggregated_pre": tokens,
    "attention_main": tokens,
    "aggregated_post_main": tokens,
    "attention_aux": tokens,
    "aggregated_post_aux": tokens,
    "projected": lambda a: a,
}


@pytest.mark.parametrize("name", CHECKS)
def test_every_stage_agrees_with_the_published_code(golden, trace, name):
    expected = CHECKS[name](golden["out." + {"projected": "features"}.get(name, name)])
    assert trace[name].tensor.shape == expected.shape
    assert (trace[name].tensor - expected).abs().max() <= TOLERANCE


def test_lof_reads_the_patches_of_the_block_before_the_last(golden, trace):
    assert (trace["block_10"].tensor[0, 1:] - golden["out.lof_input"]).abs().max() <= TOLERANCE


def test_the_same_patches_are_anomalous(golden, trace):
    assert trace["anomalous"].tensor[0].nonzero().flatten().tolist() == sorted(
        golden["out.lof_outliers"].flatten().tolist()
    )


def test_every_golden_array_is_compared(golden):
    compared = {"out." + {"projected": "features"}.get(name, name) for name in CHECKS} | {
        "out.lof_input",
        "out.lof_outliers",
    }
    assert compared == {name for name in golden if name.startswith("out.")}
