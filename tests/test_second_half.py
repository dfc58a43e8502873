"""Chapters 6, 7 and 9: what their own tables and pictures promise."""

import numpy as np
import pandas as pd
import pytest
import torch

from scclip_core import SCCLIP, load_clip
from scclip_core.baselines import METHODS
from scclip_lab.datasets.scenes import STYLES, TEST, WORDS, evaluation_scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies import ch06_segmentation as segmentation
from scclip_lab.studies import ch06_windows as windows
from scclip_lab.studies import ch07_timing as timing
from scclip_lab.studies import ch09_attention as attention
from scclip_lab.studies import ch09_summary as summary


@pytest.fixture(scope="module")
def mini():
    return load_clip("mini")


def test_seams_of_shifted_pictures_lie_on_no_window_and_no_patch():
    offsets = [windows.mosaic_offset(i) for i in range(50)]
    assert all(0 < value < 224 and value % 16 for offset in offsets for value in offset)
    assert len(set(offsets)) > 40


def test_a_panorama_is_cut_out_of_test_scenes():
    shifted, aligned = windows.panorama(1), windows.panorama(1, shifted=False)
    assert shifted.image.shape == aligned.image.shape == (448, 672, 3)
    first, fifth = (evaluation_scene(TEST, 3, 12 + i) for i in (0, 4))
    assert np.array_equal(aligned.labels[:224, :224], first.labels)
    assert np.array_equal(aligned.image[224:, :224], fifth.image)
    row, col = windows.mosaic_offset(1)
    assert np.array_equal(shifted.image[: 224 - row, : 224 - col], first.image[row:, col:])
    assert set(shifted.objects) == {WORDS[i] for i in np.unique(shifted.labels) if i < 48}


def test_absent_words_are_offered_as_segment_would_offer_them(mini):
    table = segmentation.add_absent_words(mini, 2, numbers=(0, 48), seed=2)
    assert list(table["styles"].unique()) == list(STYLES)
    scene = evaluation_scene(TEST, 2, 0)
    offered = list(scene.words)
    labels = SCCLIP(mini).segment(stack_images(mini, [scene]), offered)[0]
    places = torch.tensor([WORDS.index(word) for word in offered])[labels]
    right = (places.numpy() == scene.labels)[scene.labels >= 48].mean()
    assert right > 0.5
    alone = segmentation.add_absent_words(mini, 1, numbers=(0,), seed=2)
    part = alone[(alone["measure"] == "background right") & (alone["styles"] == "training")]
    assert part["value"].iloc[0] == pytest.approx(right)


def test_what_object_pixels_are_called_is_a_share_of_them(mini):
    found = segmentation.words_on_objects(mini, 2, ("butterfly", "bricks"))
    assert set(found.index) <= {"butterfly", "bricks"} and found.sum() == pytest.approx(1)


def test_memory_is_told_in_matrices_of_pairs_of_patches():
    rows = [("m", 512, 1024, "vanilla", 10.0), ("m", 512, 1024, "scclip", 22.0)]
    table = pd.DataFrame(rows, columns=["model", "side", "patches", "what", "MiB"])
    (row,) = timing.memory_in_matrices(table).to_dict("records")
    assert row["ratio"] == 2.2
    assert row["one N x N matrix"] == 4
    assert row["difference, in such matrices"] == 3


def test_attention_of_a_patch_is_told_in_even_shares(mini):
    table = attention.example_attention(mini)
    assert table["panel"].nunique() == len(attention.SHOWN)
    assert np.allclose(table.groupby("panel")["value"].mean(), 1, atol=1e-4)


def scores():
    """A table as `compare_methods` makes it, in which every method is 0.01 below the one before."""
    rows = []
    for style in STYLES:
        for i, name in enumerate(METHODS):
            value, less = 0.5 - 0.01 * i, 0.1 - 0.01 * i
            for measure in ("mIoU", "objects right", "background right"):
                rows.append((measure, name, style, value, value - 0.01, value + 0.01))
            rows.append(("mIoU minus scclip", name, style, less, less - 0.015, less + 0.015))
    return pd.DataFrame(rows, columns=["measure", "method", "styles", "value", "low", "high"])


def test_differences_to_scclip_are_told_by_their_intervals():
    told = summary.against_scclip(scores())
    assert list(told.columns) == list(STYLES) and len(told) == len(METHODS) - 1
    assert told.loc["vanilla CLIP", "training"] == "above SC-CLIP: 10.0 [8.5, 11.5]"
    assert told.loc["RF-CLIP", "training"].startswith("not told apart")
    table = scores()
    last = (table["method"] == "gem") & (table["measure"] == "mIoU minus scclip")
    table.loc[last, ["value", "low", "high"]] = -0.1, -0.2, -0.05
    assert summary.against_scclip(table).loc["GEM", "held-out"].startswith("below SC-CLIP")


def test_the_closing_table_of_baselines_reads_the_tables_it_is_given():
    times = pd.DataFrame(
        [("scclip", "ViT-B-16", 1.1, 1.0, 1.2)],
        columns=["what", "model", "ratio", "ratio_low", "ratio_high"],
    )
    table = summary.summarise(scores(), times).set_index("claim")
    assert "best other: vanilla CLIP 50.0" in table.iloc[0]["training styles"]
    assert table.iloc[-1]["training styles"].startswith("1.10 times (1.00 to 1.20)")
