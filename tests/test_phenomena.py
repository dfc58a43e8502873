"""The table of the model card: what SC-CLIP relies on, on tokens whose answers are known."""

import pytest
import torch
from matplotlib import pyplot as plt

from scclip_core import load_clip
from scclip_lab.datasets.scenes import N_OBJECTS
from scclip_lab.studies import load_table, phenomena

SKY, DOG, CAT = N_OBJECTS, 0, 1


def test_cosines_are_told_apart_by_the_labels_of_the_patches():
    dog, sky = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    cat = torch.tensor([0.6, 0.8, 0])
    tokens = torch.stack([torch.full((3,), 9.0), dog, 2 * dog, cat, sky])  # the class token first
    rows = phenomena.similarities_by_layer([tokens], torch.tensor([DOG, DOG, CAT, SKY]))
    found = {what: value for what, _, value in rows}
    assert found["cosine, same object"] == pytest.approx(1)
    assert found["cosine, other object"] == pytest.approx(0.6)
    assert found["cosine, object and background"] == pytest.approx(0)
    # The diagonal (4), both dogs with one another (2) and with the cat (4), of 16 pairs.
    assert found["share above beta"] == pytest.approx(10 / 16)


def test_lengths_are_told_apart_for_class_token_and_patches():
    tokens = torch.tensor([[3.0, 4], [1, 0], [0, 2], [0, 6]])
    found = {what: value for what, _, value in phenomena.norms_by_layer([tokens])}
    assert found["length, class token"] == pytest.approx(5)
    assert found["length, patch tokens"] == pytest.approx(3)
    assert found["longest patch token over the median"] == pytest.approx(3)


def test_an_even_attention_has_an_entropy_of_one(model):
    # Equal tokens are attended to equally.
    rows = list(phenomena.entropy_by_head(model, torch.ones(9, model.width)))
    assert [head for _, head, _ in rows] == [0, 1]
    assert [value for *_, value in rows] == pytest.approx([1, 1], abs=1e-5)


def test_the_values_of_the_last_layer_but_one_are_the_baseline_values(model):
    table = phenomena.measure_phenomena(model, count=2, seed=0, split=1)
    assert set(table["scenes"]) == {2}
    assert table[table["what"] == "cosine, same object"]["place"].tolist() == list(range(12))
    read = table[table["what"] == "objects right, values of the layer"]
    assert read["place"].tolist() == list(range(11))
    assert read["value"].between(0, 1).all()


def test_the_bundled_model_shows_what_the_method_relies_on():
    stored = load_table("phenomena")
    middle = stored[stored["place"] == 8].set_index("what")["value"]
    assert middle["cosine, same object"] > middle["cosine, other object"] + 0.2
    assert middle["cosine, other object"] > middle["cosine, object and background"]
    again = phenomena.measure_phenomena(load_clip("mini"), count=4, seed=0, split=1)
    fresh = again[again["place"] == 8].set_index("what")["value"]
    for pair in phenomena.PAIRS:
        assert fresh[f"cosine, {pair}"] == pytest.approx(middle[f"cosine, {pair}"], abs=0.15)


def test_the_figure_shows_every_kind_of_row():
    table = load_table("phenomena")
    drawn = phenomena.draw_phenomena(table)
    lines = [line for axis in drawn.axes for line in axis.get_lines()]
    assert len(lines) == len(phenomena.PAIRS) + 1 + 2 + 2
    heads = table[table["what"] == "entropy of attention"]
    assert len(drawn.axes[4].patches) == len(heads)
    assert [bar.get_height() for bar in drawn.axes[5].patches] == pytest.approx(
        [float(table.set_index("what")["value"][name]) for name in phenomena.QUANTILES]
    )
    assert table["value"].notna().all()
    plt.close(drawn)
