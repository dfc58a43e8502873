"""The baselines compute what their authors' published code computes.

`data/baselines.npz` holds the numbers, `data/README.md` says how they were made. At 336 x 448 the
published code was given the positional embeddings that this project interpolates: most of it adds
0.1 to the size before it divides by the trained size, GEM smooths, and the code of test-time
registers knows one size alone.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from scclip_core import METHODS, FrozenCLIP, make_method
from scclip_core.floss import entropy_sums, expert_labels, probabilities
from scclip_core.registers import find_register_neurons
from tests.test_golden import GOLDEN

# The largest difference found is 4e-6, of values up to 7.
TOLERANCE = 2e-5
SIZES = ("224x224", "336x448")
# What differs from the defaults, as the published code was run.
PARAMETERS = {"rfclip": {"dimensions": (3, 17, 40), "factor": 1.9}}
COMPARED = (
    "vanilla",
    "maskclip",
    "sclip",
    "clearclip",
    "naclip",
    "gem",
    "resclip",
    "registers",
    "rfclip",
)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN.with_name("baselines.npz")) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def towers(golden):
    """The stored weights with QuickGELU, and with the GELU that MaskCLIP's configuration has."""
    with np.load(GOLDEN) as arrays:
        weights = {n: torch.from_numpy(arrays[n]) for n in arrays.files if n[:6] == "visual"}
    weights["visual.positional_embedding"] = golden["positions"]
    found = []
    for quick_gelu in (True, False):
        vision = CLIPVisionCfg(layers=12, width=64, head_width=32, patch_size=16, image_size=224)
        text = CLIPTextCfg(context_length=8, vocab_size=16, width=32, heads=2, layers=1)
        clip = CLIP(32, vision, text, quick_gelu=quick_gelu)
        missing, unexpected = clip.load_state_dict(weights, strict=False)
        assert not unexpected and not [name for name in missing if name.startswith("visual.")]
        found.append(FrozenCLIP(clip))
    return found


def image(golden, size):
    """Every stored number is a square of 4 x 4 pixels."""
    coarse = golden[f"image_{size}"].float() / 64
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[None]


def pairs(golden):
    return tuple(tuple(pair) for pair in golden["register_neurons"].tolist())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", COMPARED)
def test_a_baseline_agrees_with_its_authors_code(golden, towers, name, size):
    parameters = PARAMETERS.get(name, {})
    if name == "registers":
        parameters = {"neurons": pairs(golden)}
    method = make_method(name, towers[name == "maskclip"], **parameters)
    features = method.features(image(golden, size), normalize=False)
    rows, cols = (int(side) // 16 for side in size.split("x"))
    expected = golden[f"{name}_{size}"].view(1, rows, cols, 32)
    assert (features - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_the_feedback_of_words_agrees_with_the_code_of_resclip(golden, towers, size):
    method = make_method("resclip", towers[0], threshold=0.25)
    images, text = image(golden, size), golden["text"]
    expected = F.normalize(golden[f"resclip-feedback_{size}"], dim=-1) @ text.T
    logits = method.logits(images, text)[0].flatten(0, 1)
    assert (logits - expected).abs().max() <= TOLERANCE
    without = method.features(images)[0].flatten(0, 1) @ text.T
    assert (logits - without).abs().max() > 1e-2


def test_the_register_neurons_are_those_that_their_code_finds(golden, towers):
    first = image(golden, "224x224")
    images, threshold = torch.cat([first, first.flip(3)]), float(golden["register_threshold"])
    found = find_register_neurons(towers[0], images, threshold=threshold)
    assert found == pairs(golden)


def test_fused_labels_and_entropies_are_those_of_the_code_of_floss(golden):
    features = golden["naclip_224x224"]
    features = F.normalize(features - features.mean(0), dim=-1).view(1, 14, 14, 32)
    experts, average = golden["floss_experts"], golden["floss_average"]
    labels = expert_labels(features, experts, average, (56, 56), 10.0)
    assert torch.equal(labels, golden["floss_labels"].long()[None])
    for m, text in enumerate(experts):
        sums, counts = entropy_sums(probabilities(features, text, (56, 56), 10.0))
        assert torch.equal(counts, golden["floss_counts"][m])
        assert (sums / counts - golden["floss_entropies"][m]).abs().max() <= 1e-6


def test_every_baseline_is_compared():
    ours = {name for name in METHODS if not name.startswith("scclip")}
    assert {*COMPARED, "values"} == ours  # `values` is SC-CLIP with every module off


def test_every_golden_array_is_compared(golden):
    made = {f"{name}_{size}" for name in (*COMPARED, "resclip-feedback") for size in SIZES}
    inputs = {"positions", "text", "register_neurons", "register_threshold"}
    inputs |= {f"image_{size}" for size in SIZES}
    floss = {f"floss_{n}" for n in ("experts", "average", "labels", "entropies", "counts")}
    assert set(golden) == made | inputs | floss
