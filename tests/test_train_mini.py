"""Training the bundled model: captions are true, a killed run goes on exactly, the export loads."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from tqdm import tqdm

from scclip_core import FrozenCLIP
from scclip_core.curriculum import (
    BRANCHES,
    TRUNK,
    Batches,
    Phase,
    begins_anew,
    caption,
    learning_rate,
    phase_at,
)
from scclip_core.scenes import BACKGROUNDS, WORDS
from scclip_core.student import Student, normalise, sight, sine_positions
from scclip_core.train_mini import train, train_branches

SHORT = (
    Phase(64, 4, 3, (1,), {1: (0.65, 1.05)}, decays=True),
    Phase(112, 2, 3, (1, 2), {1: (0.5, 0.9), 2: (0.4, 0.6)}, decays=True),
)


@pytest.fixture(scope="module")
def batches():
    return Batches(SHORT, seed=5, painted=2)


@pytest.mark.parametrize("seed", range(40))
def test_a_caption_says_the_words_it_names_and_only_true_ones(seed):
    objects, background = ("dog", "ice cream", "apple"), "night"
    text, named = caption(np.random.default_rng(seed), objects, background)
    assert set(named) <= {*objects, background}
    assert all(word in text for word in named)
    assert not [w for w in (*objects, background) if w not in named and f" {w} " in f" {text} "]


def test_truth_marks_the_captions_whose_words_are_in_the_scene(batches):
    images, captions, truth = batches[0]
    assert images.shape == (4, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert truth.shape == (4, len(captions))
    assert truth.any(0).all()  # every caption is true of the scene it was made for
    assert truth.any(1).all()


def test_a_step_is_the_same_whenever_it_is_made(batches):
    first, again = batches[4], Batches(SHORT, seed=5, painted=2)[4]
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], Batches(SHORT, seed=6, painted=2)[4][0])


def test_phases_follow_each_other():
    assert [phase_at(SHORT, s).side for s in range(6)] == [64] * 3 + [112] * 3
    with pytest.raises(IndexError, match="ends before step 6"):
        phase_at(SHORT, 6)
    assert [phase.side for phase in (*TRUNK, *BRANCHES)] == [64, 112, 224, 224, 224, 224]
    assert all(phase.decays and phase.shortens for phase in BRANCHES)


def test_the_learning_rate_warms_up_and_falls_to_zero_in_each_phase_that_says_so():
    phases = (Phase(64, 4, 10, (1,), {}), Phase(64, 4, 5, (1,), {}, rate=5e-4, decays=True))
    rates = [learning_rate(phases, step, warm_up=4) for step in range(15)]
    assert rates[:4] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])
    assert rates[4:10] == pytest.approx([1e-3] * 6)
    assert rates[10:] == pytest.approx([5e-4, 4e-4, 3e-4, 2e-4, 1e-4])


def test_a_phase_that_begins_anew_warms_up_again():
    phases = (Phase(64, 4, 10, (1,), {}), Phase(64, 4, 8, (1,), {}, rate=5e-4, decays=True, shortens=0.1))
    assert [step for step in range(18) if begins_anew(phases, step)] == [10]
    rates = [learning_rate(phases, step, warm_up=4) for step in range(18)]
    assert rates[10:14] == pytest.approx([5e-4 * (i + 1) / 4 * (8 - i) / 8 for i in range(4)])


def test_a_phase_begins_anew_from_the_mean_of_the_ends_before_it(tmp_path):
    idle = Phase(64, 4, 2, (1,), {1: (0.65, 1.05)}, rate=0.0, decays=True, shortens=0.1)
    before = train(SHORT, 5, tmp_path / "before.pt", every=2)
    after = train((*SHORT, idle), 5, tmp_path / "after.pt", every=2)
    for (name, a), (_, b) in zip(before.state_dict().items(), after.state_dict().items(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_the_trained_model_is_the_mean_of_the_ends_of_the_phases_that_decay(tmp_path):
    trained = train(SHORT, 5, tmp_path / "run.pt", every=2)
    ends = torch.load(tmp_path / "run.pt", weights_only=True)["ends"]
    assert len(ends) == 2
    for name, tensor in trained.state_dict().items():
        assert torch.allclose(tensor, (ends[0][name] + ends[1][name]) / 2), name
    assert not torch.equal(ends[0]["clip.logit_scale"], ends[1]["clip.logit_scale"])


def test_branches_go_on_from_the_trunk_and_the_mean_of_all_is_the_model(tmp_path):
    branches = tuple(replace(SHORT[1], steps=2, shortens=weight) for weight in (0.1, 5.0))
    model = train_branches(SHORT, branches, 5, tmp_path / "run.pt")
    ends = [train((*SHORT, *branch), 5, tmp_path / f"{len(branch)}{i}.pt")
            for i, branch in enumerate(((), branches[:1], branches[1:]))]  # fmt: skip
    for name, tensor in model.state_dict().items():
        expected = sum(end.state_dict()[name] for end in ends) / 3
        assert torch.allclose(tensor, expected, atol=1e-6), name
    assert [(row["part"], row["step"]) for row in model.curve] == [(2, 6), (3, 8), (4, 8)]
    assert {path.name for path in tmp_path.glob("run*")} == {"run.pt", "run-1.pt", "run-2.pt"}


def test_in_a_late_reading_step_the_class_token_is_blind_before_the_last_block(batches):
    student = Student()
    images = normalise(batches[0][0])
    late = next(s for s in range(40) if np.random.default_rng(s).random() < 0.7)
    embedding, penalty = student.encode_image(images, np.random.default_rng(late), SHORT[0])
    assert embedding.shape == (4, 128)
    assert torch.allclose(embedding.norm(dim=-1), torch.ones(4), atol=1e-5)
    assert 0 <= penalty.item() <= 3


@pytest.mark.parametrize("late", [True, False])
def test_late_the_class_token_sees_itself_alone_and_else_all(late):
    mask = sight(3, late, None)
    assert mask.shape == (10, 10)
    assert mask[0].isfinite().tolist() == [True] + [not late] * 9
    assert (mask[1:] == 0).all()


def test_near_sighted_patches_see_the_class_token_and_those_around_them():
    seen = sight(5, True, 1).isfinite()
    assert seen[1:, 0].all()  # the class token
    around = seen[1:, 1:].view(5, 5, 5, 5)
    assert around.sum((2, 3)).tolist() == [[4, 6, 6, 6, 4], *[[6, 9, 9, 9, 6]] * 3, [4, 6, 6, 6, 4]]
    assert around[2, 2, 1:4, 1:4].all()
    assert torch.equal(seen[1:, 1:], seen[1:, 1:].T)
    assert sight(5, True, 4)[1:].eq(0).all()


def test_the_penalty_on_the_class_tokens_length_is_added_to_the_other(batches):
    student, images = Student(), normalise(batches[0][0])
    plain, without = student.encode_image(images, np.random.default_rng(1), SHORT[0])
    same, added = student.encode_image(images, np.random.default_rng(1), replace(SHORT[0], shortens=0.5))
    doubled = student.encode_image(images, np.random.default_rng(1), replace(SHORT[0], shortens=1.0))[1]
    assert torch.equal(plain, same)
    assert added > without
    assert (doubled - without).item() == pytest.approx(2 * (added - without).item(), rel=1e-4)


def test_positions_are_unlike_each_other():
    positions = sine_positions(14, 128)
    assert positions.shape == (196, 128)
    assert torch.unique(positions, dim=0).shape[0] == 196


def test_every_word_is_in_the_vocabulary():
    student = Student()
    for word in (*WORDS, *BACKGROUNDS):
        assert torch.isin(student.tokenizer(f"a photo of {word}"), student.vocabulary).all()


def test_a_run_that_was_cut_goes_on_to_the_same_model(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    whole = train(SHORT, 5, tmp_path / "whole.pt", every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tqdm, "write", stop)  # right after the first checkpoint
        train(SHORT, 5, tmp_path / "cut.pt", every=2)
    resumed = train(SHORT, 5, tmp_path / "cut.pt", every=2)
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name
    assert [point["step"] for point in resumed.curve] == [2, 4, 6]
    assert not list(tmp_path.glob(".partial-*"))


def test_the_export_loads_with_open_clip_and_embeds_as_the_student_does(tmp_path):
    torch.manual_seed(0)
    student = Student()
    student.export(tmp_path)
    model = FrozenCLIP(open_clip.create_model(f"local-dir:{tmp_path}"))
    prompts = ["a photo of dog", "grass", "a photo of an ice cream"]
    assert torch.allclose(model.encode_text(prompts), student.encode_text(prompts), atol=2e-2)
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 20e6
