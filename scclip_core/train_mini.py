"""Train the bundled model: a small CLIP of ViT-B/16's family, by the contrastive loss on scenes and their
captions.

`python -m scclip_core.train_mini` writes a checkpoint as it goes and continues from it when started again;
the same seed gives the same scenes, captions and coin tosses at every step, whether or not the run was
interrupted. No pixel label is ever read here. What is unusual in this training, and why, is told in
`data/mini/README.md`.
"""

import argparse
import copy
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from scclip_core.curriculum import (
    BRANCHES,
    TRUNK,
    Batches,
    Phase,
    begins_anew,
    ends_decay,
    learning_rate,
    phase_at,
)
from scclip_core.files import DATA, atomic_write
from scclip_core.scenes import TRAIN
from scclip_core.student import MODEL, Student, normalise, whitened_patches

WARM_UP, WEIGHT_DECAY = 300, 0.1


def train(curriculum: tuple[Phase, ...], seed: int, checkpoint: Path, every: int = 250) -> Student:
    """Train from the checkpoint if there is one, else from the start.

    Returns the trained model: the mean of its weights at the ends of the phases whose learning rate falls to
    zero (Izmailov et al. 2018, stochastic weight averaging), from the last phase on that begins anew.
    """
    torch.manual_seed(seed)
    batches = Batches(curriculum, seed)
    student = Student()
    decayed = [p for p in student.parameters() if p.ndim > 1]
    plain = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, curriculum[0].rate, betas=(0.9, 0.98), fused=True)
    fresh = copy.deepcopy(optimizer.state_dict())
    step, curve, ends = 0, [], []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, curve, ends = saved["step"], saved["curve"], saved["ends"]
    else:
        sample = normalise(torch.cat([batches[s][0] for s in range(min(4, curriculum[0].steps))]))
        student.clip.visual.conv1.weight.data = whitened_patches(sample, MODEL["vision_cfg"]["width"])
    total, began, recent = len(batches), time.monotonic(), []
    for images, captions, truth in tqdm(upcoming(batches, step), initial=step, total=total, mininterval=5):
        if begins_anew(curriculum, step):
            student.load_state_dict(mean_weights(ends))
            optimizer.load_state_dict(fresh)
            ends = []
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(curriculum, step, WARM_UP)
        rng = np.random.default_rng((TRAIN, seed, step, 1))
        loss = student.loss(normalise(images), captions, truth, rng, phase_at(curriculum, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if ends_decay(curriculum, step):
            ends.append({name: tensor.clone() for name, tensor in student.state_dict().items()})
        step += 1
        if step % every == 0 or step == total:
            hours = (time.monotonic() - began) / 3600
            part = 1 + curriculum.index(phase_at(curriculum, step - 1))
            curve.append({"part": part, "step": step, "loss": float(np.mean(recent)), "hours": hours})
            began, recent = time.monotonic(), []
            saved = {
                "model": student.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "curve": curve,
                "ends": ends,
            }
            with atomic_write(checkpoint) as path:
                torch.save(saved, path)
            tqdm.write(f"step {step}  loss {curve[-1]['loss']:.3f}  side {images.shape[-1]}")
    student.load_state_dict(mean_weights(ends))
    student.curve = curve
    return student


def train_branches(
    trunk: tuple[Phase, ...], branches: tuple[Phase, ...], seed: int, checkpoint: Path
) -> Student:
    """Train the trunk, then each branch from where it ended, with a checkpoint of its own beside the trunk's.

    Returns the mean of the trunk's model and those of the branches (Wortsman et al. 2022, model soups).
    """
    student = train(trunk, seed, checkpoint)
    states, curve = [copy.deepcopy(student.state_dict())], student.curve
    for number, branch in enumerate(branches, 1):
        file = checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")
        if not file.exists():
            with atomic_write(file) as partial:
                shutil.copyfile(checkpoint, partial)
        student = train((*trunk, branch), seed, file)
        states.append(student.state_dict())
        curve = curve + [
            {**row, "part": len(trunk) + number} for row in student.curve if row["part"] > len(trunk)
        ]
    student.load_state_dict(mean_weights(states))
    student.curve = curve
    return student


def mean_weights(ends: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several states of one model, name by name."""
    return {name: torch.stack([end[name] for end in ends]).mean(0) for name in ends[0]}


def upcoming(batches: Batches, step: int) -> Iterator[tuple[Tensor, list[str], Tensor]]:
    """The batches from `step` on, composed by a process of their own while the model trains."""
    return iter(
        DataLoader(
            batches, batch_size=None, sampler=range(step, len(batches)), num_workers=1, prefetch_factor=4
        )
    )


def main() -> None:
    """The command line of the training."""
    parser = argparse.ArgumentParser(
        description="Train the bundled model; started again, it goes on where it stopped."
    )
    parser.add_argument(
        "--out", type=Path, default=DATA / "mini", help="folder for the model (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("mini-checkpoint.pt"), help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of scenes, captions and weights (default: %(default)s)"
    )
    args = parser.parse_args()
    student = train_branches(TRUNK, BRANCHES, args.seed, args.checkpoint)
    student.export(args.out)
    with atomic_write(args.out / "curve.json") as path:
        path.write_text(json.dumps(student.curve, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
