"""Small students of the bundled model: other widths and depths, for chapters 12 and 13.

`python -m scclip_lab distil` trains them from nothing and writes `data/students`. A student learns
to place images and patches where its teacher places them in the space shared with text; its text
tower is the teacher's. No pixel label is read, and nothing is asked of its middle layers, so that
their similarities are whatever such a network has by itself.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from scclip_core.clip import FrozenCLIP, join_heads
from scclip_core.files import DATA, atomic_write
from scclip_core.images import normalise
from scclip_core.loading import load_clip
from scclip_lab.datasets.scenes import SIZES
from scclip_lab.training.curriculum import Batches, Phase
from scclip_lab.training.model import GRID, MODEL, sine_positions, whitened_patches

STUDENTS = DATA / "students"
# Scenes in a step, and the learning rate of AdamW after its warm-up of so many steps.
BATCH, RATE, WARM_UP = 8, 2e-3, 100
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Student:
    """A student to be trained.

    Attributes:
        width, layers: of its image tower.
        seed: of its scenes and first weights.
        steps: number of steps.
        early: a step after which it is kept as well, as `<name>-early`; 0 for none.
    """

    width: int
    layers: int
    seed: int
    steps: int
    early: int = 0


STUDENT_PLANS = {
    "narrow": Student(width=96, layers=12, seed=101, steps=1600, early=500),
    "shallow": Student(width=128, layers=8, seed=102, steps=1600),
}


def read_densely(model: FrozenCLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """The image and its patches in the space shared with text, with gradients.

    The image is read from the class token as CLIP does, the patches by the last block's values
    alone (`values`). Takes images [B, 3, H, W]; returns unit vectors [B, D] and [B, N, D].
    """
    tokens = model.embed(images)  # [B, 1 + N, C]
    *body, last = model.blocks
    for block in body:
        tokens = block(tokens)
    values = model.qkv(last, tokens[:, 1:])[2]  # [B, heads, N, d]
    patches = F.normalize(model.project(join_heads(last, values)), dim=-1)
    image = F.normalize(model.project(last(tokens)[:, 0]), dim=-1)
    return image, patches


def new_student(teacher: FrozenCLIP, plan: Student, sample: Tensor) -> FrozenCLIP:
    """An untrained student; its text tower is the teacher's.

    `sample`, normalised images [B, 3, S, S], gives its patch embedding whitened components.
    """
    torch.manual_seed(plan.seed)
    student = student_of(teacher, plan.width, plan.layers)
    with torch.no_grad():
        student.visual.conv1.weight.copy_(whitened_patches(sample, plan.width))
        student.visual.positional_embedding[1:] = 0.3 * sine_positions(GRID, plan.width)
    return student


def student_of(teacher: FrozenCLIP, width: int, layers: int) -> FrozenCLIP:
    """A model with another image tower, of random weights, beside the teacher's text tower."""
    vision = {**MODEL["vision_cfg"], "width": width, "layers": layers, "head_width": HEAD_WIDTH}
    clip = CLIP(MODEL["embed_dim"], vision, MODEL["text_cfg"])
    state = teacher.clip.state_dict()
    shared = {name: value for name, value in state.items() if not name.startswith("visual.")}
    clip.load_state_dict(shared, strict=False)
    return FrozenCLIP(clip, f"student {width} x {layers}", teacher.words)


def distil(teacher: FrozenCLIP, plan: Student) -> Iterator[tuple[int, FrozenCLIP]]:
    """Train a student; yields (step, a copy of it) at `plan.early`, if any, and at the end.

    The loss is the mean of 1 - cos(student, teacher) over patches, plus that over images. The
    learning rate rises linearly and falls to zero along a cosine.
    """
    counts = (1, 2, 3, 4)
    batches = Batches((Phase(GRID * 16, BATCH, plan.steps, counts, SIZES),), plan.seed)
    sample = torch.cat([batches[step].images for step in range(8)])
    sample = normalise(sample, teacher.mean, teacher.std)
    student = new_student(teacher, plan, sample)
    student.visual.requires_grad_(True)
    optimizer = torch.optim.AdamW(student.visual.parameters(), lr=RATE, weight_decay=0.02)
    scheduler = LambdaLR(optimizer, lambda step: learning_rate(step, plan.steps))
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=6)
    for step, batch in enumerate(tqdm(loader, total=plan.steps, mininterval=5), start=1):
        images = normalise(batch.images, teacher.mean, teacher.std)
        with torch.no_grad():
            targets = read_densely(teacher, images)
        pairs = zip(read_densely(student, images), targets, strict=True)
        loss = sum(1 - F.cosine_similarity(ours, theirs, dim=-1).mean() for ours, theirs in pairs)
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.visual.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0:
            tqdm.write(f"step {step}  loss {loss.item():.3f}")
        if step in (plan.early, plan.steps):
            yield step, copy.deepcopy(student)


def learning_rate(step: int, steps: int) -> float:
    """The factor on the learning rate: linear warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP) * (1 + float(np.cos(np.pi * step / steps))) / 2


def save_student(student: FrozenCLIP, file: Path, step: int) -> None:
    """Write the image tower, float16, with its width, depth and training steps as metadata."""
    state = student.visual.state_dict()
    tensors = {name: value.half().contiguous() for name, value in state.items()}
    plan = {"width": student.width, "layers": student.depth, "step": step}
    with atomic_write(file) as partial:
        save_file(tensors, partial, metadata={"student": json.dumps(plan)})


def load_student(name: str) -> FrozenCLIP:
    """A student by the name of its file in `data/students`, frozen.

    Raises ValueError for a name that is no student's.
    """
    known = sorted(file.stem for file in STUDENTS.glob("*.safetensors"))
    if name not in known:
        raise ValueError(f"name must be a student ({', '.join(known) or 'none'}), got {name!r}")
    file = STUDENTS / f"{name}.safetensors"
    with safe_open(file, "pt") as opened:
        plan = json.loads(opened.metadata()["student"])
    student = student_of(load_clip("mini"), plan["width"], plan["layers"])
    student.visual.load_state_dict({key: value.float() for key, value in load_file(file).items()})
    student.name = name
    return student


def distil_all(out: Path) -> None:
    """Train every student of `STUDENT_PLANS` and write it into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    teacher = load_clip("mini")
    for name, plan in STUDENT_PLANS.items():
        for step, student in distil(teacher, plan):
            suffix = "" if step == plan.steps else "-early"
            save_student(student, out / f"{name}{suffix}.safetensors", step)
