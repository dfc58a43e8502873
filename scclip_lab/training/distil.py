"""Students of the bundled model: fewer blocks or narrower MLPs, for chapters 12 and 13.

`python -m scclip_lab distil` makes them and writes `data/students`. A student begins as a part of
its teacher: some of its blocks, and of their MLPs the hidden units with the largest weights. Then
it learns to place images and patches where its teacher places them in the space shared with text;
its text tower is the teacher's. No pixel label is read, and nothing is asked of its middle layers,
so that they may become what they will.
"""

import json
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
from scclip_lab.training.model import MODEL
from scclip_lab.training.plan import GRID, PATCH

STUDENTS = DATA / "students"
# Scenes in a step, and the learning rate of AdamW after its warm-up of so many steps.
BATCH, RATE, WARM_UP = 8, 1e-3, 30


@dataclass(frozen=True)
class Student:
    """A student to be made.

    Attributes:
        blocks: which of the teacher's it keeps, in order, the last one among them.
        mlp_ratio: hidden units of its MLPs as a multiple of the width.
        seed: of its scenes.
        steps: number of training steps.
    """

    blocks: tuple[int, ...]
    mlp_ratio: int
    seed: int
    steps: int


STUDENT_PLANS = {
    "slim": Student(tuple(range(12)), mlp_ratio=1, seed=101, steps=600),
    "shallow": Student((0, 1, 3, 4, 6, 8, 9, 11), mlp_ratio=2, seed=102, steps=600),
    "short": Student((0, 2, 4, 6, 9, 11), mlp_ratio=4, seed=103, steps=600),
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


def prune(teacher: FrozenCLIP, plan: Student) -> FrozenCLIP:
    """The part of the teacher that a student begins as, frozen.

    Of a hidden unit of an MLP the weight is |its row of W_in| |its column of W_out|.
    """
    student = student_of(teacher, len(plan.blocks), plan.mlp_ratio)
    student.visual.load_state_dict(
        {
            name: value
            for name, value in teacher.visual.state_dict().items()
            if not name.startswith("transformer.")
        },
        strict=False,
    )
    for block, number in zip(student.blocks, plan.blocks, strict=True):
        state = teacher.blocks[number].state_dict()
        norms = state["mlp.c_fc.weight"].norm(dim=1) * state["mlp.c_proj.weight"].norm(dim=0)
        kept = norms.topk(plan.mlp_ratio * teacher.width).indices.sort().values
        state["mlp.c_fc.weight"] = state["mlp.c_fc.weight"][kept]
        state["mlp.c_fc.bias"] = state["mlp.c_fc.bias"][kept]
        state["mlp.c_proj.weight"] = state["mlp.c_proj.weight"][:, kept]
        block.load_state_dict(state)
    return student


def student_of(teacher: FrozenCLIP, layers: int, mlp_ratio: int) -> FrozenCLIP:
    """A model with an image tower of random weights beside the teacher's text tower."""
    vision = {**MODEL["vision_cfg"], "layers": layers, "mlp_ratio": mlp_ratio}
    clip = CLIP(MODEL["embed_dim"], vision, MODEL["text_cfg"])
    state = teacher.clip.state_dict()
    shared = {name: value for name, value in state.items() if not name.startswith("visual.")}
    clip.load_state_dict(shared, strict=False)
    return FrozenCLIP(clip, f"student of {layers} blocks", teacher.words)


def distil(teacher: FrozenCLIP, plan: Student) -> FrozenCLIP:
    """A student, trained.

    The loss is the mean of 1 - cos(student, teacher) over patches, plus that over images. The
    learning rate rises linearly and falls to zero along a cosine.
    """
    student = prune(teacher, plan)
    student.visual.requires_grad_(True)
    optimizer = torch.optim.AdamW(student.visual.parameters(), lr=RATE, weight_decay=0.02)
    scheduler = LambdaLR(optimizer, lambda step: learning_rate(step, plan.steps))
    curriculum = (Phase(GRID * PATCH, BATCH, plan.steps, (1, 2, 3, 4), SIZES),)
    batches = Batches(curriculum, plan.seed)
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
    student.visual.requires_grad_(False)
    return student


def learning_rate(step: int, steps: int) -> float:
    """The factor on the learning rate: linear warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP) * (1 + float(np.cos(np.pi * step / steps))) / 2


def save_student(student: FrozenCLIP, plan: Student, file: Path) -> None:
    """Write the image tower, float16, with its numbers of blocks and hidden units as metadata."""
    state = student.visual.state_dict()
    tensors = {name: value.half().contiguous() for name, value in state.items()}
    shape = {"layers": len(plan.blocks), "mlp_ratio": plan.mlp_ratio}
    with atomic_write(file) as partial:
        save_file(tensors, partial, metadata={"student": json.dumps(shape)})


def load_student(name: str) -> FrozenCLIP:
    """A student by the name of its file in `data/students`, frozen.

    Raises ValueError for a name that is no student's.
    """
    known = sorted(file.stem for file in STUDENTS.glob("*.safetensors"))
    if name not in known:
        raise ValueError(f"name must be a student ({', '.join(known) or 'none'}), got {name!r}")
    file = STUDENTS / f"{name}.safetensors"
    with safe_open(file, "pt") as opened:
        shape = json.loads(opened.metadata()["student"])
    student = student_of(load_clip("mini"), **shape)
    student.visual.load_state_dict({key: value.float() for key, value in load_file(file).items()})
    student.name = name
    return student


def distil_all(out: Path) -> None:
    """Make every student of `STUDENT_PLANS` and write it into the folder `out`."""
    teacher = load_clip("mini")
    for name, plan in STUDENT_PLANS.items():
        save_student(distil(teacher, plan), plan, out / f"{name}.safetensors")
