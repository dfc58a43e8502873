"""Fine-tuning learns from labels, goes on where it stopped, and leaves the given model alone."""

import pytest
import torch

from scclip_core import FrozenCLIP
from scclip_lab.datasets.scenes import TEST, VALIDATION, WORDS, evaluation_scene
from scclip_lab.training import finetune
from scclip_lab.training.finetune import (
    RATES,
    FineTunedCLIP,
    fine_tune,
    labelled_scene,
    patch_targets,
)
from tests.conftest import tiny_clip


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch):
    monkeypatch.setattr(finetune, "EVERY", 2)
    torch.manual_seed(0)


def loss(tuned, scenes):
    images = finetune.stack_images(tuned.model, scenes)
    with torch.no_grad():
        logits = tuned.head(tuned.tokens(images)).flatten(0, 1)
    targets = patch_targets(scenes, 16).flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(logits, targets))


@pytest.mark.parametrize("part", RATES)
def test_training_learns_and_leaves_the_given_model_as_it_was(part, model, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scenes = [labelled_scene(i) for i in range(2)]
    tuned = fine_tune(model, part, 2, tmp_path / "row.pt", steps=6)
    assert loss(tuned, scenes) < loss(FineTunedCLIP(model), scenes) - 0.1
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.requires_grad for p in [*model.parameters(), *tuned.model.parameters()])
    moved = any(not torch.equal(v, before[n]) for n, v in tuned.model.state_dict().items())
    assert moved == (part == "whole image tower")


@pytest.mark.parametrize("part", RATES)
def test_a_stopped_run_goes_on_and_ends_the_same(part, model, tmp_path, monkeypatch):
    uninterrupted = fine_tune(model, part, 3, tmp_path / "uninterrupted.pt", steps=6)
    step, calls = finetune._Batches.__call__, []

    def stop_at_five(self, number):
        calls.append(number)
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(finetune._Batches, "__call__", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(model, part, 3, tmp_path / "stopped.pt", steps=6)
    monkeypatch.setattr(finetune._Batches, "__call__", step)
    resumed = fine_tune(model, part, 3, tmp_path / "stopped.pt", steps=6)
    assert calls == [0, 1, 2, 3, 4, 5]
    for name, value in uninterrupted.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name


def test_a_run_that_began_from_another_model_is_refused_and_left_alone(model, tmp_path):
    file = tmp_path / "row.pt"
    fine_tune(model, "linear head", 2, file, steps=2)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"row\.pt began from another: remove it"):
        fine_tune(FrozenCLIP(tiny_clip(seed=1)), "linear head", 2, file, steps=4)
    assert file.read_bytes() == before


def test_targets_are_the_shares_that_labels_fill():
    scene = labelled_scene(0)
    found = patch_targets([scene], 16).unflatten(1, (14, 14))[0]
    block = scene.labels[16:32, 48:64]
    assert torch.allclose(found.sum(-1), torch.ones(14, 14))
    for word in range(len(WORDS)):
        assert found[1, 3, word] == pytest.approx((block == word).mean(), abs=1e-6)


def test_labelled_scenes_are_not_among_the_evaluated_ones():
    evaluated = {
        evaluation_scene(split, seed, i).image.tobytes()
        for split in (VALIDATION, TEST)
        for seed in (1, 2)
        for i in range(3)
    }
    assert not evaluated & {labelled_scene(i).image.tobytes() for i in range(5)}


def test_bad_arguments_are_refused(model, tmp_path):
    told = "part must be of linear head, whole image tower and amount >= 1"
    with pytest.raises(ValueError, match=told):
        fine_tune(model, "head", 3, tmp_path / "row.pt")
    with pytest.raises(ValueError, match="classes must be the words of the scenes"):
        FineTunedCLIP(model).segment(torch.zeros(1, 3, 64, 64), ["dog"])
    with pytest.raises(ValueError, match="count must be at least 2 scenes, got 1"):
        finetune.fine_tune_all(1, 2, tmp_path, tmp_path)
