"""Students begin as a part of their teacher, come nearer to it, and are stored whole."""

import pytest
import torch

from scclip_core.baselines import make_method
from scclip_core.loading import load_clip
from scclip_lab.training import distil
from scclip_lab.training.distil import (
    STUDENT_PLANS,
    Student,
    load_student,
    prune,
    read_densely,
    save_student,
)

PLAN = Student(blocks=(0, 4, 11), mlp_ratio=2, seed=5, steps=6)


@pytest.fixture(scope="module")
def model():
    return load_clip("mini")


@pytest.fixture
def images():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_reading_densely_is_clips_image_and_the_values(model, images):
    image, patches = read_densely(model, images)
    wanted = model.clip.encode_image(images, normalize=True)
    torch.testing.assert_close(image, wanted, atol=1e-5, rtol=0)
    dense = make_method("values", model).features(images).flatten(1, 2)
    torch.testing.assert_close(patches, dense, atol=1e-5, rtol=0)


def test_a_student_that_keeps_everything_is_its_teacher(model, images):
    whole = Student(blocks=tuple(range(model.depth)), mlp_ratio=4, seed=0, steps=0)
    for ours, theirs in zip(
        read_densely(prune(model, whole), images), read_densely(model, images), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_pruning_keeps_the_named_blocks_and_the_heaviest_hidden_units(model):
    student = prune(model, PLAN)
    assert student.depth == 3
    for block, number in zip(student.blocks, PLAN.blocks, strict=True):
        theirs = model.blocks[number]
        assert torch.equal(block.attn.in_proj_weight, theirs.attn.in_proj_weight)
        rows, columns = theirs.mlp.c_fc.weight, theirs.mlp.c_proj.weight
        weight = rows.norm(dim=1) * columns.norm(dim=0)
        least = weight.sort(descending=True).values[2 * model.width - 1]
        assert torch.equal(block.mlp.c_fc.weight, rows[weight >= least])
        assert torch.equal(block.mlp.c_proj.weight, columns[:, weight >= least])


def test_training_brings_a_student_nearer_and_leaves_the_teacher_alone(model, images):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    student = distil.distil(model, PLAN)
    assert not any(p.requires_grad for p in student.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    goal = read_densely(model, images)[1]
    gained = [
        (read_densely(s, images)[1] * goal).sum(-1).mean() for s in (prune(model, PLAN), student)
    ]
    assert gained[1] > gained[0] + 0.02


def test_a_stored_student_is_loaded_as_it_was(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(distil, "STUDENTS", tmp_path)
    student = prune(model, PLAN)
    save_student(student, PLAN, tmp_path / "small.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["small.safetensors"]
    loaded = load_student("small")
    assert loaded.name == "small" and loaded.words == model.words
    # Weights are stored in half precision.
    for ours, theirs in zip(
        read_densely(loaded, images), read_densely(student, images), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match=r"name must be a student \(small\), got 'large'"):
        load_student("large")


@pytest.mark.parametrize("name", STUDENT_PLANS)
def test_every_planned_student_is_bundled(name):
    plan, student = STUDENT_PLANS[name], load_student(name)
    assert student.depth == len(plan.blocks)
    assert student.blocks[0].mlp.c_fc.out_features == plan.mlp_ratio * student.width
    assert not any(p.requires_grad for p in student.parameters())
