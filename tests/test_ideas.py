"""Ideas for saving time compute the same before and after, and limits are read as meant."""

import pandas as pd
import pytest
import torch

from scclip_lab.studies import ch07_ideas as ideas


@pytest.mark.parametrize("name", ideas.IN_CORE)
def test_before_and_after_compute_the_same(name, model):
    calls = ideas.ideas(model, batch=2, side=128)
    assert calls.keys() == ideas.IN_CORE.keys()
    with torch.no_grad():
        before, after = (call() for call in calls[name])
    assert torch.allclose(before, after, atol=1e-3, rtol=1e-4)


def test_limits_say_what_holds(tmp_path, monkeypatch):
    files = {
        "bench": {
            "model": ["ViT-B-16"] * 2, "what": ["vanilla", "scclip"],
            "batch": [1, 1], "ratio": [1, 1.06],
        },
        "07_memory": {
            "model": ["ViT-B-16"] * 2, "side": [1024] * 2, "what": ["vanilla", "scclip"],
            "MiB": [100, 120],
        },
        "07_profile": {
            "model": ["ViT-B-16"] * 5, "batch": [8] * 5,
            "stage": [2, 3, 4, 7, 7], "share": [0.9, 0.01, 0.01, 0.01, 0.07],
            "tensor": [
                "blocks.0.hook_resid_post", "stage3.lof_scores", "stage4.thresholded",
                "stage7.fused", "stage7.attention",
            ],
        },
        "07_growth": {
            "model": ["ViT-B-16"] * 4, "what": ["vanilla", "scclip"] * 2,
            "patches": [196, 196, 784, 784], "milliseconds": [1, 1, 4, 16],
        },
        "07_ideas": {"idea": ["windows in batches"], "batch": [1], "ratio": [0.8]},
    }  # fmt: skip
    for name, columns in files.items():
        pd.DataFrame(columns).to_csv(tmp_path / f"{name}.csv", index=False)
    for name, value in (
        ("agreement", 0.995),
        ("cached_embedding_seconds", 0.2),
        ("process_seconds", 0.5),
    ):
        monkeypatch.setattr(ideas, name, lambda *args, value=value: value)
    monkeypatch.setattr(ideas, "images_per_second", lambda: 150.0)
    table = ideas.limits(tmp_path).set_index("what")
    expected = {
        "time, scclip, B = 1": "no",
        "time outside transformer blocks, share, B = 8": "yes",
        "windows of 448 x 672 in batches, to one by one": "yes",
        "peak memory at 1024 x 1024": "yes",
        "exponent of growth to N = 4,096, less vanilla's": "no",
        "pixels labelled alike in bfloat16": "yes",
        "1,000 x 80 prompts, second call (s)": "no",
        "import beyond torch (s)": "yes",
        "--help (s)": "yes",
        "mini, scenes a second at 112": "yes",
    }
    assert table["holds"].to_dict() == expected


def test_half_precision_labels_agree_with_themselves():
    assert ideas.agreement(count=1, precision="fp32") == 1.0
